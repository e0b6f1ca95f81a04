"""Some rows of a batch at a time: the same gradients, figures and errors as the whole batch, and less memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.agent.learner import Learner
from dqnlm.agent.target import Target
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear
from dqnlm.networks.recurrent import GRU
from dqnlm.objectives.base import Objective
from dqnlm.objectives.conservative import Conservative
from dqnlm.objectives.expectile_value import ExpectileValue
from dqnlm.objectives.large_margin import LargeMargin
from dqnlm.objectives.path_consistency import PathConsistency
from dqnlm.objectives.returns import Lambda
from dqnlm.objectives.trajectory import Trajectory
from dqnlm.types import TERMINATED, Batch
from tests.helpers.batches import A, random_batch
from tests.helpers.learners import (
    CPU,
    HEADS,
    adam,
    assert_close,
    cross_entropy,
    figures,
    gradient,
    learner_settings,
    make_td,
)

HEAD = HEADS["squared"]()


def legal(observation_BS: Tensor) -> Tensor:
    return torch.tensor([True, True, False, True, True])


OBJECTIVES: dict[str, Objective] = {
    "td": make_td("huber"),
    "td_soft_lambda": make_td("squared", "soft", multistep=Lambda(trace=0.7)),
    "td_munchausen": make_td("squared", "munchausen"),
    "td_twin": make_td("squared", twin=True),
    "td_all_actions": make_td("logistic", feedback="all_actions"),
    "cross_entropy": cross_entropy(weight=2.0, normaliser_weight=0.1),
    "expectile_value": ExpectileValue(HEAD, weight=1.0, expectile=0.8),
    "conservative": Conservative(HEAD, weight=1.0, temperature=0.5),
    "large_margin": LargeMargin(HEAD, weight=1.0, margin=0.5),
    "path_consistency": PathConsistency(HEAD, True, weight=1.0, temperature=0.5, n=2, reference="start"),
    "trajectory": Trajectory(HEAD, weight=1.0, temperature=0.5, reference="start", baseline="value"),
}


def learner_of(objective: Objective, micro_batch_size: int | None, **changes: Any) -> Learner:
    """With all outputs that any objective reads."""
    torch.manual_seed(1)
    outputs = {"q": Linear(12, A, 1), "q2": Linear(12, A, 1), "v": Linear(12, 1, 1)}
    network = QNetwork(TokenEncoder(A, 12, 1.0), GRU(layers=1, width=12, context=8), outputs)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    target = Target(network, period=100, polyak_rate=None)
    settings = learner_settings(**({"burn_in": 1, "micro_batch_size": micro_batch_size} | changes))
    return Learner(network, target, {"it": objective}, adam(network), Accumulator(CPU), 0, HEAD, legal, **settings)


def batch_of_unequal_rows(copies: int = 1) -> Batch:
    batch = random_batch(rows=6, first=1, end=TERMINATED, copies=copies)
    return replace(batch, weight_B=torch.tensor([1.0, 0.5, 2.0, 1.0, 0.1, 3.0]))


@pytest.mark.parametrize("micro_batch_size", [1, 4, 6, 50])
@pytest.mark.parametrize("sorts", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_the_whole_batch(name: str, micro_batch_size: int, sorts: bool) -> None:
    """Bug: a part divided by its own number of decisions or rows, weights of other rows, or a last part that is forgotten; of
    rows sorted by length: errors of other rows, or the last decision of the longest cut off."""
    if sorts and name == "td_all_actions":
        pytest.skip("the rewards of all actions are of rows of one length")
    found = []
    for rows in (None, micro_batch_size):
        learner = learner_of(OBJECTIVES[name], rows)
        learner.sorts = sorts and rows is not None
        with torch.no_grad():
            for reference in [] if learner.reference is None else list(learner.reference.parameters()):
                reference.mul_(0.5)
        error_BT = learner.update(batch_of_unequal_rows())
        gradients = [p.grad.clone() for p in learner.network.parameters() if p.grad is not None]
        found.append((gradients, figures(learner), error_BT, int(learner.transitions)))
    whole, parts = found
    assert_close(whole[0], parts[0])
    assert max(float(g.abs().max()) for g in whole[0]) > 1e-3
    assert whole[1] == pytest.approx(parts[1], rel=1e-4, abs=1e-6) and whole[3] == parts[3]
    if whole[2] is not None and parts[2] is not None:
        within_BT = (batch_of_unequal_rows().mask_BT > 0)[:, 1:]  # what lies behind a row's end is never read
        torch.testing.assert_close(whole[2][within_BT], parts[2][within_BT])
    assert (whole[2] is None) == (parts[2] is None)


def test_copies_and_the_reference_in_the_reward() -> None:
    """Bug: a text paired with the rows of another; a reference that reads other rows than those at hand."""
    results = []
    for rows in (None, 2):
        learner = learner_of(make_td("huber", "soft"), rows, kl_weight=0.5)
        results.append(gradient(learner, replace(batch_of_unequal_rows(2), copies=2)))
    assert_close(*results)


def test_fewer_rows_are_held() -> None:
    """Bug: all rows in one forward after all."""
    learner, seen = learner_of(make_td("huber"), 2), []
    learner.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    learner.update(batch_of_unequal_rows())
    assert seen == [2, 2, 2] and learner.last_update is not None and len(learner.last_update.raw_BSAN) == 2


def test_refusals() -> None:
    siblings = Trajectory(HEAD, weight=1.0, temperature=0.5, reference="none", baseline="group")
    with pytest.raises(UserError, match=r"compares the rows .*baseline=value"):
        learner_of(siblings, 2)
    with pytest.raises(UserError, match="at least 1"):
        learner_of(make_td(), 0)
    assert learner_of(siblings, None)
