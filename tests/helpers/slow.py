"""Which cases of a long list of cases run in every `scripts/test`, and which in `scripts/test --slow` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], quick: Callable[[int, Any], bool] | int) -> list[Any]:
    """Parameters of which all but the quick ones are marked slow: cases of one class, each of which trains something.

    Args:
        cases: values of one parameter, or tuples of several.
        quick: tells by number and case; or N: each N-th case, the first included.
    """
    is_quick = quick if callable(quick) else lambda number, _: number % quick == 0
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=[] if is_quick(number, case) else pytest.mark.slow)
        for number, case in enumerate(cases)
    ]
