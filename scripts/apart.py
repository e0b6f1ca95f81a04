"""A piece of work in a process of its own: what it printed, and how it ended, also where it crashes or does not end."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import IO

TRACEBACK, TOO_LONG, UNTOLD = "traceback", "too long", "2 without a message"
MESSAGE = "error: "
_PAUSE_S = 0.01  # between two looks whether it has ended


def apart(work: Callable[[], object], seconds: float = 120.0, memory_gb: float = 8.0) -> tuple[str, str]:
    """Forks, and works there. This process must not have called `backward`, after which torch's autograd refuses to fork.

    Args:
        work: returns an exit code, or raises.
        seconds: after which it is killed.
        memory_gb: of address space.

    Returns:
        How it ended, and the text on both streams: the exit code, "traceback" whatever the code, "too long", "signal 11",
        or "2 without a message" where it is not one.
    """
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _work(work, said, int(memory_gb * 1e9))
        ended = _wait(child, seconds)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    return judged(ended, text), text


def prepare() -> None:
    """Imports what runs need, by checking one, so that each forked process has it and begins at once."""
    from dqnlm import cli

    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["validate", "+experiment=debug/smoke", "threads=1"]) == 0


def judged(ended: str, said: str) -> str:
    """How a command ended, by its code in words and what it printed; see `apart`."""
    if "Traceback (most recent call last)" in said:
        return TRACEBACK
    messages = sum(line.startswith(MESSAGE) for line in said.splitlines())
    return UNTOLD if ended == "2" and messages != 1 else ended


def _work(work: Callable[[], object], said: IO[bytes], memory: int) -> None:
    """The child's part; does not return."""
    code = 1
    try:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        code = _code(work())
    except SystemExit as stop:
        code = _code(stop.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _code(value: object) -> int:
    return value if isinstance(value, int) else int(value is not None)


def _wait(child: int, seconds: float) -> str:
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return str(code) if code >= 0 else f"signal {-code}"
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return TOO_LONG
        time.sleep(_PAUSE_S)
