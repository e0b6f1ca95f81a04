"""V(s) as an upper expectile of Q(s, a) over the actions in the data: the best that the data shows, without a maximum.

    loss = |expectile - 1(u < 0)| u^2 / 2        u = min(Qbar1(s, a), Qbar2(s, a)) - V(s)

Actions that the data never took are never asked about (IQL: Kostrikov et al. 2022; ILQL on text: Snell et al. 2022).
"""

from __future__ import annotations

import torch

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import Objective, Outputs, Result, present
from dqnlm.ops import losses
from dqnlm.types import Batch


class ExpectileValue(Objective):
    """See the module's text.

    Args:
        head: meaning of the raw q.
        weight: factor of this loss in the sum.
        expectile: in (0, 1); .5 is the mean over the data's actions, near 1 their best.

    Raises:
        UserError: an expectile outside (0, 1).
    """

    needs_target = True
    needs_outputs = learns_outputs = ("v",)

    def __init__(self, head: Head, *, weight: float, expectile: float) -> None:
        super().__init__(weight)
        if not 0 < expectile < 1:
            raise UserError(
                f"objective.expectile_value.expectile must lie between 0 and 1 (both excluded), not {expectile}"
            )
        self.head, self.expectile = head, expectile

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        assert target is not None
        action_BT = present(batch).action_BT
        times = action_BT.shape[1]
        v_BT = online["v"].flatten(2).squeeze(-1)[:, :times].float()
        with torch.no_grad():
            taken = [self.head.value(target[name][:, :times]).gather(-1, action_BT[..., None]).squeeze(-1)
                     for name in ("q", "q2") if name in target]  # fmt: skip
            q_BT = torch.stack(taken).amin(0)
        error_BT = q_BT - v_BT
        return Result(losses.expectile(error_BT, self.expectile), {"value/mean": v_BT, "value/advantage": error_BT})
