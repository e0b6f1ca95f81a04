"""Handling of SIGINT and SIGTERM during a run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dqnlm.utils import interrupts


class Stopped(SystemExit):
    """The run was stopped by a signal and saved; the exit code is 128 + the signal's number."""


@contextmanager
def listening_to_signals(note: Callable[[int], None]) -> Iterator[None]:
    """Calls `note` with the number of a SIGTERM or SIGINT (Ctrl-C) instead of ending the program at once.

    A signal that the program was started to ignore stays ignored: a shell starts a background process that way, so that
    Ctrl-C for the command in the foreground does not reach it.
    """
    interrupts.raise_if_forgotten()
    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, lambda number, _frame: note(number)) for s in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
