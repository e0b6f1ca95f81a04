"""One process's part of rows that all processes of a run are given."""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.buffers.base import Buffer
from dqnlm.types import Rows
from dqnlm.utils.ranks import Ranks


class Shard:
    """The part of a buffer that is given all rows and keeps those of one rank: every `world`-th group of them.

    It is filled like the buffer itself.
    """

    def __init__(self, buffer: Buffer, ranks: Ranks) -> None:
        self.buffer, self.ranks, self.storage = buffer, ranks, buffer.storage
        self.rows = buffer.rows * ranks.world
        self._seen = 0

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        """Keeps this rank's part of the rows."""
        assert keep_B is None, "logged rows are all kept"
        number_B = torch.arange(self._seen, self._seen + len(rows.length_B), device=rows.length_B.device)
        self._seen += len(rows.length_B)
        own_B = (number_B // self.buffer.copies) % self.ranks.world == self.ranks.rank
        self.buffer.add(Rows(**{name: value[own_B] for name, value in vars(rows).items()}))
