"""Keeps Q of actions that the data never took below Q of those it took.

    loss = T logsumexp_a(Q(s, a) / T) - Q(s, a_data)        (CQL for discrete actions: Kumar et al. 2020)

Its weight is their alpha. With Q as logits and T = 1 it is the cross-entropy of the data's action.
"""

from __future__ import annotations

import torch

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import Legal, Objective, Outputs, Result, legal_from, present
from dqnlm.ops.bootstrap import soft_value
from dqnlm.types import Batch


class Conservative(Objective):
    """See the module's text; applied to q, and to q2 where there is one.

    Args:
        head: meaning of the raw outputs.
        legal: observation_BS -> mask of legal actions, or None.
        weight: alpha.
        temperature: T in return units; small compares with the greatest Q, large with the mean.

    Raises:
        UserError: a temperature that is not above 0.
    """

    def __init__(self, head: Head, legal: Legal, *, weight: float, temperature: float) -> None:
        super().__init__(weight)
        if temperature <= 0:
            raise UserError(f"objective.conservative.temperature must be above 0, not {temperature}")
        self.head, self.legal, self.temperature = head, legal, temperature

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        action_BT = present(batch).action_BT
        times = action_BT.shape[1]
        legal = legal_from(self.legal, batch, times)
        gap_BT = torch.zeros_like(action_BT, dtype=torch.float32)
        for name in ("q", "q2"):
            if name in online:
                q_BTA = self.head.value(online[name][:, :times])
                taken_BT = q_BTA.gather(-1, action_BT[..., None]).squeeze(-1)
                gap_BT = gap_BT + soft_value(q_BTA, legal, self.temperature) - taken_BT
        return Result(gap_BT, {"conservative/gap": gap_BT})
