"""Held-out text is scored whole: every position once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dqnlm.builder import agent, launch
from dqnlm.builder.q_semantics import why_q_is_not_in_reward_units
from dqnlm.config.composition import compose
from dqnlm.evaluation.episodes import METRICS, PREDICTED
from dqnlm.evaluation.tables import episode_table
from dqnlm.evaluation.text_positions import windows
from dqnlm.heads.scalar import Scalar
from dqnlm.types import Bounds
from tests.helpers import runs as tools


@pytest.mark.parametrize("left_context", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("length", [1, 4, 5, 8, 23, 24])
def test_every_position_is_scored_once_after_what_stands_before_it(length: int, left_context: int) -> None:
    """Guards against dropped ends, positions scored twice, and windows that begin without their left_context."""
    inputs, scored = torch.arange(length), []
    for block_BS, first in windows(inputs, 4, left_context):
        for row in block_BS:
            assert (row[1:] == row[:-1] + 1).all()
            assert all(place >= min(left_context, token) for place, token in enumerate(row.tolist()) if place >= first)
            scored += row[first:].tolist()
    assert scored == list(range(length))


@pytest.mark.parametrize(
    ("overrides", "promised"),
    [
        (["+experiment=random_walks"], True),
        (["+experiment=random_walks", "data.reward_scaling=standardise"], False),
        (["+experiment=random_walks", "algorithm=behaviour_cloning", "exploration=greedy"], False),
        (["+experiment=translation", "objective.trajectory.baseline=group"], False),
        (["+experiment=translation", "objective.trajectory.baseline=value"], False),
        (["+experiment=random_walks", "learner.kl_weight=0.1"], False),
        (["+experiment=random_walks", "algorithm=soft_q"], True),
        (["+experiment=random_walks", "algorithm=tbrm"], True),
    ],
)
def test_what_q_promises_is_compared_with_returns_in_the_same_units_alone(overrides: list[str], promised: bool) -> None:
    """Guards a promise of logits, of Q in deviations, of Q without a level, or of Q that holds a reference policy."""
    config, _ = compose(overrides)
    objectives = agent.objectives_without_env(config, Scalar(Bounds(0, 1), False, loss="huber", initial_return=None))
    assert (why_q_is_not_in_reward_units(config, objectives) is None) == promised


@pytest.mark.parametrize("promised", [True, False])
def test_the_table_of_episodes_has_a_column_for_what_q_promised_where_that_is_known(promised: bool) -> None:
    figures = {"eval/return": 1.0, "eval/return_error": 0.5, "eval/return_least": -2.0, "eval/length": 3.0}
    predicted = {"eval/q_start": 8.25, "eval/overestimation": 7.25} if promised else {}
    metrics = (*METRICS, *(PREDICTED if promised else ()))
    table = episode_table(figures | predicted, metrics, {"optimum": 4.0}, 1, "done")
    row = [next(iter(column.cells)) for column in table.columns]
    assert row == ["greedy", "1.000", "0.500", "-2.000", "3.000", *(["8.250", "7.250"] if promised else [])]


@pytest.mark.parametrize("objective", ["td", "cross_entropy"])
def test_a_run_says_what_q_promised_where_q_is_a_return(objective: str, tmp_path: Path) -> None:
    """Guards the figure computed after all, by either of two evaluators: of episodes, and of a text."""
    cloning = ["algorithm=behaviour_cloning"] if objective == "cross_entropy" else []
    walks = ["+experiment=random_walks", "trainer.offline_rounds=2", "evaluation.every=2", "trainer.log_every=2"]
    checked, choices = tools.settings([*walks, *cloning, "logger=none", "progress=false"])
    (tmp_path / "walks").mkdir()
    of_walks = launch.start(checked, tmp_path / "walks", choices=choices, command_line=["dqnlm", "train"])
    of_text = tools.start(tmp_path / "text", tools.write_text(tmp_path / "text.txt"), *cloning)
    for last in (of_walks["last"], of_text["last"]):
        assert ("eval/overestimation" in last) == ("eval/q_start" in last) == (objective == "td")
