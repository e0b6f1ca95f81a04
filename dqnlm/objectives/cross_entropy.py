"""Behaviour cloning: cross-entropy of the data's actions, without reward, target or bootstrap.

    loss_t = Z_t - logit_t[a_t] + w Z_t^2 / 2        Z_t = logsumexp of the legal logits

With w > 0 the logits tend to log-probabilities, so that a soft Q-function (temperature 1) that starts from them has
V = Z near 0 in every state.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.objectives.base import LossOutput, Objective, Outputs, Requirements
from dqnlm.objectives.reading import over_actions
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import Decisions
from dqnlm.utils.context import RunContext

FIXED_POLICY = (
    "{} clones actions into the output `policy`, and network.lora_rank=0 leaves no weight of it that could learn: set "
    "network.train_output_layer=true, network.lora_rank=8 or so, or algorithm=q_sharp, which needs a fixed policy"
)


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
    reads_in_full = False

    def __init__(self, *, weight: float, output: Literal["q", "policy"], normaliser_weight: float) -> None:
        super().__init__(weight)
        if normaliser_weight < 0:
            raise UserError(
                f"objective.cross_entropy.normaliser_weight cannot be below 0, and it is {normaliser_weight}"
            )
        self.output, self.normaliser_weight = output, normaliser_weight
        self.requires = Requirements(outputs=() if output == "q" else (output,))
        self.learns_outputs = (output,)

    def check(self, context: RunContext) -> None:
        """Raises UserError where no weight that the cloned output depends on is learned."""
        if self.output == "policy" and context.has_fixed_policy:
            raise UserError(FIXED_POLICY.format("objective.cross_entropy.output=policy"))

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from the online logits (times 0..T-1), actions and legal actions of the same times."""
        loss_BT, hit_BT = over_actions(online, self.output, batch, self._loss_and_hit).unbind(-1)
        return LossOutput(loss_BT, {"policy/accuracy": hit_BT})

    def _loss_and_hit(self, raw_XAN: Tensor, action_X: Tensor, legal_XA: Tensor | None) -> Tensor:
        """The loss, and 1.0 where the greatest logit is that of the data's action."""
        logit_XA = raw_XAN.squeeze(-1).float()
        taken_X1 = logit_XA.gather(-1, action_X[..., None])  # also where logged data took what is not legal here
        if legal_XA is not None:
            logit_XA = masked_q(logit_XA, legal_XA).scatter(-1, action_X[..., None], taken_X1)
        size = logit_XA.shape[-1]
        loss_X = F.cross_entropy(logit_XA.reshape(-1, size), action_X.flatten(), reduction="none").view(action_X.shape)
        if self.normaliser_weight:
            loss_X = loss_X + 0.5 * self.normaliser_weight * logit_XA.logsumexp(-1).square()
        return torch.stack([loss_X, (logit_XA.argmax(-1) == action_X).float()], -1)
