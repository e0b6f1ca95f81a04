"""This process's place among those that `torchrun` started for one run."""

from __future__ import annotations

import os
import time

from dqnlm.utils.ranks import ALONE, Ranks

AFTER_THE_FIRST_S = 2.0

_joined: Ranks | None = None


def started_with_others() -> bool:
    """Whether torchrun (or what sets the same variables) started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_silent() -> bool:
    """Whether another process on this machine says what this one would say: before they have joined, all say the same."""
    return _joined is None and started_with_others() and int(os.environ.get("LOCAL_RANK", "0")) > 0


def process_name() -> str:
    """`process 1 of 2: ` for processes besides the first one, as a beginning of what they say."""
    return "" if _joined is None or _joined.is_first else f"process {_joined.rank} of {_joined.world}: "


def let_the_first_speak() -> None:
    """Called before an error is printed: where the first process has it too, it ends, and torchrun this one with it."""
    if process_name():
        time.sleep(AFTER_THE_FIRST_S)


def leave(code: int) -> int:
    """Called at the end of the process with its exit code, which is returned."""
    if _joined is not None:
        _joined.leave(code)
    return code


def join() -> Ranks:
    """This process's place among those of the run; the first call waits for all of them.

    Raises:
        UserError: they did not all come.
    """
    global _joined
    if not started_with_others():
        return ALONE
    if _joined is None:
        from dqnlm.utils import process_group  # torch is imported only where it is needed

        _joined = process_group.join(
            int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0"))
        )
    return _joined
