"""Behaviour cloning: -log softmax(raw)[a] of the actions in the data. No reward, no target, no bootstrap."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dqnlm.objectives.base import Objective, Result
from dqnlm.types import Batch


class CrossEntropy(Objective):
    """loss_BT = logsumexp_a raw - raw[a]. The raw outputs are then logits of a policy, not returns."""

    def __init__(self, *, weight: float) -> None:
        super().__init__(weight)

    def __call__(self, online: dict[str, Tensor], target: dict[str, Tensor] | None, batch: Batch) -> Result:
        action_BT = batch.action_BT[:, batch.first :]
        raw_BTA = online["q"].squeeze(-1)[:, : action_BT.shape[1]].float()
        loss_BT = F.cross_entropy(raw_BTA.flatten(0, 1), action_BT.flatten(), reduction="none").view(action_BT.shape)
        return Result(loss_BT, {"policy/accuracy": (raw_BTA.argmax(-1) == action_BT).float()})
