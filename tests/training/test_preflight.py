"""What would fail at a run's end fails before its first update; an evaluation that fails later loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.runs.checkpoint import step_folders
from dqnlm.training import trainer as trainers
from dqnlm.utils import user_code
from tests.system.test_logged import LEARNING, run, settings, write_log

GOOD = "def score(prompts, completions, references):\n    return [float(len(c)) for c in completions]\n"
BAD = "def score(prompts, completions, references):\n    return ['good' for c in completions]\n"


def judged(folder: Path, body: str, *more: str) -> dict[str, Any]:
    log, file = write_log(folder / "log.jsonl", 40), folder / "judge.py"
    file.write_text(body)
    user_code._run.cache_clear()
    words = ["reward=function", f"reward.path={file}:score", f"+allow_targets=[{file}]"]
    return settings(log, *LEARNING, "trainer.offline_rounds=4", "evaluation.every=4", *words, *more)


def test_a_judge_that_fails_ends_the_run_before_its_first_update(tmp_path: Path) -> None:
    """Bug: after all updates the first evaluation ends the run. Nothing but the settings is left behind."""
    with pytest.raises(UserError, match=r"(?s)'good' for completion 1 where a number is meant.*before the first update"):
        run(tmp_path / "run", judged(tmp_path, BAD))
    assert not step_folders(tmp_path / "run" / "checkpoints")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()
    assert not list((tmp_path / "run").glob(".preflight*"))


def test_an_evaluation_that_fails_is_owed_and_loses_nothing(tmp_path: Path) -> None:
    """Bug: the updates since the last checkpoint are lost with the evaluation, or the resumed run never evaluates."""
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="'good' for completion 1") as caught:
        run(folder, judged(tmp_path, BAD, "trainer.preflight=false"))
    assert "before the first update" not in str(caught.value)
    assert step_folders(folder / "checkpoints")[-1].name == "step-00000004"
    (tmp_path / "judge.py").write_text(GOOD)
    user_code._run.cache_clear()
    summary = launch.resume(folder, [f"+allow_targets=[{tmp_path / 'judge.py'}]"])
    assert summary["status"] == "finished" and summary["last"]["eval/return"] >= 0
    whole = run(tmp_path / "whole", judged(tmp_path, GOOD))
    assert summary["last"]["eval/return"] == whole["last"]["eval/return"]


def test_a_setting_decides_and_a_resume_does_not_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a setting that nothing reads, or a resumed run that begins anew."""
    calls = []
    monkeypatch.setattr(trainers, "preflight", lambda components, best, *more: calls.append(best))
    run(tmp_path / "off", judged(tmp_path, GOOD, "trainer.preflight=false"))
    assert not calls
    run(tmp_path / "on", judged(tmp_path, GOOD))
    assert len(calls) == 1
    launch.resume(tmp_path / "on", ["trainer.offline_rounds=6", f"+allow_targets=[{tmp_path / 'judge.py'}]"])
    assert len(calls) == 1


def test_a_reward_of_an_online_run_is_tried_too(tmp_path: Path) -> None:
    """Bug: rewards that fail in a later rollout only where they are tried on logged data alone."""
    from tests.helpers import runs as tools

    file = tmp_path / "judge.py"
    file.write_text(BAD)
    user_code._run.cache_clear()
    words = tools.tiny(
        tools.write_text(tmp_path / "text.txt"), "env.transition=free", "+env.prompt_length=4", "reward=function",
        f"reward.path={file}:score", f"+allow_targets=[{file}]",
    )  # fmt: skip
    words = [word.replace("+env.", "env.") for word in words]
    from dqnlm.config import composition, validation

    composed, choices = composition.compose(words)
    with pytest.raises(UserError, match=r"(?s)'good'.*before the first update"):
        run(tmp_path / "run", validation.validate(composed, choices, words))
