"""Child processes of tests, none of which outlives its test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tests.helpers.paths import ROOT


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes for text, in a group of its own; the whole group is killed (SIGKILL) at the end of the block."""
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0, **options
    )
    with process:  # closes the pipes and waits
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):  # the group has ended
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def torchrun(processes: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """torchrun with these words behind its number of processes, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with started(command, cwd=ROOT, env=environment) as process:
        yield process


def run(processes: int, *words: str) -> tuple[int, str]:
    """Exit code and all output of a command of dqnlm in so many processes."""
    with torchrun(processes, "-m", "dqnlm", *words) as process:
        out, error = process.communicate(timeout=120)
    return process.returncode, out + error
