"""Old names in a user's own experiment file are answered with the new ones, as those on the command line are."""

from __future__ import annotations

from pathlib import Path

import pytest

from dqnlm import cli


@pytest.mark.parametrize(
    ("lines", "meant"),
    [
        ("trainer: {save_every: 5}", "trainer.save_every: no such setting"),
        ("learner: {gamma: 0.9}", "it is called gamma now"),
        ("trainer: {save_every: 5}", "it is called checkpoint.every now"),
        ("env: {copies: 2}", "it is called env.guesses_per_position now"),
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
