"""One GPU a job, where a machine has several and each job is a process of its own.

A job takes the GPU that fewest jobs of this user on this machine hold. What is held is known by locked files (`flock`) in the
folder of temporary files, which the kernel frees when their process ends, however it ends. Launchers that give jobs their GPUs
themselves (SLURM, Ray) show a job only those, and where it sees none or one, nothing is done.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARED = ("auto", "cuda")  # values of `device` that name no GPU


def visible(environment: Mapping[str, str], count: Callable[[], int]) -> list[str]:
    """The GPUs that a process sees: by CUDA_VISIBLE_DEVICES (numbers, or names like GPU-... and MIG-...), else 0 to count() - 1.

    CUDA reads the list up to the first entry that names no device, and -1 is none.
    """
    if VISIBLE not in environment:
        return [str(number) for number in range(count())]
    names = [name.strip() for name in environment[VISIBLE].split(",")]
    end = next((index for index, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[:end]


def least_used(gpus: Sequence[str], users: Mapping[str, int], job: int) -> str | None:
    """The GPU for a job: that of the fewest users, and of equals the next in turn from number `job`; None of fewer than two."""
    if len(gpus) < 2:
        return None
    turn = [gpus[(job + offset) % len(gpus)] for offset in range(len(gpus))]
    return min(turn, key=lambda gpu: users.get(gpu, 0))  # the first of equals


@contextmanager
def one_gpu(
    job: int,
    device: str,
    count: Callable[[], int],
    environment: MutableMapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Iterator[str | None]:
    """Inside, this process sees one GPU, which is marked as used; to be entered before CUDA is.

    Args:
        job: the number of the job in its sweep.
        device: its setting; one that names a device is left alone.
        count: how many GPUs there are, asked only where CUDA_VISIBLE_DEVICES does not say it.
        folder: of the locked files; default: one of this user's in the folder of temporary files.

    Returns:
        The GPU; None where nothing was changed.
    """
    gpus = visible(environment, count) if device in SHARED else []
    if len(gpus) < 2:
        yield None
        return
    folder = folder or Path(tempfile.gettempdir()) / f"dqnlm-gpus-{getpass.getuser()}"
    before = environment.get(VISIBLE)
    with ExitStack() as stack:
        chosen = _take(folder, gpus, job, stack) if fcntl is not None else least_used(gpus, {}, job)
        assert chosen is not None, "there are at least two"
        environment[VISIBLE] = chosen
        try:
            yield chosen
        finally:
            if before is None:
                del environment[VISIBLE]
            else:
                environment[VISIBLE] = before


def _take(folder: Path, gpus: Sequence[str], job: int, stack: ExitStack) -> str | None:
    """Chooses and marks a GPU, one process at a time; the mark is held until the stack is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "turn").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        users: dict[str, int] = {}
        for file in folder.glob("*.user"):
            gpu = file.name.split(".")[0]
            if _is_held(file):
                users[gpu] = users.get(gpu, 0) + 1
            else:
                file.unlink(missing_ok=True)  # its process was killed
        chosen = least_used(gpus, users, job)
        mark = folder / f"{chosen}.{os.getpid()}-{job}.user"
        stream = stack.enter_context(mark.open("w"))
        fcntl.flock(stream, fcntl.LOCK_EX)
        stack.callback(_remove, mark)  # before the stream is closed
        return chosen


def _is_held(file: Path) -> bool:
    with suppress(FileNotFoundError), file.open("a") as stream:
        return not _lock(stream)
    return False


def _lock(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(mark: Path) -> None:
    mark.unlink(missing_ok=True)
