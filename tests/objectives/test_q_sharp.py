"""The loss of Q#, by hand, and what it requires of a run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dqnlm.errors import UserError
from dqnlm.heads.categorical import Categorical
from dqnlm.heads.quantile import Quantile
from dqnlm.heads.scalar import Scalar
from dqnlm.objectives.base import combined
from dqnlm.objectives.bootstrap import Max
from dqnlm.objectives.q_sharp import QSharp
from dqnlm.types import Bounds
from tests.helpers.batches import A, random_batch

BOUNDS = Bounds(0.0, 2.0)


def objective(eta: float = 0.5) -> QSharp:
    return QSharp(Categorical(BOUNDS, low=None, high=None, num_atoms=3, temperature=eta), Max(), weight=1.0)


def test_loss_and_metrics_by_hand() -> None:
    """Bug: a reward to go that leaves out the decision's own reward, a bootstrap, or a mean in the place of the soft value.

    One row of two decisions with rewards 1/2 and 1, so returns 3/2 and 1; atoms 0 1 2 with probabilities 1/2 1/4 1/4 at both.
    3/2 is half of 1 and half of 2: loss log 4. 1 is the atom: log 4. Soft value: log(1/2 + e^2 / 4 + e^4 / 4) / 2 = 1.38619.
    """
    batch = random_batch(rows=1, seed=1).from_first_decision(None, False)
    ones = torch.ones(1, 2)
    batch = replace(
        batch, action_BT=torch.tensor([[2, 0]]), reward_BT=torch.tensor([[0.5, 1.0]]), discount_BT=torch.tensor([[1.0, 0.0]]),
        mask_BT=ones, learn_BT=ones, carry_BT=None, legal_BSA=None,
    )  # fmt: skip
    raw_BTAN = torch.zeros(1, 2, A, 3)
    raw_BTAN[0, [0, 1], [2, 0]] = torch.tensor([0.5, 0.25, 0.25]).log()
    loss_BT, metrics, error_BT = objective()({"q": raw_BTAN}, None, batch)
    soft = math.log(0.5 + math.exp(2) / 4 + math.exp(4) / 4) / 2
    assert soft == pytest.approx(1.38619, abs=1e-4)
    torch.testing.assert_close(loss_BT, torch.full((1, 2), math.log(4)))
    torch.testing.assert_close(metrics["target/mean"], torch.tensor([[1.5, 1.0]]))
    torch.testing.assert_close(metrics["q/taken_mean"], torch.full((1, 2), soft))
    assert error_BT is not None
    torch.testing.assert_close(error_BT, torch.tensor([[1.5 - soft, 1.0 - soft]]))


def test_what_it_reads() -> None:
    """Bug: a target network that is kept and never read, rows without their end, or an output `policy` that no one builds."""
    needs = combined([objective().requires])
    assert needs.outputs == ("policy",) and needs.whole_episodes and needs.lookahead is None
    assert not needs.target and not needs.reference and not needs.last_observation
    assert objective().learns_outputs == ("q",) and not objective().clones_actions and not objective().uses_bootstrap


def test_heads_that_have_no_soft_value() -> None:
    """Bug: Q that is a mean, by which every action of the same mean is the same."""
    mean = Categorical(BOUNDS, low=None, high=None, num_atoms=3, temperature=None)
    with pytest.raises(UserError, match=r"Categorical has no temperature: set head=categorical head\.temperature=0\.25"):
        QSharp(mean, Max(), weight=1.0)
    with pytest.raises(UserError, match="Quantile has no temperature"):
        QSharp(Quantile(BOUNDS, num_quantiles=3, kappa=0.1), Max(), weight=1.0)
    with pytest.raises(UserError, match="Scalar predicts no distribution"):
        QSharp(Scalar(BOUNDS, False, loss="huber", initial_return=None), Max(), weight=1.0)
