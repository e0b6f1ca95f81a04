"""Outputs that are computed where a loss reads them give the losses and gradients of outputs in full."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dqnlm.agent import learner as learners
from dqnlm.agent.learner import Learner
from dqnlm.agent.target import Target
from dqnlm.heads.categorical import Categorical
from dqnlm.metrics import Accumulator
from dqnlm.networks import deferred
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear, LowRank
from dqnlm.networks.recurrent import GRU
from dqnlm.objectives.base import Objective
from dqnlm.objectives.conservative import Conservative
from dqnlm.objectives.expectile_value import ExpectileValue
from dqnlm.objectives.large_margin import LargeMargin
from dqnlm.objectives.path_consistency import PathConsistency
from dqnlm.objectives.q_sharp import QSharp
from dqnlm.objectives.trajectory import Trajectory
from dqnlm.types import Batch
from tests.helpers.batches import A, T, random_batch
from tests.helpers.learners import (
    BOOTSTRAPS,
    BOUNDS,
    CPU,
    HEADS,
    adam,
    cross_entropy,
    differ,
    learner_settings,
    make_td,
)

SOFT = Categorical(BOUNDS, low=None, high=None, num_atoms=5, temperature=0.5)
OBJECTIVES: dict[str, Callable[[], list[Objective]]] = {
    "ilql": lambda: [
        make_td(bootstrap="value", twin=True), ExpectileValue(HEADS["squared"](), weight=1.0, expectile=0.8),
        Conservative(HEADS["squared"](), weight=0.3, temperature=0.7), cross_entropy(output="policy"),
    ],
    "double": lambda: [make_td()],
    "soft": lambda: [make_td(bootstrap="munchausen")],
    "large_margin": lambda: [make_td(), LargeMargin(HEADS["squared"](), weight=1.0, margin=0.4)],
    "path": lambda: [PathConsistency(HEADS["squared"](), True, weight=1.0, temperature=0.5, n=2, reference="start")],
    "trajectory": lambda: [
        Trajectory(HEADS["squared"](), weight=1.0, temperature=0.5, reference="start", baseline="value")
    ],
    "q_sharp": lambda: [QSharp(SOFT, BOOTSTRAPS["max"](), weight=1.0)],
    "cloning": lambda: [cross_entropy(normaliser_weight=0.3)],
}  # fmt: skip


def network(low_rank: bool, numbers: int = 1) -> QNetwork:
    torch.manual_seed(3)
    body = GRU(layers=1, width=12, context=T)
    wide: Callable[[], torch.nn.Module] = (
        (lambda: LowRank(12, A, numbers, rank=3)) if low_rank else (lambda: Linear(12, A, numbers))
    )
    outputs = {"q": wide(), "q2": wide(), "v": Linear(12, 1, 1), "policy": Linear(12, A, 1)}
    built = QNetwork(TokenEncoder(A, 12, 1.0), body, outputs)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return built


def gradients(names: str, batch: Batch, low_rank: bool, heads_only: bool) -> tuple[list[Tensor], dict[str, float], Learner]:
    online = network(low_rank, SOFT.num_parameters if names == "q_sharp" else 1)
    target = Target(online, period=100, polyak_rate=None, heads_only=heads_only)
    with torch.no_grad():
        for parameter in target.network.projections.parameters():
            parameter.mul_(0.8)  # so that a mix-up of the two networks shows
    objectives = {str(i): objective for i, objective in enumerate(OBJECTIVES[names]())}
    accumulator = Accumulator(CPU)
    learner = Learner(online, target, objectives, adam(online), accumulator, **learner_settings())
    if learner.reference is not None:
        for parameter in learner.reference.projections.parameters():
            parameter.mul_(0.6)
    learner.update(batch)
    found = [p.grad.clone() for p in online.parameters() if p.grad is not None]
    return found, accumulator.pop_means(), learner


@pytest.mark.parametrize("heads_only", [False, True])
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("names", OBJECTIVES)
@pytest.mark.parametrize("chunk", [2**23, 7 * A])
def test_losses_and_gradients_are_those_of_outputs_in_full(
    monkeypatch: pytest.MonkeyPatch, names: str, low_rank: bool, heads_only: bool, chunk: int
) -> None:
    """Bug: rows of the wrong action, places in the wrong order, a chunk counted twice, target and online mixed up."""
    batch = random_batch(rows=9, seed=5)
    full, figures, plain = gradients(names, batch, low_rank, heads_only)
    monkeypatch.setattr(learners, "MANY_ACTIONS", 1)
    monkeypatch.setattr(deferred, "CHUNK", chunk)
    found, others, learner = gradients(names, batch, low_rank, heads_only)
    assert learner.forwards.defers and not plain.forwards.defers
    for one, other in zip(full, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    for name, value in others.items():
        assert value == pytest.approx(figures[name], rel=1e-4, abs=1e-6), name
    assert set(figures) - set(others) <= {"q/max_mean"}
    assert learner.last_update is not None and plain.last_update is not None
    assert learner.last_update.raw_BSAN.shape == plain.last_update.raw_BSAN.shape  # its output layer is a step further
    moved = random_batch(rows=9, seed=6)
    assert differ(full, gradients(names, moved, low_rank, heads_only)[0])


def test_temporal_differences_read_one_row_of_the_output_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: outputs in full, which cost as much as the trunk. Counted: calls of the projections of q."""
    monkeypatch.setattr(learners, "MANY_ACTIONS", 1)
    calls = []
    monkeypatch.setattr(LowRank, "forward", lambda self, h: calls.append(h.shape))
    online = network(True)
    target = Target(online, period=None, polyak_rate=0.1, heads_only=True)
    objectives: dict[str, Objective] = {
        "td": make_td(bootstrap="value", twin=True), "v": ExpectileValue(HEADS["squared"](), weight=1.0, expectile=0.8)
    }  # fmt: skip
    Learner(online, target, objectives, adam(online), Accumulator(CPU), **learner_settings()).update(random_batch(rows=4, seed=1))
    assert not calls


@pytest.mark.parametrize("names", OBJECTIVES)
def test_what_reads_in_full_says_so(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    """Bug: a run is refused for outputs that it never holds, or ends without memory as nobody counted them. Oracle: what is
    read in full during an update (`v` has one number a state)."""
    read: set[str] = set()
    project = deferred.DeferredOutputs.__getitem__

    def noted(self: deferred.DeferredOutputs, name: str) -> Tensor:
        read.add(name)
        return project(self, name)

    monkeypatch.setattr(learners, "MANY_ACTIONS", 1)
    monkeypatch.setattr(deferred.DeferredOutputs, "__getitem__", noted)
    gradients(names, random_batch(rows=4, seed=1), True, True)
    says = any(objective.reads_in_full for objective in OBJECTIVES[names]())
    assert says == bool(read - {"v"}), (names, read)
