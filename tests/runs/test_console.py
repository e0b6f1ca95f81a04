"""Printing never ends a run: letters that a terminal lacks, and a terminal that has gone."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dqnlm.runs.console import RunConsole
from dqnlm.utils.terminal import replace_unknown_letters

LETTERS = "yes \U0001f469\u200d\U0001f9b0 \u05e9\u05dc\u05d5\u05dd \u00e9"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp1252", "koi8-r"])
def test_letters_that_the_terminal_lacks_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Bug: one emoji in a sample ends the run, with a traceback."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    console = RunConsole(tmp_path / "train.log", progress=False)
    console.panel("sample", [LETTERS])
    console.print(LETTERS)
    console.close()
    sys.stdout.flush()
    assert b"yes ?" in sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    assert (tmp_path / "train.log").read_text(encoding="utf-8").count(LETTERS) == 2


@pytest.mark.parametrize("progress", [False, True])
def test_a_closed_pipe_is_said_once_in_the_log(tmp_path: Path, progress: bool) -> None:
    """Bug: `dqnlm train | head`, or a terminal that is closed, ends the run."""
    program = (
        "import sys; from pathlib import Path; from dqnlm.runs.console import RunConsole\n"
        f"console = RunConsole(Path({str(tmp_path / 'train.log')!r}), {progress})\n"
        "console.start_progress(0, 9, 'rounds')\n"
        "for i in range(9): console.print('word ' * 5000); console.advance(i); console.status(i, 'words')\n"
        "console.close()\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writing)
    assert done.returncode == 0 and not done.stderr
    log = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert log.count("the terminal can no longer be written to") == 1 and log.count("rounds 8/9") == 1


def test_a_full_disk_behind_the_terminal_ends_no_run(tmp_path: Path) -> None:
    """Bug: `dqnlm train > FILE` on a full disk ends the run, or gives it another code than 0."""
    program = (
        "import sys; from pathlib import Path; from dqnlm.runs.console import RunConsole; from dqnlm.utils import terminal\n"
        "terminal.prepare()\n"
        f"console = RunConsole(Path({str(tmp_path / 'train.log')!r}), False)\n"
        "for i in range(9): console.print('word ' * 5000)\n"
        "console.close(); terminal.flush_output()\n"
    )
    (tmp_path / "out").write_text("")
    with (tmp_path / "out").open() as no_output:  # opened for reading alone
        done = subprocess.run([sys.executable, "-c", program], stdout=no_output, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "train.log").read_text(encoding="utf-8").count("can no longer be written to") == 1


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_letters_that_the_locale_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch, errors: str) -> None:
    """Bug: under LC_ALL=C Python's stdout is `surrogateescape`, and one letter of a sample ends `dqnlm rate`."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", errors=errors))
    replace_unknown_letters()
    print(LETTERS, flush=True)
    assert written.getvalue() == LETTERS.encode("ascii", "replace") + b"\n"
