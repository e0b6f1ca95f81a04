"""Large-margin classification: the demonstrated action's Q must exceed every other by a margin.

loss_t = max_a [Q(s_t, a) + margin 1(a != a_t)] - Q(s_t, a_t)        (Piot et al. 2014; DQfD: Hester et al. 2018)

It is for demonstrations alone (lambda_2 = 0 for the agent's own rows, Hester et al. 2018): of a batch that mixes both the
learner leaves the agent's own rows out, and the builder refuses it where all rows are the agent's own.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import LossOutput, Objective, Outputs, value_taken
from dqnlm.objectives.reading import over_actions
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import Decisions


class LargeMargin(Objective):
    """The module's loss.

    Args:
        head: meaning of the raw q.
        weight: factor of this loss in the sum.
        margin: in return units, above 0.

    Raises:
        UserError: a margin that is not above 0.
    """

    clones_actions = True
    reads_in_full = False

    def __init__(self, head: Head, *, weight: float, margin: float) -> None:
        super().__init__(weight)
        if margin <= 0:
            raise UserError(f"objective.large_margin.margin must be above 0, not {margin}")
        self.head, self.margin = head, margin

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from online q (times 0..T-1), actions and legal actions of the same times."""
        violation_BT = over_actions(online, "q", batch, self._violation).squeeze(-1)
        return LossOutput(violation_BT, {"large_margin/violation": violation_BT})

    def _violation(self, raw_XAN: Tensor, action_X: Tensor, legal_XA: Tensor | None) -> Tensor:
        q_XA = self.head.value(raw_XAN)
        taken_X = value_taken(q_XA, action_X)
        rival_XA = q_XA + self.margin * (1 - F.one_hot(action_X, q_XA.shape[-1]))
        best_X = masked_q(rival_XA, legal_XA).amax(-1).maximum(taken_X)
        return (best_X - taken_X)[..., None]
