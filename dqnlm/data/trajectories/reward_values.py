"""The value of a reward field as a number: of numbers, shares, truth values, and words that `data.ratings` gives a number."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dqnlm.errors import UserError

NUMBER, SHARE, TRUTH = "a number", "a share", "true or false"
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")  # unquoted YAML keys that become truth values
_SHOWN = 10  # words without a number, in messages
_LONGEST = 60  # characters of what can be a rating
_TYPED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+/%-]*(?: [A-Za-z0-9_.+/%-]+)*")  # keys of a mapping that a command can hold
_NO_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")  # what JSON writes as it is, and YAML reads otherwise


class Paid(NamedTuple):
    """A reward that was read.

    Attributes:
        number: what it is worth; what is no number at all is named where records are checked.
        kind: how it is written; None for a word with a rating.
    """

    number: Any
    kind: str | None


def value_of(value: Any, ratings: Mapping[str, float]) -> Paid | None:
    """The number of a reward; None for a word without one."""
    text = str(value).lower() if isinstance(value, bool) else value.strip() if isinstance(value, str) else None
    if text is not None and text in ratings:
        return Paid(float(ratings[text]), None)
    if isinstance(value, bool):
        return Paid(float(value), TRUTH)
    if text is None:
        return Paid(value, NUMBER)
    above, slash, below = text.partition("/")
    try:
        if "_" not in text:  # Python alone reads 1_000 as a number
            return Paid(float(above) / float(below), SHARE) if slash else Paid(float(text), NUMBER)
    except (ValueError, ZeroDivisionError):
        pass
    return None


def require_alike(value: Any, kind: str | None, column: str, place: str, found: dict[str, dict[str, str]]) -> None:
    """Notes how a column writes its rewards.

    Args:
        value: of the reward, for messages.
        kind: of `Paid`.
        column: its name.
        place: where it stands.
        found: column -> kind -> the first of it; added to.

    Raises:
        UserError: an earlier one of the column is of another kind: 4 beside 4/5 would be five times as much.
    """
    if kind is None:
        return
    kinds = found.setdefault(column, {})
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    kinds.setdefault(kind, f"{shown} ({place})")
    if len(kinds) > 1:
        (before, first), _ = kinds.items()
        raise UserError(
            f"{place}: {column} is {kind}, {shown}, and {before} before: {first}. Write all rewards alike, as "
            f"{NUMBER} each (or all as {SHARE}, such as 4/5, or all as {TRUTH})."
        )


def ratings_by_text(ratings: Mapping[Any, float] | None) -> dict[str, float]:
    """The text of each rated word -> its number. A key that YAML reads as a truth value stands for the texts that it reads so."""
    found = dict[str, float]()
    for key, number in (ratings or {}).items():
        if isinstance(key, bool):
            texts = _TRUE if key else _FALSE
            found |= {form: number for text in texts for form in (text, text.capitalize(), text.upper())}
    return found | {_text(key): number for key, number in (ratings or {}).items() if not isinstance(key, bool)}


def _text(key: Any) -> str:
    return "null" if key is None else str(key).strip()


def without_number(words: Mapping[str, str], ratings: Mapping[str, float]) -> UserError:
    """The error for rewards that are words without a number.

    Args:
        words: each -> where it stands first, "FILE, line 3: reward".
        ratings: words with a number.
    """
    first, place = next(iter(words.items()))
    names = sorted(words)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    shown = ", ".join(f"{name[:_LONGEST]!r}" for name in names[:_SHOWN])
    short = [name for name in names if len(name) <= _LONGEST][:_SHOWN]
    advice = _advice(short, ratings) if short else "These are no ratings: rename the field, and call the one with numbers reward."
    known = ", ".join(map(repr, ratings)) or "none"
    return UserError(
        f"{place} is {first[:_LONGEST]!r}, which is no number (nor a share such as 4/5). Words found: {shown}{more} "
        f"(with a number so far: {known}). {advice}"
    )


def _advice(words: Sequence[str], ratings: Mapping[str, float]) -> str:
    """How to give words a number: typed where a command can hold them, else in a file. Those that have one are kept."""
    numbers = {name: repr(float(number)) for name, number in ratings.items()} | dict.fromkeys(words, "NUMBER")
    if all(_can_be_typed(name) for name in numbers):
        typed = ", ".join(f"{name}: {number}" for name, number in numbers.items())
        return f"Give each a number: {shlex.quote(f'data.ratings={{{typed}}}')}"
    written = ", ".join(f"{_quoted(name)}: {number}" for name, number in numbers.items())
    return (
        "Give each a number in an experiment file, as a command cannot hold all of them: dqnlm init logged my_logged.yaml makes "
        "one, to be named in the place of +experiment=logged. Put this line below its line `data:`, with its two spaces\n"
        f"  ratings: {{{written}}}"
    )


def _can_be_typed(word: str) -> bool:
    """Whether a word is a key of Hydra's grammar, and stays a text."""
    try:
        float(word)
        return False
    except ValueError:
        return _TYPED.fullmatch(word) is not None and word.lower() not in ("true", "false", "null")


def _quoted(word: str) -> str:
    return _NO_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(word, ensure_ascii=False))
