"""SIGINT and SIGTERM while a run goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dqnlm.utils import interrupts


class Stopped(SystemExit):
    """The run was asked to stop, and saved itself; the exit code says by which signal (128 + its number)."""


@contextmanager
def listening_to_signals(note: Callable[[int], None]) -> Iterator[None]:
    """Calls `note` with the number of a SIGTERM or SIGINT (Ctrl-C) instead of ending the program at once."""
    interrupts.raise_if_forgotten()
    before = {s: signal.signal(s, lambda number, _frame: note(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
