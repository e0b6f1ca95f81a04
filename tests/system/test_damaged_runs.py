"""A sample of scripts/damaged_runs.py: whatever is done to a file of a run, a command does its work or ends with one message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import damaged_runs

MESSAGE = "error: "


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("runs")
    yield next(iter(damaged_runs.small_runs(folder)))


@pytest.mark.parametrize("damage", damaged_runs.DAMAGES)
@pytest.mark.parametrize("file", ["manifest.json", "summary.json", "sha256.json"])
def test_no_command_ends_in_a_traceback(run: Path, tmp_path: Path, file: str, damage: str) -> None:
    """Bug: a traceback from resume and eval, where all that is needed is there."""
    path = next(path for path in damaged_runs.files_of(run) if path.name == file)
    for case, code, said in damaged_runs.sweep(run, tmp_path / "work", [path], [damage], ["eval", "resume", "runs"]):
        assert code in (0, 1, 2) and "Traceback" not in said, f"{case}: {said}"
        assert code == 0 or MESSAGE in said, f"{case}: {said}"


@pytest.mark.parametrize("damage", ["deleted", "cut", "a folder", "another object"])
def test_a_run_goes_on_without_its_manifest(run: Path, tmp_path: Path, damage: str) -> None:
    """Bug: a run is lost because of a file from which nothing but notes is read. What cannot be compared is said."""
    cases = damaged_runs.sweep(run, tmp_path / "work", [Path("manifest.json")], [damage], ["resume", "eval"])
    found = {case.rpartition(": ")[2]: (code, said) for case, code, said in cases}
    assert found["resume"][0] == 0, found["resume"][1]
    assert found["eval"][0] == 0, found["eval"][1]
    assert damage == "another object" or "manifest.json is missing or damaged" in found["resume"][1]
