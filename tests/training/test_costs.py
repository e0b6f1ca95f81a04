"""How long a run takes: counted by hand, and the sum that stands in the header is that beside the bar."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.runs.settings import CheckpointSettings
from dqnlm.training import measuring
from dqnlm.training.costs import Costs, Mean, estimate_line
from tests.helpers import runs as tools


def costs(every: int = 4, saving: tuple[int | None, float | None] = (5, None)) -> Costs:
    """Three rounds of pretraining, then ten online."""
    evaluation = EvaluationSettings(
        every=every, episodes=1, samples=1, sample_tokens=1, sample_temperature=1.0, betas=[], best_metric=None, patience=None,
    )  # fmt: skip
    phases: Any = [
        SimpleNamespace(name="pretraining", first_round=0, rounds=3, end=3),
        SimpleNamespace(name="online", first_round=3, rounds=10, end=13),
    ]
    return Costs(phases, evaluation, CheckpointSettings(every=saving[0], minutes=saving[1], keep_last=1))


def test_the_sum_by_hand() -> None:
    """Bug: rounds of one phase at the price of another, the evaluation after the pretraining or at the end is left out."""
    found = costs()
    assert found.left(0) is None, "nothing is known of any phase"
    found.rounds["pretraining"].expected, found.rounds["online"].expected = 2.0, 10.0
    found.evaluating.expected, found.checkpoint.expected, found.once = 7.0, 0.5, 3.0
    left = found.left(0)
    assert left is not None and left.training == 3 * 2 + 10 * 10
    assert left.evaluations == 5 and left.evaluating == 5 * 7 + 3  # after rounds 3, 4, 8, 12, 13
    assert left.saving == 3 * 0.5  # after rounds 5, 10, 13
    found.evaluating.add(7.0)
    left = found.left(8)
    assert left is not None and (left.training, left.evaluations, left.evaluating, left.saving) == (50, 2, 14, 1.0)
    end = found.left(13)
    assert end is not None and end.seconds == 0


def test_saving_by_the_clock() -> None:
    """Bug: a run that is saved each five minutes alone is said to save once."""
    found = costs(saving=(None, 1.0))
    found.rounds["pretraining"].expected = found.rounds["online"].expected = 30.0
    found.checkpoint.expected = 2.0
    left = found.left(0)
    assert left is not None and left.saving == 2.0 * (6 + 1)  # 13 x 30 s are six minutes and a half


def test_what_was_measured_counts_the_less_the_more_is_done() -> None:
    """Bug: the first round, which is slow, rules the estimate; or the guess never goes."""
    mean = Mean(expected=10.0)
    assert mean.each(4) == 10.0
    mean.add(2.0)
    assert mean.each(4) == pytest.approx(0.75 * 10 + 0.25 * 2)
    for _ in range(3):
        mean.add(2.0)
    assert mean.each(4) == 2.0
    mean.lengthen(4.0)  # the wait for the device
    assert mean.each(4) == 3.0 and Mean().each() is None


def test_the_line_through_two_points() -> None:
    """Bug: a second measurement that is faster by chance gives a negative time."""
    assert measuring._on_line((1.0, 2.0), (2.0, 3.0), 10.0) == 11.0
    assert measuring._on_line((1.0, 3.0), (2.0, 2.0), 10.0) == 2.0


def test_a_run_says_what_it_will_take_and_what_is_left(tmp_path: Path) -> None:
    """Bug: the header promises a time that the progress knows nothing of; evaluations and saving are left out."""
    tools.start(tmp_path / "run", tools.write_text(tmp_path / "text.txt"))
    log = (tmp_path / "run/train.log").read_text()
    said = re.search(r"estimate: about [\d:]+ \(training [\d:]+, 2 evaluations [\d:]+, saving [\d:]+; measured in small", log)
    assert said and "the time is measured first, see below" in log
    assert log.count(" left  ") == 6 and "? left" not in log
    tools.start(tmp_path / "plain", tools.write_text(tmp_path / "text.txt"), "trainer.preflight=false")
    log = (tmp_path / "plain/train.log").read_text()
    assert "estimate:" not in log and "for updates and acting (from three passes)" in log and "? left" not in log


def test_an_evaluation_is_timed_on_two_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the whole held-out text, or always the same piece of it, is scored to find out how long it takes."""
    seen: list[int] = []
    from dqnlm.evaluation.text import TextEvaluator

    original = TextEvaluator.evaluate

    def noted(self: TextEvaluator, policy: Any) -> Any:
        seen.append(len(self.heldout_ids))
        return original(self, policy)

    monkeypatch.setattr(TextEvaluator, "evaluate", noted)
    tools.start(tmp_path / "run", tools.write_text(tmp_path / "text.txt", 40_000), "trainer.rollouts=1")
    assert seen == [36, 2000 // 16, 2000 // 4, 2000]


def test_where_nothing_is_known() -> None:
    assert "not known" in estimate_line(None, 1.0)


def test_a_timed_batch_reads_equal_texts_once_as_training_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: with several guesses a position the timed update reads every text as often, and takes a multiple of a real one."""
    seen: list[tuple[int, int]] = []
    original = measuring._update_seconds

    def noted(components: Any, phase: Any, batch: Any) -> float:
        seen.append((batch.copies, len(batch.length_B)))
        return original(components, phase, batch)

    monkeypatch.setattr(measuring, "_update_seconds", noted)
    tools.start(tmp_path / "run", tools.write_text(tmp_path / "text.txt"), "env.guesses_per_position=2", "trainer.rollouts=1")
    assert seen == [(2, 4)]
