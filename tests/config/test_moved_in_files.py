"""Old names in a user's own experiment file are answered with the new ones, as those on the command line are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dqnlm import cli
from dqnlm.config import composition
from dqnlm.config.moved import renewed_config


@pytest.mark.parametrize(
    ("lines", "meant"),
    [
        ("trainer: {save_every: 5}", "trainer.save_every: no such setting"),
        ("learner: {gamma: 0.9}", "it is called gamma now"),
        ("trainer: {save_every: 5}", "it is called checkpoint.every now"),
        ("env: {copies: 2}", "it is called env.guesses_per_position now"),
        ("defaults: [override /reward: classifier]\nreward: {batch_rows: 2}", "it is called reward.batch_size now"),
        (
            "defaults: [override /reward: mixture]\n"
            "reward: {parts: {a: {_target_: dqnlm.rewards.classifier.Classifier, weight: 1.0, batch_rows: 2}}}",
            "it is called reward.parts.a.batch_size now",
        ),
    ],
)
def test_settings(lines: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: advice to drop the setting, which would silently train with another value."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n# mine: a test\n{lines}\n")
    assert cli.main(["train", "--config-dir", str(tmp_path), "+experiment=mine", f"output_dir={tmp_path}/outputs"]) == 2
    said = capsys.readouterr().err
    assert meant in said and "~" not in said, said


def test_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a renamed value refused without its new name."""
    assert cli.main(["train", "objective=trajectory", "objective.trajectory.baseline=siblings"]) == 2
    assert "objective.trajectory.baseline=group" in capsys.readouterr().err


@pytest.mark.parametrize("odd", [7, "x", [1], {}, None, [[]], {"a": []}], ids=repr)
def test_values_of_another_kind_are_left_to_the_validation(odd: object) -> None:
    """Bug: a traceback from a saved configuration in which one value, at any place, is of another kind (a list as `_target_`)."""
    whole, _ = composition.compose([])
    old = whole | {"checkpoint": {"every": 5}, "trainer": {"init_from": 1, "warm_start_lr": 1}}
    for config in (whole, old):
        for group, node in config.items():
            assert renewed_config(config | {group: odd})
            for key in node if isinstance(node, dict) else ():
                assert renewed_config(config | {group: node | {key: odd}})


def test_a_renamed_setting_of_a_part_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: only the top of the configuration is renewed, or a class of the user's own with such a setting is changed."""
    part = {"_target_": "dqnlm.rewards.classifier.Classifier", "batch_rows": 2}
    mine = {"_target_": "mine.Reward", "batch_rows": 2}
    renewed = renewed_config({"reward": {"parts": {"a": part, "b": mine}}})["reward"]["parts"]
    assert renewed == {"a": {"_target_": part["_target_"], "batch_size": 2}, "b": mine}
    assert cli.main(["train", "reward=classifier", "reward.batch_rows=2"]) == 2
    assert "it is called reward.batch_size now" in capsys.readouterr().err
