"""One logged completion with its rewards, and what may be wrong with a record that should be one.

A record (a line of a JSONL file, a row of a table) is an object with `prompt`, `completion`, and either `reward`, one
number for the whole completion, or `rewards`, one number for each character of it. It may have `next`, the text that the
same episode goes on with (empty: the episode ended), and `episode`, an integer that the rows of one episode share. Other
fields are not read, and null is the same as not given.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dqnlm.errors import UserError

_FIELDS = ("prompt", "completion", "reward", "rewards", "next", "episode")
_GREATEST = float(np.finfo(np.float32).max)  # rewards are kept in 32 bits


@dataclass(frozen=True)
class Trajectory:
    """One completion: where it began, what was written, what each token of it was paid.

    Attributes:
        prompt: text before the first decision, at least one token.
        completion: what was written, at least one token; each token is a decision.
        rewards: one for each token of the completion; a single reward stands at the last, after zeros.
        next: text that follows within the same episode (the next observation); empty: the episode ended.
        episode: rows with the same number belong to one episode, in order; -1: an episode of its own.
        place: where it was read, for messages.
    """

    prompt: str
    completion: str
    rewards: tuple[float, ...]
    next: str = ""
    episode: int = -1
    place: str = field(default="", compare=False, repr=False)


def content_sha256(trajectories: Iterable[Trajectory]) -> str:
    """Hex sha256 of all fields of all trajectories but `place`, in order."""
    digest = hashlib.sha256()
    for t in trajectories:
        digest.update(json.dumps([t.prompt, t.completion, t.rewards, t.next, t.episode]).encode() + b"\n")
    return digest.hexdigest()


def trajectory_of(place: str, record: Any) -> Trajectory:
    """One record. Raises UserError that names the place and the field."""
    if not isinstance(record, Mapping):
        raise UserError(f'{place} is no object but {_shown(record)}; write {{"prompt": ..., "completion": ..., ...}}.')
    texts = {name: _text(record, name, place) for name in ("prompt", "completion")}
    follows, episode = record.get("next"), record.get("episode")
    if follows is not None and not isinstance(follows, str):
        raise UserError(f"{place}: next is {_shown(follows)}; it must be a text, empty where the episode ended.")
    if episode is not None and (isinstance(episode, bool) or not isinstance(episode, int) or episode < 0):
        raise UserError(f"{place}: episode is {_shown(episode)}; it must be an integer from 0, or be left out.")
    rewards = _rewards(record, texts["completion"], place)
    return Trajectory(
        **texts, rewards=rewards, next=follows or "", episode=-1 if episode is None else episode, place=place
    )


def _text(record: Mapping[str, Any], name: str, place: str) -> str:
    text = record.get(name)
    if text is None:
        raise _missing(record, name, place)
    if not isinstance(text, str):
        raise UserError(f"{place}: {name} is {_shown(text)}, not a text; put it in quotes.")
    if not text:
        why = {"prompt": "the first choice follows at least one character", "completion": "nothing was chosen"}[name]
        raise UserError(f"{place}: {name} is empty ({why}). Give it some text, or leave the line out.")
    return text


def _rewards(record: Mapping[str, Any], completion: str, place: str) -> tuple[float, ...]:
    single, each = record.get("reward"), record.get("rewards")
    if single is None and each is None:
        raise _missing(record, "reward", place)
    if single is not None and each is not None:
        raise UserError(f"{place} has both reward and rewards; keep one: a number, or one number a character.")
    if each is None:
        return (0.0,) * (len(completion) - 1) + (_number(single, "reward", place),)
    if not isinstance(each, list):
        raise UserError(f"{place}: rewards is {_shown(each)}, not a list; a single number is called reward.")
    if len(each) != len(completion):
        raise UserError(
            f"{place}: rewards has {len(each)} numbers, but completion has {len(completion)} characters; give one for each."
        )
    return tuple(_number(value, f"rewards[{i}]", place) for i, value in enumerate(each))


def _number(value: Any, name: str, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{place}: {name} is {_shown(value)}, not a number.")
    if not abs(value) <= _GREATEST:  # also not-a-number
        raise UserError(
            f"{place}: {name} is {_shown(value)}; a reward must be finite (in 32 bits). Correct or drop the line."
        )
    return float(value)


def _missing(record: Mapping[str, Any], name: str, place: str) -> UserError:
    there = [str(key) for key in record if record[key] is not None]
    wanted = "reward (nor rewards)" if name == "reward" else name
    near = difflib.get_close_matches(name, [key for key in there if key not in _FIELDS], n=1)
    hint = f" Rename {near[0]} to {name}." if near else ""
    return UserError(f"{place} has no {wanted}; it has {', '.join(there) or 'nothing'}.{hint}")


def _shown(value: Any, limit: int = 60) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else f"{text[:limit]} ..."
