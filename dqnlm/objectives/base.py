"""What is learned from a batch. The learner sums the objectives of a run with their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from dqnlm.types import Batch


class Result(NamedTuple):
    """What one objective says of a batch.

    Attributes:
        loss_BT: elementwise; the learner masks, weights and averages it.
        figures: name -> elementwise tensor over [B, T]; logged as masked means.
    """

    loss_BT: Tensor
    figures: dict[str, Tensor]


class Objective(ABC):
    """`objective(online, target, batch)`; the outputs begin at `batch.first`, and so do the fields that it must use.

    Attributes:
        needs_target: a forward of the target network is made for it.
        needs_last: reads outputs for the last observation of a row, so S = T + 1 observations are fed.
    """

    needs_target = False
    needs_last = False

    def __init__(self, weight: float) -> None:
        self.weight = weight

    @abstractmethod
    def __call__(self, online: dict[str, Tensor], target: dict[str, Tensor] | None, batch: Batch) -> Result:
        """Raw outputs of the networks for times first..T (or ..T-1 without `needs_last`) to losses."""
