"""What a phase asks of its parts: demonstrations in a batch, schedules over its own rounds, updates of the warm start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqnlm.training.build_phases import build_phases
from dqnlm.training.phases import DemonstrationSampler, Phase, ReplaySampler
from dqnlm.types import Batch
from tests.helpers.batches import make_batch


class FakeBuffer:
    """Notes what it is told; its rows are numbered from 10."""

    device = batch_device = torch.device("cpu")

    def __init__(self) -> None:
        self.told: list[Any] = []

    def advance(self, progress: float) -> None:
        self.told.append(progress)

    def begin(self) -> None:
        self.told.append("begin")

    def sample(self, count: int) -> Batch:
        return make_batch([[0, 0]] * count, index_B=torch.arange(10, 10 + count))

    def deliver(self, batch: Batch) -> Batch:
        return batch


class FakeDemonstrations:
    """Rows of action 1, with reward 7 where rewards are asked for."""

    def batch(self, count: int, with_rewards: bool) -> Batch:
        return make_batch([[1, 1]] * count, 7.0 if with_rewards else 0.0, index_B=torch.full((count,), -1))


BUFFER: Any = FakeBuffer()
DEMONSTRATIONS: Any = FakeDemonstrations()


@pytest.mark.parametrize(("fraction", "rows"), [(0.25, 2), (0.99, 7), (0.5, 4)])
def test_demonstrations_in_a_batch(fraction: float, rows: int) -> None:
    """Bug: more rows than asked for, demonstrations without their rewards, or the wrong rows taken for the agent's own."""
    batch = ReplaySampler(BUFFER, DEMONSTRATIONS, fraction, 8, False, 0, 1).sample()
    assert batch.action_BT[:, 0].tolist() == [0] * (8 - rows) + [1] * rows
    assert batch.reward_BT[:, 0].tolist() == [0.0] * (8 - rows) + [7.0] * rows
    assert batch.own_B is not None and batch.own_B.tolist() == [True] * (8 - rows) + [False] * rows
    alone = ReplaySampler(BUFFER, None, 0.25, 8, False, 0, 1).sample()
    assert len(alone.length_B) == 8 and alone.own_B is None


def test_cloning_reads_no_rewards() -> None:
    """Bug: the warm start learns from rewards, so that it is no cloning."""
    batch = DemonstrationSampler(DEMONSTRATIONS, 5, False).sample()
    assert batch.action_BT.tolist() == [[1, 1]] * 5 and float(batch.reward_BT.abs().sum()) == 0.0


def test_schedules_span_their_own_rounds() -> None:
    """Bug: rounds of the phases before count, so that a schedule begins in its middle, or ends beyond its end."""
    buffer: Any = FakeBuffer()
    sampler = ReplaySampler(buffer, None, 0.0, 8, False, first_round=4, rounds=8)
    for done in (4, 6, 11):
        sampler.advance(done)
    assert buffer.told == [0.0, 0.25, 0.875]
    nothing: Any = None
    phase = Phase("online", 4, 8, nothing, nothing, lambda: 1)
    assert (phase.end, phase.progress(4), phase.progress(6)) == (12, 0.0, 0.25)


def components(cloned: int) -> Any:
    """Parts of a run that clones with 5 updates in all, of which `cloned` are made, and then plays."""
    cloner = SimpleNamespace(updates=cloned)
    played: list[float] = []
    return SimpleNamespace(
        task=SimpleNamespace(spec=SimpleNamespace(variable_length=False)), buffer=FakeBuffer(), demonstrations=None,
        learner=SimpleNamespace(sync_target_and_reference=lambda: None), logged_rows=0, env_steps=100, played=played,
        pretraining=SimpleNamespace(learner=cloner, updates=5, demonstrations=DEMONSTRATIONS, batch_size=4),
        acting=SimpleNamespace(play=played.append), count_env_steps=lambda: None,
    )  # fmt: skip


@pytest.mark.parametrize(("cloned", "updates"), [(0, 2), (2, 2), (4, 1)])
def test_the_warm_start_has_as_many_updates_as_it_is_told(cloned: int, updates: int) -> None:
    """Bug: whole rounds, so that 5 updates by 2 are 6; or the rounds that it takes are 2."""
    warm, offline, online = build_phases(components(cloned), 4, 3, 8, 0.0, 2, learning_starts=0)
    assert (warm.rounds, warm.num_updates()) == (3, updates)
    assert (offline.first_round, offline.end, online.first_round, online.end) == (3, 6, 6, 10)


def test_a_round_tells_the_buffer_that_its_rollout_is_over() -> None:
    """Bug: rows of earlier rollouts stay in the epochs of an on-policy buffer."""
    parts = components(5)
    *_, online = build_phases(parts, 4, 0, 8, 0.0, 2, learning_starts=101)
    assert online.rollout is not None
    online.rollout(0.5)
    assert parts.played == [0.5] and parts.buffer.told == ["begin"]
    assert online.num_updates() == 0, "100 steps are fewer than 101"
    parts.env_steps = 101
    assert online.num_updates() == 2
