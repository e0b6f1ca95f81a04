"""Replay with equal probability (Lin 1992; Mnih et al. 2015)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from dqnlm.buffers.base import Buffer, Place, Setup
from dqnlm.buffers.sum_tree import SumTree, leaves
from dqnlm.types import Batch, Rows


class UniformBuffer(Buffer):
    """Samples rows, or decisions, uniformly with replacement. Arguments: see `Buffer`."""

    def __init__(
        self, setup: Setup, *, capacity: int | None, sample: Literal["rows", "transitions"], place: Place
    ) -> None:
        super().__init__(setup, capacity=capacity, sample=sample, place=place)
        self.can_mix_demonstrations = sample == "rows"
        leaf_N = leaves(self.rows + 1, torch.int32, self.device)
        self.tree = SumTree(leaf_N, self.rows) if sample == "transitions" else None

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        slot_B = self.storage.add(rows, keep_B)
        if self.tree is not None:
            self.tree.leaf_N[slot_B] = self.storage.decisions_C[slot_B].int()
            self.tree.leaf_N[self.rows : self.rows + 1] = 0  # written by rows not kept; a slice is filled, not copied to
            self.tree.refresh(slot_B)

    def sample(self, batch_size: int) -> Batch:
        """`rows`: each row (or group) is equally likely. `transitions`: each decision, so long rows come more often.
        """
        if self.tree is None:
            groups = self.storage.filled() // self.copies
            return self._whole((self._random(batch_size // self.copies) * groups).long())
        row_B, number_B = self.tree.find((self._random(batch_size) * self.tree.total()).floor())
        return self._windows(row_B, self.storage.decision_time(row_B, number_B.long()))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.tree is not None:
            self.tree.leaf_N[: self.rows] = self._decisions_C()
            self.tree.rebuild()
