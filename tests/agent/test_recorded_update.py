"""Recorded updates: on the CPU with a recording that is only simulated, on a CUDA device with a real one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.agent.recorded_update import PLAIN, RecordedUpdate
from dqnlm.builder.agent import updates_repeat
from dqnlm.errors import UserError
from dqnlm.types import Batch, TaskSpec
from dqnlm.utils import cuda_graphs
from tests.helpers.batches import random_batch

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


class Simulated:
    """Repeats the work, on the memory it was recorded with, and writes the result into the tensor of the first time."""

    def __init__(self, work: Callable[[], Tensor]) -> None:
        self.work, self.result, self.replays = work, torch.empty(0), 0

    def replay(self) -> None:
        self.result.copy_(self.work())
        self.replays += 1


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[Simulated]:
    """The recordings that were made."""
    made: list[Simulated] = []

    def record(work: Callable[[], Tensor]) -> tuple[Any, Tensor]:
        made.append(Simulated(work))
        made[-1].result = torch.full((2, 3), float("nan"))
        return made[-1], made[-1].result

    monkeypatch.setattr(cuda_graphs, "record", record)
    monkeypatch.setattr(cuda_graphs, "aside", contextlib.nullcontext)

    @contextlib.contextmanager
    def no_waits(describe: Callable[[], str]) -> Iterator[list[str]]:
        yield []

    monkeypatch.setattr(cuda_graphs, "noting_waits", no_waits)
    return made


def batches(count: int, rows: int = 2) -> list[Batch]:
    return [random_batch(rows=rows, seed=seed) for seed in range(count)]


def doubled(batch: Batch) -> Tensor:
    return 2 * batch.reward_BT[:2, :3]


def test_each_update_reads_its_own_batch(simulated: list[Simulated]) -> None:
    """Bug: every replay learns from the batch that was recorded; or the recorded batch is learned from twice or never."""
    recorded = RecordedUpdate(doubled)
    for batch in batches(PLAIN + 4):
        found = recorded(batch)
        assert found is not None and torch.equal(found, doubled(batch))
    assert [graph.replays for graph in simulated] == [4] and recorded.is_recorded


def test_the_batch_itself_is_left_alone(simulated: list[Simulated]) -> None:
    """Bug: a batch that is a view of the buffer is overwritten by the next one."""
    recorded, given = RecordedUpdate(doubled), batches(PLAIN + 3)
    before = [batch.reward_BT.clone() for batch in given]
    for batch in given:
        recorded(batch)
    assert all(torch.equal(batch.reward_BT, old) for batch, old in zip(given, before, strict=True))


def test_other_shapes_are_not_replayed(simulated: list[Simulated]) -> None:
    """Bug: a smaller batch is written into a part of the recorded one, and the rest is learned from again."""
    recorded = RecordedUpdate(doubled)
    for batch in batches(PLAIN + 1):
        recorded(batch)
    for batch in batches(2, rows=5):
        found = recorded(batch)
        assert found is not None and torch.equal(found, doubled(batch))
    assert not recorded.is_recorded and len(simulated) == 1


def test_what_waits_is_not_recorded(simulated: list[Simulated], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: an update that reads a value on the host is frozen with the value of the first time, or ends the run."""

    @contextlib.contextmanager
    def waits(describe: Callable[[], str]) -> Iterator[list[str]]:
        yield [describe()]

    monkeypatch.setattr(cuda_graphs, "noting_waits", waits)
    recorded = RecordedUpdate(doubled)
    for batch in batches(PLAIN + 4):
        found = recorded(batch)
        assert found is not None and torch.equal(found, doubled(batch))
    assert not simulated and recorded.waits


def test_what_cannot_be_recorded(simulated: list[Simulated], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a traceback of the driver in place of what to set."""

    def fails(work: Callable[[], Tensor]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_graphs, "record", fails)
    recorded = RecordedUpdate(doubled)
    with pytest.raises(UserError, match=r"\(operation not permitted when stream is capturing\); set learner\.record=false"):
        for batch in batches(PLAIN + 1):
            recorded(batch)


def test_own_code_and_batches_of_several_widths_are_not_recorded() -> None:
    """Bug: an own objective that counts its calls, or a batch of another width, is replayed as it was recorded."""
    spec = TaskSpec(num_actions=2, num_tokens=2, row_transitions=3, episode_steps=3)
    ours = {"gamma": 0.5, "objective": {"td": {"_target_": "dqnlm.objectives.td.td"}}}
    assert updates_repeat(ours, spec)
    assert not updates_repeat(ours | {"objective": {"mine": {"_target_": "mine.Objective"}}}, spec)
    varied = TaskSpec(num_actions=2, num_tokens=2, row_transitions=3, episode_steps=3, variable_length=True)
    assert not updates_repeat(ours, varied)


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_training_is_that_of_plain_updates(precision: str) -> None:
    """Bug: a recording leaves a part of the update out: the rate, clipping, dropout's numbers, metrics, the target network."""
    from dqnlm.benchmarks.runs import SMALL, TEXT, built

    def trained(records: bool) -> tuple[list[Tensor], dict[str, float], int]:
        settings = ("gamma=0.5", "device=cuda", "trainer.batch_size=8", "network.dropout=0.1", f"learner.precision={precision}")
        with built(*TEXT, SMALL, *settings) as run:
            learner = run.components.learner
            assert learner.recorded is not None
            if not records:
                learner.recorded = None
            for _ in range(PLAIN + 12):
                run.train_round(run.phase)
            assert not records or (learner.recorded is not None and learner.recorded.is_recorded)
            weights = [p.detach().clone() for p in (*learner.network.parameters(), *learner.target.network.parameters())]
            return weights, run.components.accumulator.pop_means(), int(learner.transitions)

    one, two = trained(True), trained(False)
    for a, b in zip(one[0], two[0], strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    assert one[2] == two[2] and one[1].keys() == two[1].keys()
    assert one[1] == pytest.approx(two[1], rel=1e-2, abs=1e-3)
