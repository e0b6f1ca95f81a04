"""On-policy buffer: epochs over the rows of the latest rollout, without replacement (as PQN, Gallici et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.buffers.base import Buffer, Setup
from dqnlm.types import Batch, Rows


class RolloutBuffer(Buffer):
    """Draws each row that ended in the latest rollout once, in random order, and then starts a new epoch.

    How many rows a rollout adds is known on the device only (episodes may end at any time). Where one adds none, the
    rows of the one before stay; where it adds more than `capacity` holds, the newest are kept. Before any rollout
    (logged data) all rows count as one.

    Args:
        capacity: transitions that one rollout may add, where a row counts as its longest. The others: see `Buffer`.
    """

    draws_whole_rollouts = True

    def __init__(self, setup: Setup, *, capacity: int | None) -> None:
        super().__init__(setup, capacity=capacity, sample="rows")
        device = setup.device

        def number() -> Tensor:
            return torch.zeros((), dtype=torch.int64, device=device)

        # Rows are numbered since the start of the run: `start` is the first of the latest rollout, `seen` the first that
        # no `begin` and no `sample` has seen.
        self.start, self.seen = number(), number()
        self.order_G = torch.zeros(self.rows // self.copies, dtype=torch.int64, device=device)
        self.left = number()  # groups of `order_G` still to draw in this epoch, the last ones of the rollout's

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        """Appends rows (those with keep_B True), overwriting the oldest; a running epoch ends."""
        super().add(rows, keep_B)
        self.left.zero_()

    def begin(self) -> None:
        """Discards the rows of earlier rollouts, if this one has any, and begins a new epoch."""
        added = self.storage.added
        self.start.copy_(torch.where(added > self.seen, self.seen, self.start))
        self.seen.copy_(added)
        self.left.zero_()

    def sample(self, batch_size: int) -> Batch:
        """The next rows of this epoch. A batch larger than the rest of it continues with the next epoch's rows."""
        self.seen.copy_(self.storage.added)
        groups, count = batch_size // self.copies, self._groups().clamp(min=1)
        shuffled_G = self._shuffled()
        place_G = torch.arange(groups, device=self.device)
        from_old_G = self.order_G[(count - self.left + place_G).clamp(max=len(self.order_G) - 1)]
        group_G = torch.where(place_G < self.left, from_old_G, shuffled_G[(place_G - self.left) % count])
        over = self.left < groups
        self.order_G.copy_(torch.where(over, shuffled_G, self.order_G))
        self.left.copy_((self.left - groups) % count)  # no less than 0: Python's remainder
        return self._whole(group_G)

    def _groups(self) -> Tensor:
        """Number of groups of rows in the latest rollout, a scalar."""
        return (self.storage.added - self.start).clamp(max=self.rows) // self.copies

    def _is_latest_G(self) -> Tensor:
        """bool: groups of the latest rollout, by their age (0 is the newest)."""
        total = self.rows // self.copies
        place_G = torch.arange(total, device=self.device)
        age_G = (self.storage.added // self.copies - 1 - place_G) % total
        return age_G < self._groups()

    def _shuffled(self) -> Tensor:
        """Group numbers: those of the latest rollout in random order, then the others."""
        key_G = self._random(self.rows // self.copies)
        return torch.where(self._is_latest_G(), key_G, 2.0).argsort()

    def _decisions_C(self) -> Tensor:
        return super()._decisions_C() * self._is_latest_G().repeat_interleave(self.copies)

    def _tensors(self) -> dict[str, Tensor]:
        own = {"start": self.start, "seen": self.seen, "order_G": self.order_G, "left": self.left}
        return super()._tensors() | own
