"""Behaviour cloning: cross-entropy of the data's actions, without reward, target or bootstrap.

    loss_t = Z_t - logit_t[a_t] + w Z_t^2 / 2        Z_t = logsumexp of the legal logits

With w > 0 the logits tend to log-probabilities, so that a soft Q-function (temperature 1) that starts from them has
V = Z near 0 in every state.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F

from dqnlm.errors import UserError
from dqnlm.objectives.base import LossOutput, Objective, Outputs, Requirements
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import Decisions


class CrossEntropy(Objective):
    """The module's loss.

    Args:
        weight: factor of this loss in the sum.
        output: output whose raw numbers are the logits: `q` (the network is then a policy, not a Q-function), or `policy`, an
            output of its own beside `q` (the behaviour that ILQL's policy starts from).
        normaliser_weight: w, at least 0.

    Raises:
        UserError: a normaliser_weight below 0.
    """

    clones_actions = True

    def __init__(self, *, weight: float, output: Literal["q", "policy"], normaliser_weight: float) -> None:
        super().__init__(weight)
        if normaliser_weight < 0:
            raise UserError(
                f"objective.cross_entropy.normaliser_weight cannot be below 0, and it is {normaliser_weight}"
            )
        self.output, self.normaliser_weight = output, normaliser_weight
        self.requires = Requirements(outputs=() if output == "q" else (output,))
        self.learns_outputs = (output,)

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from the online logits (times 0..T-1), actions and legal actions of the same times."""
        action_BT = batch.action_BT
        logit_BTA = batch.at_decisions(online[self.output].squeeze(-1)).float()
        taken_BT1 = logit_BTA.gather(-1, action_BT[..., None])  # also where logged data took what is not legal here
        if batch.legal_BTA is not None:
            logit_BTA = masked_q(logit_BTA, batch.legal_BTA).scatter(-1, action_BT[..., None], taken_BT1)
        loss_BT = F.cross_entropy(logit_BTA.flatten(0, 1), action_BT.flatten(), reduction="none").view(action_BT.shape)
        if self.normaliser_weight:
            loss_BT = loss_BT + 0.5 * self.normaliser_weight * logit_BTA.logsumexp(-1).square()
        return LossOutput(loss_BT, {"policy/accuracy": (logit_BTA.argmax(-1) == action_BT).float()})
