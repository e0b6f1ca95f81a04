"""Figures of greedy episodes: the first of each environment, over all of its rows, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.evaluation import episodes
from dqnlm.evaluation.episodes import EpisodeCollector, EpisodeEvaluator, measure_episodes
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Rows


def rows_of(*rows: tuple[list[int], list[float], list[int]]) -> Rows:
    """One row of each environment: observations (one more than), rewards and flags; all of three steps."""
    columns: list[Any] = [torch.tensor([row[k] for row in rows]) for k in range(3)]
    length_B = torch.tensor([sum(flag > 0 or k == 0 for k, flag in enumerate(row[2])) for row in rows])
    action_BT = torch.zeros(len(rows), 3, dtype=torch.int64)
    return Rows(columns[0], action_BT, columns[1].float(), columns[2].to(torch.uint8), length_B)


END, CUT = DECISION | TERMINATED, DECISION | TRUNCATED


def collected() -> EpisodeCollector:
    """Gamma 1/2. Environment 0: a prompt step, then rewards 4 and 8; its next row 16 and the end; then another episode.

    Environment 1: one row, the end at its third step; its prompt is shorter, so that its first decision is at time 0.
    """
    collector = EpisodeCollector(0.5, lambda observation_BS: None)
    first = rows_of(([1, 2, 3, 4], [0, 4, 8], [0, DECISION, CUT]), ([5, 6, 7, 8], [1, 2, 4], [DECISION, DECISION, END]))
    first.length_B = torch.tensor([3, 3])
    both = torch.tensor([True, True])
    collector.add(first, both)
    collector.finished(torch.tensor([12.0, 7.0]), torch.tensor([False, True]))
    assert not collector.done()
    second = rows_of(([4, 9, 0, 0], [16, 0, 0], [END, 0, 0]), ([1, 1, 1, 1], [99, 99, 99], [DECISION, DECISION, END]))
    second.length_B = torch.tensor([1, 3])
    collector.add(second, both)
    collector.finished(torch.tensor([28.0, 297.0]), torch.tensor([True, True]))
    collector.add(first, both)
    collector.finished(torch.tensor([500.0, 500.0]), both)
    return collector


def test_returns_of_the_first_episode_over_its_rows() -> None:
    """Bug: second episodes counted, or rows after the first undiscounted.

    Discounted: 0 (prompt, discount 1) + 4 + 8/2 + 16/4 = 12 and 1 + 2/2 + 4/4 = 3.
    """
    collector = collected()
    assert collector.done() and collector.returns().tolist() == [28.0, 7.0]
    assert collector.discounted().tolist() == [12.0, 3.0]
    assert collector.steps().tolist() == [4, 3]
    assert [len(rows.length_B) for rows in collector.rows] == [2, 0, 0]


def test_what_q_promises_at_the_first_decision() -> None:
    """Bug: Q at time 0, before the prompt is read. Q here is 10 times the observation: 20 at environment 0, 50 at 1; mean 35."""

    def network(observation_BS: Tensor) -> dict[str, Tensor]:
        return {"q": torch.stack([10.0 * observation_BS, 0.0 * observation_BS], -1)}

    policy: Any = SimpleNamespace(head=SimpleNamespace(value=lambda raw: raw), network=network)
    figures = measure_episodes(collected(), policy, q_is_return=True)
    assert figures["eval/q_start"] == 35.0 and figures["eval/overestimation"] == 35.0 - 7.5
    assert figures["eval/return"] == 17.5 and figures["eval/return_least"] == 7.0 and figures["eval/length"] == 3.5
    assert figures["eval/return_error"] == pytest.approx(10.5)
    assert "eval/q_start" not in measure_episodes(collected(), policy, q_is_return=False)
    collector = collected()
    collector.legal = lambda observation_BS: torch.tensor([False, True])  # the action of Q 0 alone may be chosen
    assert measure_episodes(collector, policy, q_is_return=True)["eval/q_start"] == 0.0


def test_other_strengths_of_a_reweighted_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: each beta is the run's own, or the policy keeps the last one, and acts by it from then on."""
    policy: Any = SimpleNamespace(beta=2.0)

    def played(env: Any, policy: Any, gamma: float) -> Any:
        if policy.beta > 100:
            raise RuntimeError("in the middle of an evaluation")
        return SimpleNamespace(returns=lambda: torch.tensor([policy.beta, policy.beta + 2]))

    monkeypatch.setattr(episodes, "play_greedily", played)
    env: Any = SimpleNamespace(references=dict)
    evaluator = EpisodeEvaluator(lambda: env, 1.0, [0.0, 5.0], 1, False)
    assert evaluator._betas(policy) == {"eval/return_beta_0": 1.0, "eval/return_beta_5": 6.0} and policy.beta == 2.0
    evaluator.betas = [7.0, 999.0]
    with pytest.raises(RuntimeError, match="in the middle"):
        evaluator._betas(policy)
    assert policy.beta == 2.0
