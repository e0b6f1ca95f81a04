"""Ctrl-C during start-up is recorded, because some libraries swallow the exception.

`KeyboardInterrupt` can arrive inside a callback of the interpreter or of an import, where Python prints and discards it. A
run checks the record before its first rollout.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_pressed = False


@contextmanager
def remembering() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt as usual, and is recorded. In other threads nothing changes."""
    global _pressed
    _pressed = False
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _remember(number: int, frame: FrameType | None) -> None:
    global _pressed
    _pressed = True
    raise KeyboardInterrupt


def was_pressed() -> bool:
    """Whether Ctrl-C was pressed since the program started; a library may have turned it into an error of its own."""
    return _pressed


def raise_if_forgotten() -> None:
    """Raises KeyboardInterrupt where one was raised and swallowed."""
    if _pressed:
        raise KeyboardInterrupt
