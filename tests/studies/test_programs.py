"""The programs of scripts/ and studies/: who may be started, by which Python, and what they say of themselves."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dqnlm import cli
from dqnlm.commands.compare_sweeps import Comparison
from dqnlm.reporting.comparison import Result
from tests.helpers.paths import ROOT, SCRIPTS
from tests.helpers.slow import mostly_slow

STUDIES, KILL_RUNS = ROOT / "studies", ROOT / "tests" / "system" / "kill_runs.py"
PROGRAMS = [*(SCRIPTS.iterdir()), *(path for path in STUDIES.rglob("*") if path.suffix in ("", ".py")), KILL_RUNS]
PYTHON = sorted(path for path in PROGRAMS if path.suffix == ".py" and "__main__" in path.read_text(encoding="utf-8"))
SHEBANG = """#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'"""


def test_what_can_be_started_has_the_run_bit_and_the_checkout_s_python() -> None:
    """Bug: a script with `#!` cannot be executed; its `python` is whichever comes first in PATH, which lacks dqnlm."""
    for path in (path for path in PROGRAMS if path.is_file()):
        first = path.read_text(encoding="utf-8").split("\n")[0]
        assert os.access(path, os.X_OK) == first.startswith("#!"), path
        if path.suffix == ".py":
            wanted = SHEBANG if path.parent in (STUDIES, SCRIPTS) else SHEBANG.replace("../scripts", "../../scripts")
            assert (first == wanted) == (path in PYTHON), path
    assert PYTHON


def test_the_first_line_finds_the_environment_of_its_checkout(tmp_path: Path) -> None:
    """Bug: started from another folder, or in a checkout whose path has a space, the script misses its Python."""
    for name in ("scripts/python", "studies/it.py"):
        (tmp_path / "a checkout" / name).parent.mkdir(parents=True)
    python, program = tmp_path / "a checkout" / "scripts" / "python", tmp_path / "a checkout" / "studies" / "it.py"
    python.write_text(f'#!/bin/sh\nMARK=ours exec "{sys.executable}" "$@"\n')
    program.write_text(f"{SHEBANG}\nimport os, sys\nprint(os.environ.get('MARK'), sys.argv[1:])\n")
    python.chmod(0o755)
    program.chmod(0o755)
    done = subprocess.run([program, "a b", "$HOME", "--help"], cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout == "ours ['a b', '$HOME', '--help']\n", done.stderr


def test_studies_start_runs_in_one_way() -> None:
    """Bug: a study with a command line of its own, which forgets the one thread, the log or what is there already."""
    started = [path for path in STUDIES.rglob("*.py") if '"train"' in path.read_text(encoding="utf-8")]
    assert started == [STUDIES / "runs.py"]


@pytest.mark.parametrize("name", ["random-walks", "walks-large", "maze"])
def test_reproduce_compares_what_there_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a figure's command names a preset or an experiment that is no more. All is composed, nothing trained."""
    for folder in ("studies", "scripts"):
        (tmp_path / folder).mkdir()
    shutil.copy(STUDIES / "reproduce", tmp_path / "studies" / "reproduce")
    program = tmp_path / "scripts" / "dqnlm"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    done = subprocess.run([tmp_path / "studies" / "reproduce", name], capture_output=True, text=True, check=True)
    command, *arguments = done.stdout.splitlines()
    results: list[Result] = []

    def run(comparison: Comparison, reuse: bool) -> list[Result]:
        results.extend(dataclasses.replace(job.blank(), value=1.0) for job in comparison.plan.jobs())
        return results

    monkeypatch.setattr(Comparison, "run", run)
    assert command == "compare" and cli.main([command, *arguments]) == 0
    assert len(results) == {"random-walks": 2 * 10 * 3, "walks-large": 4 * 3, "maze": 3 * 5}[name]


@pytest.mark.parametrize("path", mostly_slow(PYTHON, 3), ids=lambda path: path.stem)
def test_help(path: Path, tmp_path: Path) -> None:
    """Bug: --help is an error, or the script imports something that is not there."""
    command = [sys.executable, str(path), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr
