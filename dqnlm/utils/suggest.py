"""The nearest valid name for a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`, whatever its case, or None when nothing is near."""
    lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def suggestion(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """`\\n  did you mean X?` or nothing."""
    near = nearest(word, choices)
    return f"\n  did you mean {prefix}{near}?" if near is not None else ""
