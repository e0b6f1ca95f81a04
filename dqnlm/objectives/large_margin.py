"""Demonstrations: the demonstrated action must be better than every other by a margin.

loss = max_a [Q(s, a) + margin 1(a != a_data)] - Q(s, a_data)        (Piot et al. 2014; DQfD: Hester et al. 2018)
"""

from __future__ import annotations

import torch.nn.functional as F

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import Legal, Objective, Outputs, Result, legal_from, present
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import Batch


class LargeMargin(Objective):
    """See the module's text.

    Args:
        head: meaning of the raw q.
        legal: observation_BS -> mask of legal actions, or None.
        weight: factor of this loss in the sum.
        margin: in return units, above 0.

    Raises:
        UserError: a margin that is not above 0.
    """

    def __init__(self, head: Head, legal: Legal, *, weight: float, margin: float) -> None:
        super().__init__(weight)
        if margin <= 0:
            raise UserError(f"objective.large_margin.margin must be above 0, not {margin}")
        self.head, self.legal, self.margin = head, legal, margin

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        action_BT = present(batch).action_BT
        q_BTA = self.head.value(online["q"][:, : action_BT.shape[1]])
        taken_BT = q_BTA.gather(-1, action_BT[..., None]).squeeze(-1)
        other_BTA = q_BTA + self.margin * (1 - F.one_hot(action_BT, q_BTA.shape[-1]))
        legal = legal_from(self.legal, batch, action_BT.shape[1])
        best_BT = masked_q(other_BTA, legal).amax(-1).maximum(taken_BT)
        return Result(best_BT - taken_BT, {"large_margin/violation": best_BT - taken_BT})
