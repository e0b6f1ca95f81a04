"""kill -9 at any moment of a real process, also while it writes a checkpoint. The script with 20 kills is tested with 3."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.builder import launch
from dqnlm.config import composition
from tests.helpers import runs as tools
from tests.system import kill_runs


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return kill_runs


def finish_here(run: Path, settings: list[str]) -> None:
    """Starts or resumes in this process, which saves the time of two launches."""
    if run.exists():
        launch.resume(run, [])
    else:
        assert cli.main(["train", *settings, f"hydra.run.dir={run}"]) == 0


@pytest.mark.slow
def test_killed_three_times_equals_never_killed(script: ModuleType, tmp_path: Path, capsys: Any) -> None:
    """Bug: a kill loses or repeats something, or half a checkpoint is resumed from."""
    kills, different = script.compare(tmp_path, 3, 90, seed=1, finish=finish_here)
    assert different == [] and all(kill.figures_equal for kill in kills), capsys.readouterr().out
    assert [kill.kind for kill in kills].count(script.WRITING) == 1
    assert all(kill.where != "after its end" for kill in kills)


def test_the_script_sees_a_difference(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Bug: the comparison passes whatever happens, and the exit code is always 0."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "a", text, "trainer.rollouts=4")
    tools.start(tmp_path / "b", text, "trainer.rollouts=4")
    assert script.differences(tmp_path / "a", tmp_path / "b") == []
    shutil.rmtree(tmp_path / "b")
    tools.start(tmp_path / "b", text, "trainer.rollouts=4", "optimizer.lr=1.001e-3")
    found = script.differences(tmp_path / "a", tmp_path / "b")
    assert "metrics.jsonl" in found and any(name.startswith("/policy/network") for name in found)
    kill = script.Kill(script.TRAINING, 1, 0.0, resumes_from=4)
    script.check(tmp_path / "b", tmp_path / "a", kill)
    assert not kill.figures_equal
    capsys.readouterr()
    for result, code, word in (([kill], 1, "DIFFERENT"), ([], 0, "identical")):
        monkeypatch.setattr(script, "compare", lambda *arguments, result=result: (result, []))
        assert script.main(["--kills", "1"]) == code and capsys.readouterr().out.startswith(word)


def test_moments_are_drawn_from_the_seed_and_cover_checkpoint_writes(script: ModuleType) -> None:
    """Bug: all kills fall into the same phase, or cannot be repeated."""
    moments = script.plan(20, 1000, seed=0)
    assert moments == script.plan(20, 1000, seed=0) != script.plan(20, 1000, seed=1)
    kinds = [kill.kind for kill in moments]
    assert (kinds.count(script.WRITING), kinds.count(script.STARTING), len(kinds)) == (6, 2, 20)
    targets = [kill.target for kill in moments]
    assert targets == sorted(targets) and targets[0] >= 1 and targets[-1] < 950


@pytest.mark.parametrize("kind", ["text", *kill_runs.KINDS])
def test_every_kind_of_run_can_be_killed(kind: str, tmp_path: Path) -> None:
    """Bug: a kind whose settings are refused, or whose length is not the one asked for, found after an hour of the others."""
    typed = kill_runs.settings_of(kind, tmp_path, 77)
    composed, _ = composition.compose(typed)
    assert 77 in (composed["trainer"]["rollouts"], composed["trainer"]["offline_rounds"])
    assert composed["checkpoint"]["every"] == 20 and composed["evaluation"]["every"] == 100
    assert (composed["buffer"]["_target_"].endswith("PrioritizedBuffer")) == (kind == "prioritised")
