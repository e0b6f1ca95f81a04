"""No reward function: the run learns from the rewards of the log, and other answers are not scored."""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.rewards.base import Episodes, SequenceReward
from dqnlm.types import Bounds


class NoReward(SequenceReward):
    """A reward of 0 for every decision."""

    is_none = True

    @property
    def bounds(self) -> Bounds:
        return Bounds(0.0, 0.0)

    def judge(self, episodes: Episodes) -> Tensor:
        return torch.zeros(episodes.action_BH.shape, device=episodes.action_BH.device)
