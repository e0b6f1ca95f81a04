"""A sample of scripts/damaged_runs.py: whatever is done to a file of a run, a command does its work or ends with one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import apart, damaged_runs
from scripts.damaged_runs import Case
from tests.helpers.slow import mostly_slow

MESSAGE = "error: "


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damaged_runs.text_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damaged_runs.sweep_of_runs(tmp_path_factory.mktemp("sweeps"))


@pytest.mark.parametrize("damage", damaged_runs.DAMAGES)
@pytest.mark.parametrize("file", ["manifest.json", "summary.json", "sha256.json"])
def test_no_command_ends_in_a_traceback(run: Path, tmp_path: Path, file: str, damage: str) -> None:
    """Bug: a traceback from resume and eval, where all that is needed is there."""
    path = next(path for path in damaged_runs.files_of(run) if path.name == file)
    for command in ("eval", "resume", "runs"):
        ended, said = damaged_runs.tried(Case(run, path, damage, command), tmp_path / "work")
        assert ended in ("0", "1", "2"), f"{command}: {ended} {said}"
        assert ended == "0" or MESSAGE in said, f"{command}: {said}"


@pytest.mark.parametrize(
    "damage", ["cut", "cut between lines", "deeply nested", "a long number", "a date that is none", "aliases of aliases"]
)
@pytest.mark.parametrize("command", ["eval", "report"])
def test_a_damaged_configuration_is_one_message(run: Path, tmp_path: Path, damage: str, command: str) -> None:
    """Bug: brackets end the parser in C in a segmentation fault, and that in Python in a RecursionError.

    The first half of the lines is YAML too: a report of half of the settings is no report of the run.
    """
    ended, said = damaged_runs.tried(Case(run, Path("config.yaml"), damage, command), tmp_path / "work")
    assert ended == "2" and "config.yaml" in said, said


@pytest.mark.parametrize("damage", ["a link to itself", "a folder"])
def test_a_file_that_cannot_be_written_is_named(run: Path, tmp_path: Path, damage: str) -> None:
    """Bug: resume ends in an OSError where the log of the run is a link to itself."""
    ended, said = damaged_runs.tried(Case(run, Path("train.log"), damage, "resume"), tmp_path / "work")
    assert ended == "2" and "train.log" in said and "move it away" in said, said


@pytest.mark.parametrize("damage", ["deleted", "cut", "a folder", "another object"])
def test_a_run_goes_on_without_its_manifest(run: Path, tmp_path: Path, damage: str) -> None:
    """Bug: a run is lost because of a file from which nothing but notes is read. What cannot be compared is said."""
    cases = {name: Case(run, Path("manifest.json"), damage, name) for name in ("resume", "eval")}
    found = {name: damaged_runs.tried(case, tmp_path / "work") for name, case in cases.items()}
    assert found["resume"][0] == "0", found["resume"][1]
    assert found["eval"][0] == "0", found["eval"][1]
    assert damage == "another object" or "manifest.json is missing or damaged" in found["resume"][1]


@pytest.mark.parametrize("file", ["summary.json", ".hydra/overrides.yaml", ".hydra/outcome.json"])
@pytest.mark.parametrize("damage", mostly_slow(["cut", "a list", "another object", "code as YAML"], 4))
def test_a_sweep_with_a_damaged_job_is_reported(sweep: Path, tmp_path: Path, file: str, damage: str) -> None:
    """Bug: one damaged file of one job ends the report in a traceback."""
    ended, said = damaged_runs.tried(Case(sweep, Path("0-seed=0", file), damage, "report"), tmp_path / "work")
    assert ended == "0", said


@pytest.mark.parametrize("damage", ["a date that is none", "cut between lines"])
def test_a_sweep_says_in_one_message_which_job_is_damaged(sweep: Path, tmp_path: Path, damage: str) -> None:
    """Bug: the job's error and the sweep's are two messages, and the first does not say of which job it is."""
    ended, said = damaged_runs.tried(Case(sweep, Path("0-seed=0", "config.yaml"), damage, "again"), tmp_path / "work")
    assert ended == "2" and "job 0: error: " in said and "config.yaml" in said, said
    assert sum(line.startswith(MESSAGE) for line in said.splitlines()) == 1, said


def test_a_sweep_with_a_damaged_job_goes_on(sweep: Path, tmp_path: Path) -> None:
    """Bug: the sweep that is started again ends in a traceback; its job has a checkpoint, from which it goes on."""
    case = Case(sweep, Path("0-seed=0", "summary.json"), "cut", "again")
    ended, said = damaged_runs.tried(case, tmp_path / "work")
    assert ended == "0", said


@pytest.mark.parametrize("file", ["multirun.yaml", "0-seed=0/.hydra/config.yaml", "0-seed=0/.hydra/hydra.yaml"])
@pytest.mark.parametrize("damage", ["a folder", "a link to itself"])
def test_what_lies_where_hydra_writes(sweep: Path, tmp_path: Path, file: str, damage: str) -> None:
    """Bug: Hydra's own traceback where its records of a sweep cannot be written."""
    ended, said = damaged_runs.tried(Case(sweep, Path(file), damage, "again"), tmp_path / "work")
    assert ended == "2" and "where Hydra writes a file" in said, said


def test_the_script_tells_crashes_from_messages() -> None:
    """Bug: the script counts a crash of the interpreter, or a message that is none, as right."""
    assert apart.judged("2", "error: no\n") == "2" and apart.judged("2", "no\n") == apart.UNTOLD
    assert apart.judged("2", "error: a\nerror: b\n") == apart.UNTOLD
    assert apart.judged("0", "Traceback (most recent call last):\n") == apart.TRACEBACK
    assert apart.judged("signal 11", "") == "signal 11"
