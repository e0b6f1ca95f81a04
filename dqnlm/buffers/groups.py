"""Replay of groups: rows that answer the same prompt are drawn together, from the latest rollout and from older ones."""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.buffers.base import Buffer, Setup
from dqnlm.errors import UserError
from dqnlm.types import Batch
from dqnlm.utils.context import RunContext


class GroupBuffer(Buffer):
    """Draws groups of consecutive rows: those of the latest rollout in turn, so that each is learned from equally often; older
    ones at random, with replacement.

    Args:
        capacity: as of `Buffer`.
        newest: share of the groups of a batch that are of the latest rollout; the others are drawn from all that are kept.

    Raises:
        UserError: a share outside [0, 1], or no room for one group.
    """

    draws_whole_groups = True

    def __init__(self, setup: Setup, *, capacity: int | None, newest: float) -> None:
        super().__init__(setup, capacity=capacity, sample="rows", together=setup.siblings)
        if not 0 <= newest <= 1:
            raise UserError(f"buffer.newest is a share of the groups, in [0, 1], not {newest}")
        self.siblings, self.newest = setup.siblings, newest
        self.groups = self.rows // self.siblings
        self.turn = 0  # groups of the latest rollout drawn since `begin`; checkpoints are between rollouts
        self.start, self.seen = (torch.zeros((), dtype=torch.int64, device=self.device) for _ in range(2))

    def check(self, context: RunContext) -> None:
        """See `Buffer.check`.

        Raises:
            UserError: a batch that is no number of groups.
        """
        if context.batch_size % self.siblings:
            near = max(round(context.batch_size / self.siblings), 1) * self.siblings
            raise UserError(
                f"buffer=groups draws whole groups of env.samples_per_prompt={self.siblings} rows: set trainer.batch_size={near}"
            )

    def begin(self) -> None:
        """Notes which rows are those of the latest rollout."""
        self.turn = 0
        self.start.copy_(self.seen)
        self.seen.copy_(self.storage.added)

    def sample(self, batch_size: int) -> Batch:
        """The next groups of the latest rollout, then any that are kept, each equally likely."""
        count, added = batch_size // self.siblings, self.storage.added // self.siblings
        held = added.clamp(max=self.groups)
        latest = (added - self.start // self.siblings).clamp(min=1).minimum(held)
        new = round(self.newest * count)
        in_turn_N = (self.turn + torch.arange(new, device=self.device)) % latest
        self.turn += new
        age_G = torch.cat([in_turn_N, (self._random(count - new) * held).long()])  # 0: the newest group
        place_G = (added - 1 - age_G) % self.groups
        member_K = torch.arange(self.siblings, device=self.device)
        return self.storage.whole((place_G[:, None] * self.siblings + member_K).flatten(), 1)

    def _tensors(self) -> dict[str, Tensor]:
        return super()._tensors() | {"start": self.start, "seen": self.seen}
