"""What may come from outside while a run goes on: signals, and memory running out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dqnlm.errors import UserError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def naming_memory() -> Iterator[None]:
    """Turns running out of memory into the three settings that lower it."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory: {str(error).splitlines()[0]}\nlower one of: trainer.batch_size (rows in an update), "
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
