"""External failures during a run: memory and disk errors as messages for the user."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dqnlm.errors import UserError
from dqnlm.utils.permissions import resume_command

IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP}
TOO_LARGE = ("can't allocate memory", "Storage size calculation overflowed", "integer multiplication overflow")  # torch on CPUs
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def explain_memory_error() -> Iterator[None]:
    """Turns out-of-memory errors into UserError with the three settings that lower memory use."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(text in str(error) for text in TOO_LARGE):
            raise
        said = str(error).splitlines() or ["there is less than was asked for"]
        raise UserError(
            f"out of memory: {said[0]}\nlower one of: trainer.batch_size (rows in an update), "
            "env.num_envs (rows in a rollout), buffer.capacity (transitions kept); the last checkpoint is kept"
        ) from error


@contextmanager
def explain_disk_error(folder: Path) -> Iterator[None]:
    """Turns disk errors of a run's folder (full, read-only, no permission) into UserError with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in IN_THE_WAY:
            raise UserError(
                f"{error.filename2 or error.filename or folder}: {error.strerror}. A folder or a link lies where a file of the "
                f"run belongs (or a file where a folder does): move it away, then continue with: {resume_command(folder)}"
            ) from error
        if error.errno not in DISK:
            raise
        raise UserError(
            f"{error.filename or folder}: {error.strerror}. Free space or correct the folder's permissions; earlier "
            f"checkpoints are kept. If {folder}/checkpoints contains a checkpoint, continue with: {resume_command(folder)}"
        ) from error
