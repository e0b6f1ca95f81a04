"""Console output of a run: coloured on the terminal, plain in train.log, with the same text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from tqdm import tqdm

from dqnlm.utils.files import require_regular
from dqnlm.utils.terminal import OutputError, discard_output, replace_unknown_letters

# As tqdm's own, but for the time left, which counts evaluations and saving.
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class Terminal(Console):
    """A console whose closed pipe is an error like others; that of rich ends the program."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled."""
        discard_output()
        raise


class RunConsole:
    """Prints to the terminal and to the log file; draws the progress bar, or plain lines where there is no terminal.

    Args:
        log: the file; None: says and writes nothing, where another process does.
        progress: whether to show the progress.

    Raises:
        UserError: a pipe or a device lies in the place of the log file.
    """

    def __init__(self, log: Path | None, progress: bool) -> None:
        replace_unknown_letters()
        self._terminal = Terminal(width=None if sys.stdout.isatty() else 120, highlight=False, quiet=log is None)
        file = Path(os.devnull) if log is None else log
        if log is not None:
            require_regular(log)
        self._stream = file.open("a", encoding="utf-8")
        progress = progress and log is not None
        self._file = Console(file=self._stream, width=120, no_color=True, highlight=False)
        self._bar: tqdm[Any] | None = None
        self._is_gone = False
        self.progress = progress
        self._started, self._first = time.monotonic(), 0
        self._left, self._words = "?", ""  # time left, newest metrics

    def print(self, what: Any) -> None:
        """Prints a string or a rich renderable. The terminal wraps sentences, so that paths stay in one piece."""
        what = Text(what) if isinstance(what, str) else what
        sentence = isinstance(what, Text)
        with self._while_there_is_a_terminal(), tqdm.external_write_mode():
            self._terminal.print(what, soft_wrap=sentence)
        self._file.print(what, soft_wrap=sentence)
        self._stream.flush()

    @contextmanager
    def _while_there_is_a_terminal(self) -> Iterator[None]:
        """A terminal or pipe that has gone ends no training: the log file goes on alone."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream is closed, or a letter cannot be written
            if isinstance(error, OutputError):
                discard_output()
            if self._is_gone:
                return
            self._is_gone, self._terminal.quiet, self._bar = True, True, None
            said = f"the terminal can no longer be written to ({error}); the run goes on, and this file with it"
            self._file.print(Text(said), soft_wrap=True)

    def panel(self, title: str, lines: list[str], style: str = "cyan") -> None:
        self.print(Panel(Text("\n".join(lines)), title=title, title_align="left", border_style=style))

    def warning(self, text: str) -> None:
        self.print(Text(f"warning: {text}", style="yellow"))

    def start_progress(self, done: int, total: int, unit: str) -> None:
        """Starts a tqdm bar with rate, time left and metrics on a terminal; elsewhere `advance` prints plain lines."""
        self._started, self._first, self._total, self._unit = time.monotonic(), done, total, unit
        if self.progress and sys.stderr.isatty():
            self._bar = tqdm(
                initial=done, total=total, unit=f" {unit}", dynamic_ncols=True, smoothing=0.05, bar_format=BAR
            )  # fmt: skip

    def advance(self, done: int, left_s: float | None = None) -> None:
        """After a round; `left_s` are the seconds of the rest, None while they are not known."""
        self._left = "?" if left_s is None else clock(left_s)
        if self._bar is not None:
            with self._while_there_is_a_terminal():
                self._bar.set_postfix_str(self._beside(), refresh=False)
                self._bar.update(done - self._bar.n)

    def _beside(self) -> str:
        return f"{self._left} left, {self._words}" if self._words else f"{self._left} left"

    def status(self, done: int, words: str) -> None:
        """Shows the newest metrics: beside the bar, or as a line with progress and remaining time."""
        rate = (done - self._first) / max(time.monotonic() - self._started, 1e-9)
        self._words = words
        line = (
            f"{self._unit} {done}/{self._total} ({done / max(self._total, 1):.0%}), {rate:.2f}/s, {self._left} left  {words}"
        )
        with self._while_there_is_a_terminal():
            if self._bar is not None:
                self._bar.set_postfix_str(self._beside())
            elif self.progress:
                self._terminal.print(Text(line), soft_wrap=True)
        self._file.print(Text(line), soft_wrap=True)
        self._stream.flush()

    def stop_progress(self) -> None:
        with self._while_there_is_a_terminal():
            if self._bar is not None:
                self._bar.close()
        self._bar = None

    def close(self) -> None:
        self.stop_progress()
        self._stream.close()


def clock(seconds: float) -> str:
    """Formats seconds as 1:02:03 or 4:05."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


