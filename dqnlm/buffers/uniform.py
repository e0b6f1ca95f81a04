"""Replay with equal probability (Lin 1992; Mnih et al. 2015)."""

from __future__ import annotations

from typing import Literal

import torch

from dqnlm.buffers.base import Buffer, Setup
from dqnlm.types import Batch


class UniformBuffer(Buffer):
    """Samples rows, or decisions, uniformly with replacement. Arguments: see `Buffer`."""

    def __init__(self, setup: Setup, *, capacity: int | None, sample: Literal["rows", "transitions"]) -> None:
        super().__init__(setup, capacity=capacity, sample=sample)
        self.can_mix_demonstrations = sample == "rows"

    def sample(self, batch_size: int) -> Batch:
        """`rows`: each row (or group) is equally likely. `transitions`: each decision, so long rows come more often.
        """
        if self.mode == "rows":
            groups = self.storage.filled() // self.copies
            return self._whole((self._random(batch_size // self.copies) * groups).long())
        decisions_C = self._decisions_C()
        end_C = decisions_C.cumsum(0)
        place_B = (self._random(batch_size) * end_C[-1]).long()
        row_B = torch.searchsorted(end_C, place_B, right=True).clamp(max=self.rows - 1)
        number_B = place_B - (end_C[row_B] - decisions_C[row_B])
        return self._windows(row_B, self.storage.decision_time(row_B, number_B))
