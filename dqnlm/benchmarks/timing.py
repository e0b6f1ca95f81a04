"""Times of two sides of a comparison, taken alternately in one process, and what a benchmark reports of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

WARM_UP = 2  # rounds that are not counted


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        what: the group of the benchmark.
        sides: what is compared, such as `DQN update / cross-entropy step`.
        first, second: median of each side in `unit`; None where there is one side, or none.
        unit: of both.
        ratio: median of the rounds' ratios first / second; None without two sides.
        wanted: the goal in words; "" for none.
        note: why a number is missing, or how it was taken.
    """

    what: str
    sides: str
    first: float | None = None
    second: float | None = None
    unit: str = ""
    ratio: float | None = None
    wanted: str = ""
    note: str = ""


def alternate(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round, one after the other, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + WARM_UP):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - started)
    return times


def compared(what: str, sides: str, times: Mapping[str, list[float]], wanted: str = "", note: str = "") -> Row:
    """A row of two sides in milliseconds; `times` holds those of the first and of the second side, in this order."""
    first, second = times.values()
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    return Row(
        what,
        sides,
        statistics.median(first) * 1e3,
        statistics.median(second) * 1e3,
        "ms",
        ratio,
        wanted,
        note,
    )
