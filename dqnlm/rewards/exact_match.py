"""Exact match: one value where the chosen token equals the reference token at its position, another elsewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.rewards.base import State, StatefulReward
from dqnlm.types import Bounds


class ExactMatch(StatefulReward):
    """r_t = match if a_t equals the reference's token t, else mismatch.

    Args:
        num_actions: A.
        match: reward of the reference token.
        mismatch: reward of every other token.

    Raises:
        UserError: a value is not finite, or both are equal, so that the reward is constant.
    """

    knows_all_actions = True

    def __init__(self, num_actions: int, *, match: float, mismatch: float) -> None:
        super().__init__(num_actions)
        for name, value in (("match", match), ("mismatch", mismatch)):
            if not math.isfinite(value):
                raise UserError(f"reward.{name} is {value}; it must be a finite number, such as 1.0")
        if match == mismatch:
            raise UserError(
                f"reward.match and reward.mismatch are both {match}, so no action is better than another; "
                "use different values, such as reward.match=1.0 reward.mismatch=0.0"
            )
        self.match, self.mismatch = float(match), float(mismatch)
        self.is_match_indicator = (match, mismatch) == (1, 0)

    @property
    def bounds(self) -> Bounds:
        return Bounds(min(self.match, self.mismatch), max(self.match, self.mismatch))

    def _start(self, reference_EH: Tensor) -> State:
        return {"reference_EH": reference_EH, "time_E": torch.zeros_like(reference_EH[:, 0], dtype=torch.int64)}

    def _advance(self, state: State, action_E: Tensor) -> tuple[State, Tensor]:
        reference_EH, time_E = state["reference_EH"], state["time_E"]
        # An environment that is not active may stand behind the last place; its reward is masked by the caller.
        place_E1 = time_E.clamp(max=reference_EH.shape[1] - 1)[:, None]
        reward_E = self._judge(action_E, reference_EH.gather(1, place_E1)[:, 0])
        return {"reference_EH": reference_EH, "time_E": time_E + 1}, reward_E

    def row(self, action_BH: Tensor, reference_BH: Tensor) -> Tensor:
        return self._judge(action_BH, reference_BH)

    def all_actions(self, reference_BH: Tensor) -> Tensor:
        shape = (*reference_BH.shape, self.num_actions)
        reward_BHA = torch.full(shape, self.mismatch, dtype=torch.float32, device=reference_BH.device)
        return reward_BHA.scatter_(-1, reference_BH.long()[..., None], self.match)

    def _judge(self, action: Tensor, reference: Tensor) -> Tensor:
        reward = torch.full(action.shape, self.mismatch, dtype=torch.float32, device=action.device)
        return reward.masked_fill_(action == reference, self.match)
