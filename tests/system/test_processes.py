"""Child processes that tests start."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.paths import ROOT

TESTS = ROOT / "tests"
SLEEPS = "import time; print('up', flush=True); time.sleep(600)"


def test_no_child_outlives_a_test_that_fails() -> None:
    """Bug: a process that does not answer Ctrl-C, or a child of its own, goes on after `communicate` has given up."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"
    with pytest.raises(subprocess.TimeoutExpired), processes.started([sys.executable, "-c", code]) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        process.communicate(timeout=0.01)
    assert process.returncode == -signal.SIGKILL
    assert not running_in_group(process.pid)


def running_in_group(group: int) -> bool:
    """Whether a process of the group is left, other than one that has ended and waits to be collected by init."""
    shown = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in shown.splitlines())
    return any(int(pgid) == group and not state.startswith("Z") for pgid, state in rows)


def test_tests_start_processes_in_one_place() -> None:
    """Bug: a test starts a process by itself and leaves it running where the test fails."""
    found = {
        path.name for path in TESTS.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "Popen"
    }  # fmt: skip
    assert found == {"processes.py", "kill_runs.py", "browser.py"}


def test_children_answer_ctrl_c_where_the_tests_were_started_in_the_background(tmp_path: Path) -> None:
    """Bug: started with `scripts/test &` by a script, the tests' children ignore SIGINT, and tests of Ctrl-C fail."""
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_it.py").write_text(
        "import signal, subprocess, sys\n"
        "def test_it():\n"
        "    code = 'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'\n"
        "    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "    assert done.stdout == 'True\\n'\n"
    )
    command = 'trap "" INT; exec "$0" -m pytest -q -p no:cacheprovider test_it.py'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
