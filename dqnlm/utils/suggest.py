"""The nearest valid name for an unknown word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The most similar choice, ignoring case, or None when none is similar."""
    lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def suggestion(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """`\n  did you mean X?`, or an empty text."""
    near = nearest(word, choices)
    return f"\n  did you mean {prefix}{near}?" if near is not None else ""
