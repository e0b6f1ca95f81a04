"""Compares what a run left with what is on record: bit for bit on the platform of the record, and roughly elsewhere.

Another processor or another version of torch adds in another order, so that figures differ in their last bits; as soon as two
actions or two draws are that close, a discrete choice parts the runs, and from there on nothing is comparable. Elsewhere
only the first line of figures is compared, within a relative 1e-3 or an absolute 1e-5, and a warning says so.
"""

from __future__ import annotations

import itertools
from typing import Any

from dqnlm.config.moved import renewed_metric

ADDED: frozenset[str] = frozenset()  # figures of today that are not on record
RELATIVE, ABSOLUTE = 1e-3, 1e-5

Record = dict[str, Any]


def difference(expected: Record, actual: Record, same_platform: bool) -> str | None:
    """The first difference as a text with both values; None where there is none."""
    if not same_platform:
        return _of_lines("metrics", expected["metrics"][:1], actual["metrics"][:1], _near)
    found = _of_lines("metrics", expected["metrics"], actual["metrics"], _same)
    if found is None:
        found = _of_lines("samples", expected["samples"], actual["samples"], _same)
    return found or _of_tensors(expected["tensors"], actual["tensors"])


def _of_lines(file: str, expected: list[Record], actual: list[Record], alike: Any) -> str | None:
    for number, (old, new) in enumerate(itertools.zip_longest(expected, actual), 1):
        if old is None or new is None:
            return f"{file} has {len(actual)} lines, on record are {len(expected)}"
        today = {renewed_metric(name): value for name, value in old.items()}
        for name in [*today, *(name for name in new if name not in today and name not in ADDED)]:
            if name not in new or name not in today:
                which = "on record only" if name in today else "not on record"
                return f"{file}, line {number} (step {new.get('step')}): {name} is {which}"
            if not alike(today[name], new[name]):
                return f"{file}, line {number} (step {new.get('step')}): {name} is {new[name]!r}, on record {today[name]!r}"
    return None


def _same(old: Any, new: Any) -> bool:
    return repr(old) == repr(new)  # bit for bit, and NaN equals NaN


def _near(old: Any, new: Any) -> bool:
    numbers = all(isinstance(value, (int, float)) for value in (old, new))
    return _same(old, new) or (numbers and abs(old - new) <= max(ABSOLUTE, RELATIVE * abs(old)))


def _of_tensors(expected: dict[str, list[str]], actual: dict[str, list[str]]) -> str | None:
    for part, old in expected.items():
        new = actual[part]
        if old == new:
            continue
        if sorted(old) == sorted(new):
            return f"tensors of the {part}: the same, in another order"
        for number, (was, now) in enumerate(itertools.zip_longest(old, new), 1):
            if was != now:
                return f"tensors of the {part}: number {number} is {now}, on record {was}"
    return None
