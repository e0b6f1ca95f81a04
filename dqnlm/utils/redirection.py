"""Redirects the output of a process and its children to a file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def printing_to(path: Path) -> Iterator[TextIO]:
    """Inside, standard output and standard error are appended to a file; yields the previous standard error.

    The descriptors 1 and 2 are led there too, so that processes started inside print into the file as well.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(path.open("a", encoding="utf-8", buffering=1))
        shown = stack.enter_context(os.fdopen(os.dup(2), "w", encoding="utf-8", buffering=1))
        for number in (1, 2):
            stack.callback(_restore, os.dup(number), number)
            os.dup2(log.fileno(), number)
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        yield shown


def _restore(saved: int, number: int) -> None:
    os.dup2(saved, number)
    os.close(saved)
