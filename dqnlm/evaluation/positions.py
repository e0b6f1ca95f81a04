"""Q after many positions of a text, and the token after each, in blocks that can be iterated repeatedly.

With a large vocabulary Q of all positions does not fit into memory, so sums are computed block by block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_NUMBERS = 2**24  # numbers in a block: 64 MiB of float32, and a few times that while they are worked on


class LogitSource(ABC):
    """N positions of a text with Q and target.

    Attributes:
        target_N: int64, the token that came.
        num_actions: A.
    """

    target_N: Tensor
    num_actions: int

    def __len__(self) -> int:
        return len(self.target_N)

    @abstractmethod
    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(q_MA, target_M) of all positions, in order."""

    @abstractmethod
    def where(self, index_M: Tensor) -> LogitSource:
        """A subset of the positions, by their indices (int64, increasing)."""

    def every(self, stride: int) -> LogitSource:
        """Every `stride`-th position."""
        return self.where(torch.arange(0, len(self), stride, device=self.target_N.device))

    def halves(self) -> tuple[LogitSource, LogitSource]:
        """The first half, and the rest."""
        index_N = torch.arange(len(self), device=self.target_N.device)
        return self.where(index_N[: len(self) // 2]), self.where(index_N[len(self) // 2 :])

    def held(self) -> CachedLogits:
        """All positions as tensors in memory."""
        blocks = list(self.blocks())
        return CachedLogits(torch.cat([q_MA for q_MA, _ in blocks]), torch.cat([target_M for _, target_M in blocks]))


class CachedLogits(LogitSource):
    """Positions in memory: q_NA float32, -inf at illegal actions, and target_N."""

    def __init__(self, q_NA: Tensor, target_N: Tensor) -> None:
        self.q_NA, self.target_N, self.num_actions = q_NA, target_N, q_NA.shape[-1]

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(BLOCK_NUMBERS // self.num_actions, 1)
        yield from zip(self.q_NA.split(size), self.target_N.split(size), strict=True)

    def where(self, index_M: Tensor) -> CachedLogits:
        return CachedLogits(self.q_NA[index_M], self.target_N[index_M])

    def halves(self) -> tuple[CachedLogits, CachedLogits]:
        middle = len(self) // 2
        return CachedLogits(self.q_NA[:middle], self.target_N[:middle]), CachedLogits(self.q_NA[middle:], self.target_N[middle:])

    def every(self, stride: int) -> CachedLogits:
        return CachedLogits(self.q_NA[::stride], self.target_N[::stride])

    def held(self) -> CachedLogits:
        return self
