"""Conservative Q-learning: keeps Q of actions outside the data below Q of the data's actions.

    loss_t = T logsumexp_a(Q(s_t, a) / T) - Q(s_t, a_t)        (CQL for discrete actions: Kumar et al. 2020)

The objective's weight is their alpha. With Q as logits and T = 1 this is the cross-entropy of the data's action.
"""

from __future__ import annotations

import torch

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import LossOutput, Objective, Outputs, value_taken
from dqnlm.ops.bootstrap import soft_value
from dqnlm.types import Decisions


class Conservative(Objective):
    """The module's loss, summed over q, and q2 where there is one.

    Args:
        head: meaning of the raw outputs.
        weight: alpha.
        temperature: T in return units; small compares with the greatest Q, large with the mean.

    Raises:
        UserError: a temperature that is not above 0.
    """

    def __init__(self, head: Head, *, weight: float, temperature: float) -> None:
        super().__init__(weight)
        if temperature <= 0:
            raise UserError(f"objective.conservative.temperature must be above 0, not {temperature}")
        self.head, self.temperature = head, temperature

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from online q and q2 (times 0..T-1), actions and legal actions of the same times."""
        gap_BT = torch.zeros_like(batch.action_BT, dtype=torch.float32)
        for name in ("q", "q2"):
            if name in online:
                q_BTA = self.head.value(batch.at_decisions(online[name]))
                v_BT = soft_value(q_BTA, batch.legal_BTA, self.temperature)
                gap_BT = gap_BT + v_BT - value_taken(q_BTA, batch.action_BT)
        return LossOutput(gap_BT, {"conservative/gap": gap_BT})
