"""Conservative Q-learning: keeps Q of actions outside the data below Q of the data's actions.

    loss_t = T logsumexp_a(Q(s_t, a) / T) - Q(s_t, a_t)        (CQL for discrete actions: Kumar et al. 2020)

The objective's weight is their alpha. With Q as logits and T = 1 this is the cross-entropy of the data's action.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import LossOutput, Objective, Outputs, value_taken
from dqnlm.objectives.reading import over_actions
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

    reads_in_full = False

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
                v_BT, taken_BT = over_actions(online, name, batch, self._values).unbind(-1)
                gap_BT = gap_BT + v_BT - taken_BT
        return LossOutput(gap_BT, {"conservative/gap": gap_BT})

    def _values(self, raw_XAN: Tensor, action_X: Tensor, legal_XA: Tensor | None) -> Tensor:
        """T logsumexp(Q / T), and Q of the action taken."""
        q_XA = self.head.value(raw_XAN)
        return torch.stack([soft_value(q_XA, legal_XA, self.temperature), value_taken(q_XA, action_X)], -1)
