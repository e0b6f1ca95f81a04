"""What may come from outside while a run goes on: signals, and memory running out."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dqnlm import interrupts
from dqnlm.errors import UserError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class Stopped(SystemExit):
    """The run was asked to stop, and saved itself; the exit code says by which signal (128 + its number)."""


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


@contextmanager
def naming_memory() -> Iterator[None]:
    """Turns running out of memory into the three settings that lower it."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory: {str(error).splitlines()[0]}\nlower one of: trainer.batch_rows (rows in an update), "
            "env.num_envs (rows in a rollout), buffer.capacity (transitions kept); the last checkpoint is kept"
        ) from error


@contextmanager
def naming_disk(folder: Path) -> Iterator[None]:
    """Turns a run's folder that cannot be written (full, read-only, no permission) into what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror}. Free space or mend the folder's permissions; what was saved "
            f"before is kept. If {folder}/checkpoints holds a checkpoint, go on with: dqnlm resume {folder}"
        ) from error
