"""A job of a sweep in a process of its own, started and watched by the launcher's process.

A launcher that uses processes loses the whole sweep with one of them: joblib ends all its workers, and Ray and submitit stop
waiting for the others. Here a job that is killed (kill -9, too little memory) is an outcome like others. A fresh process also
starts without the CUDA context of the job before, so that it can be given a GPU.

The child reads what to do from its standard input, which stays open as long as the launcher's process lives: its end means
that the launcher was stopped, and the child saves and stops, as after SIGTERM. (joblib kills the whole tree of its workers on
Ctrl-C: their jobs are left at their last checkpoints.)
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dqnlm.utils import interrupts, user_code

LENGTH_BYTES = 8
SOURCE = 0  # standard input, read without Python's buffer: a thread that waits in it would hold its lock at exit


def run(function: Callable[..., Any], arguments: Sequence[Any]) -> int:
    """Calls a module's function in a new process and waits; returns its exit code, minus the signal's number if one killed it.

    An exception in here, such as Ctrl-C's, stops the child, which saves before it ends.
    """
    task = pickle.dumps((function, tuple(arguments)))
    # A group of its own: Ctrl-C reaches the child once, by the end of its input, and not twice, which means "without saving".
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dqnlm.commands.job_process"], stdin=subprocess.PIPE, process_group=0, bufsize=0
    )
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # it ended before it read all; its code says how
            process.stdin.write(len(task).to_bytes(LENGTH_BYTES, "little"))
            _write(process.stdin, task)
        return process.wait()
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


def _write(stream: Any, content: bytes) -> None:
    """All of it: one write to a pipe takes 64 KiB at most."""
    left = memoryview(content)
    while left:
        left = left[stream.write(left) :]


def _read(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(SOURCE, min(count, 1 << 16))
        if not part:
            raise SystemExit("the process that started this job has ended")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _stop_with_parent() -> None:
    while os.read(SOURCE, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """The child; exit codes as for `dqnlm train`."""
    function, arguments = pickle.loads(_read(int.from_bytes(_read(LENGTH_BYTES), "little")))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        with interrupts.remembering(), user_code.explaining():
            function(*arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
