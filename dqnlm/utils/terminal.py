"""Standard input, output and error of a command: no letter, no closed stream and no full disk ends in a traceback.

    a letter that the encoding lacks   `?` in its place
    a stream that is closed            the null device in its place
    output that cannot be written      `OutputError`, which `dqnlm.cli` turns into a message; BrokenPipeError stays what it is
    messages that cannot be written    nothing: there is no other place to say so
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO

from dqnlm.errors import UserError

ESCAPED = ("\udc80", "\udcff")  # first and last of what Python puts in the place of bytes that the locale's encoding lacks


class OutputError(OSError):
    """Standard output cannot be written (a full disk), other than by a reader that has gone."""


class _Output(io.FileIO):
    lost: OutputError | None = None  # kept, because argparse swallows it

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            _Output.lost = OutputError(error.errno, error.strerror)
            raise _Output.lost from error


class _Messages(io.FileIO):
    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def prepare() -> None:
    """Called once, before anything is read or printed."""
    _open_closed()
    sys.stdout = _guarded(sys.stdout, sys.__stdout__, _Output)
    sys.stderr = _guarded(sys.stderr, sys.__stderr__, _Messages)
    replace_unknown_letters()


def replace_unknown_letters() -> None:
    """From here on stdout and stderr write `?` in the place of letters that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def discard_output() -> None:
    """From here on nothing is printed to stdout. What is left in its buffer must not fail again when Python ends."""
    _Output.lost = None
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """Prints a line of a job of a sweep at once; a job does not fail because it cannot be printed."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def flush_output() -> None:
    """Called at the end. Raises OutputError where something that was printed is lost, and BrokenPipeError."""
    sys.stdout.flush()
    if _Output.lost is not None:
        raise _Output.lost


def read_line() -> str:
    """A line of standard input with its line break; empty at the end of the input.

    Raises:
        UserError: its bytes are no text in the encoding of standard input.
    """
    try:
        return sys.stdin.readline()
    except UnicodeError as error:
        raise UserError(
            f"standard input is no text in the encoding {sys.stdin.encoding}: {error}\n"
            "  name the encoding that it has, for example: PYTHONIOENCODING=utf-8 dqnlm ..."
        ) from error


def escaped_bytes(text: str) -> bool:
    """Whether a text typed has bytes that are no text in the encoding of the locale."""
    return any(ESCAPED[0] <= letter <= ESCAPED[1] for letter in text)


def about_the_locale() -> str:
    """What to do about such bytes."""
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return "they are bytes that are no UTF-8; write them in UTF-8"
    return f"the locale's encoding is {encoding}, not UTF-8; begin the command with LC_ALL=C.UTF-8 (or PYTHONUTF8=1)"


def _open_closed() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # in this order each gets its own number, and no file opened later does
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  for the whole process


def _guarded(stream: TextIO, usual: TextIO | None, kind: type[io.FileIO]) -> TextIO:
    """A stream that writes as before, through a raw file of another kind; one that is not the usual stays."""
    if stream is not usual or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    raw = kind(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors,  # type: ignore[arg-type]
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip
