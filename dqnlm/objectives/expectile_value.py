"""Expectile regression of V(s) on Q(s, a) of the data's actions: near their best value, without a maximum.

    loss_t = |expectile - 1(u_t < 0)| u_t^2 / 2        u_t = min(Qbar1(s_t, a_t), Qbar2(s_t, a_t)) - V(s_t)

Q of actions outside the data is never read (IQL: Kostrikov et al. 2022; ILQL on text: Snell et al. 2022).
"""

from __future__ import annotations

import torch

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import LossOutput, Objective, Outputs, Requirements
from dqnlm.objectives.reading import q_taken
from dqnlm.ops import losses
from dqnlm.types import Decisions


class ExpectileValue(Objective):
    """The module's loss.

    Args:
        head: meaning of the raw q.
        weight: factor of this loss in the sum.
        expectile: in (0, 1); .5 is the mean over the data's actions, near 1 their best.

    Raises:
        UserError: an expectile outside (0, 1).
    """

    requires = Requirements(target=True, outputs=("v",))
    learns_outputs = ("v",)
    reads_in_full = False

    def __init__(self, head: Head, *, weight: float, expectile: float) -> None:
        super().__init__(weight)
        if not 0 < expectile < 1:
            raise UserError(
                f"objective.expectile_value.expectile must lie between 0 and 1 (both excluded), not {expectile}"
            )
        self.head, self.expectile = head, expectile

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from online v, and q and q2 of the target network, at times 0..T-1."""
        assert target is not None, "it is required"
        v_BT = batch.at_decisions(online["v"].flatten(2).squeeze(-1)).float()
        with torch.no_grad():
            q_BT = q_taken(self.head, target, batch)
        error_BT = q_BT - v_BT
        return LossOutput(losses.expectile(error_BT, self.expectile), {"value/mean": v_BT, "value/advantage": error_BT})
