"""No reward of the run's own: what is learned from a log are the log's rewards, and nobody judges other answers."""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.rewards.base import Episodes, JudgedReward
from dqnlm.types import Bounds


class NoReward(JudgedReward):
    """Pays nothing."""

    pays_nothing = True

    @property
    def bounds(self) -> Bounds:
        return Bounds(0.0, 0.0)

    def judge(self, episodes: Episodes) -> Tensor:
        return torch.zeros(episodes.action_BH.shape, device=episodes.action_BH.device)
