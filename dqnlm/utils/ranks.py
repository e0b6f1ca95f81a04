"""The processes of one run: one alone, or several that `torchrun` started.

Each process (rank) plays its own environments, holds its own part of the replay buffer, and computes the gradients of its part
of every batch; sums over ranks make them those of the whole batch. Rank 0 writes the run's folder.

Every rank must make the same calls in the same order, as each waits for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Value = TypeVar("Value")
SEEDS_APART = 10**9  # between the seeds of two ranks


class Ranks:
    """One process alone; `process_group.Group` is several of them.

    Attributes:
        rank: number of this process.
        world: number of processes.
        seconds: spent in communication so far.
    """

    rank, world = 0, 1
    seconds = 0.0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's folder and speaks."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """The seed of this rank's random streams."""
        return seed + self.rank * SEEDS_APART

    def device(self, device: torch.device) -> torch.device:
        """The device of this rank, where the run is on `device`."""
        return device

    def total(self, value: Tensor) -> Tensor:
        """Sum over all ranks, of the same shape."""
        return value

    def sum(self, number: int) -> int:
        """Sum over all ranks of a number that the host has."""
        return number

    def add_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replaces each gradient by its sum over all ranks."""

    def least_mass(self, least: Tensor, total: Tensor) -> Tensor:
        """The mass of the least probable row of any rank, in units in which this rank's masses have the sum `total`."""
        del total
        return least

    def most(self, *values: int) -> list[int]:
        """The greatest of each value over all ranks."""
        return list(values)

    def share(self, make: Callable[[], Value]) -> Value:
        """What `make` returns on rank 0, where alone it is called, on every rank."""
        return make()

    def gather(self, value: Value) -> list[Value]:
        """On rank 0 the values of the other ranks in their order; [] elsewhere."""
        del value
        return []

    def explaining_losses(self) -> AbstractContextManager[None]:
        """Around communication that torch does by itself; a lost rank is a UserError as everywhere."""
        return nullcontext()

    def leave(self, code: int) -> None:
        """Called at the end of the process, which exits with `code`."""


ALONE = Ranks()
