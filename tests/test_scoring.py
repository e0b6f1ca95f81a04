"""Held-out text is scored whole: every position once, in order."""

from __future__ import annotations

import pytest
import torch

from dqnlm.composition import compose
from dqnlm.console import episode_table
from dqnlm.evaluators import promises_returns
from dqnlm.text_positions import windows


@pytest.mark.parametrize("lookback", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("length", [1, 4, 5, 8, 23, 24])
def test_every_position_is_scored_once_after_what_stands_before_it(length: int, lookback: int) -> None:
    """Guards against dropped ends, positions scored twice, and windows that begin without their lookback."""
    inputs, scored = torch.arange(length), []
    for block_BS, first in windows(inputs, 4, lookback):
        for row in block_BS:
            assert (row[1:] == row[:-1] + 1).all()
            assert first == min(lookback, int(row[first]) if first else 0)
            scored += row[first:].tolist()
    assert scored == list(range(length))


@pytest.mark.parametrize(
    ("overrides", "promised"),
    [
        (["+experiment=random_walks"], True),
        (["+experiment=random_walks", "data.reward_scaling=standardise"], False),
        (["+experiment=random_walks", "algorithm=behaviour_cloning", "exploration=greedy"], False),
        (["+experiment=translation", "objective.trajectory.baseline=siblings"], False),
        (["+experiment=translation", "objective.trajectory.baseline=value"], True),
    ],
)
def test_what_q_promises_is_compared_with_returns_in_the_same_units_alone(overrides: list[str], promised: bool) -> None:
    """Guards a row "Q promised too much by" of logits, of Q in deviations, or of Q without a level."""
    config, _ = compose(overrides)
    assert promises_returns(config) == promised


@pytest.mark.parametrize("promised", [True, False])
def test_the_table_of_episodes_has_a_column_for_what_q_promised_where_that_is_known(promised: bool) -> None:
    figures = {"eval/return": 1.0, "eval/return_error": 0.5, "eval/return_least": -2.0, "eval/length": 3.0}
    table = episode_table(figures | ({"eval/overestimation": 7.25} if promised else {}), {"optimum": 4.0}, 1, "done")
    row = [next(iter(column.cells)) for column in table.columns]
    assert row == ["greedy", "1.000", "0.500", "-2.000", "3.000", *(["7.250"] if promised else [])]
