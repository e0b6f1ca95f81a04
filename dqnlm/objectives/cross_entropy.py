"""Behaviour cloning: -log softmax(raw)[a] of the actions in the data. No reward, no target, no bootstrap.

    loss_BT = Z - raw[a] + w Z^2 / 2        Z = logsumexp over the legal raw

With w > 0 the raw numbers tend to log-probabilities, so that a soft Q-function (temperature 1) that starts from them
starts with V = Z near 0 in every state.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F

from dqnlm.errors import UserError
from dqnlm.objectives.base import Legal, Objective, Outputs, Result, legal_from, present
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import Batch


class CrossEntropy(Objective):
    """See the module's text.

    Args:
        legal: observation_BS -> mask of legal actions, or None.
        weight: factor of this loss in the sum.
        output: whose raw numbers are the logits: `q` (the network is then a policy, not a Q-function), or `policy`, an
            output of its own beside `q` (the behaviour that ILQL's policy starts from).
        normaliser_weight: w, at least 0.

    Raises:
        UserError: a normaliser_weight below 0.
    """

    clones_actions = True

    def __init__(
        self, legal: Legal, *, weight: float, output: Literal["q", "policy"], normaliser_weight: float
    ) -> None:
        super().__init__(weight)
        if normaliser_weight < 0:
            raise UserError(
                f"objective.cross_entropy.normaliser_weight cannot be below 0, and it is {normaliser_weight}"
            )
        self.normaliser_weight = normaliser_weight
        self.legal, self.output = legal, output
        self.learns_outputs = (output,)
        self.needs_outputs = () if output == "q" else (output,)

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        action_BT = present(batch).action_BT
        raw_BTA = online[self.output].squeeze(-1)[:, : action_BT.shape[1]].float()
        legal = legal_from(self.legal, batch, action_BT.shape[1])
        taken_BT1 = raw_BTA.gather(-1, action_BT[..., None])  # also where logged data took what is not legal here
        if legal is not None:
            raw_BTA = masked_q(raw_BTA, legal).scatter(-1, action_BT[..., None], taken_BT1)
        loss_BT = F.cross_entropy(raw_BTA.flatten(0, 1), action_BT.flatten(), reduction="none").view(action_BT.shape)
        if self.normaliser_weight:
            loss_BT = loss_BT + 0.5 * self.normaliser_weight * raw_BTA.logsumexp(-1).square()
        return Result(loss_BT, {"policy/accuracy": (raw_BTA.argmax(-1) == action_BT).float()})
