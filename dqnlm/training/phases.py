"""The phases of a run. Each is a number of rounds; a round is a rollout, where the phase has one, and some updates.

    pretraining   behaviour cloning of demonstrations; a learner, an optimizer and batches of its own
    offline       updates on logged data
    online        a rollout of the actor, then updates on replayed rows
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from dqnlm.agent.demonstrations import Demonstrations
from dqnlm.agent.learner import Learner
from dqnlm.buffers.base import Buffer
from dqnlm.metrics import Metrics
from dqnlm.types import Batch

MakeRemote = Callable[[int, str, int | None], tuple[type, tuple[Any, ...]]]  # see `ray_actors.RayActors`


class Acting(ABC):
    """Plays one rollout of all environments at a time: its rows go to the replay buffer, its figures to the metrics."""

    @abstractmethod
    def play(self, progress: float) -> None:
        """One rollout, at this progress of the online phase in [0, 1)."""

    def metrics(self) -> Metrics:
        """Counts since the start, for the log points."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Ends what was started. May be called more than once."""


class Sampler(Protocol):
    """Where the batches of a phase come from."""

    def advance(self, rounds_done: int) -> None:
        """Moves schedules to the course of the run."""

    def sample(self) -> Batch:
        """The next batch."""

    def update_priorities(self, batch: Batch, error_BT: Tensor | None) -> None:
        """Reports the errors that the update with `batch` found, target less prediction."""


class DemonstrationSampler:
    """Batches of demonstrations without rewards."""

    def __init__(self, demonstrations: Demonstrations, batch_size: int, trims: bool) -> None:
        self.demonstrations, self.batch_size, self.trims = demonstrations, batch_size, trims

    def advance(self, rounds_done: int) -> None:
        pass

    def sample(self) -> Batch:
        batch = self.demonstrations.batch(self.batch_size, with_rewards=False)
        return batch.trim() if self.trims else batch

    def update_priorities(self, batch: Batch, error_BT: Tensor | None) -> None:
        pass


class ReplaySampler:
    """Batches of the replay buffer; a fraction of each may be demonstrations, with their rewards.

    Args:
        buffer: draws the rest of each batch.
        demonstrations: None for none.
        fraction: of demonstrations in each batch, in [0, 1); at least one row stays experience.
        batch_size: rows in all.
        trims: padding that all rows of a batch have is cut off.
        first_round: of the phases that draw from here.
        rounds: of these phases together; the buffer's schedules span them.
    """

    def __init__(
        self,
        buffer: Buffer,
        demonstrations: Demonstrations | None,
        fraction: float,
        batch_size: int,
        trims: bool,
        first_round: int,
        rounds: int,
    ) -> None:
        self.buffer, self.demonstrations, self.batch_size, self.trims = buffer, demonstrations, batch_size, trims
        self.num_demonstrations = min(round(fraction * batch_size), batch_size - 1)
        self.first_round, self.rounds = first_round, rounds

    def advance(self, rounds_done: int) -> None:
        self.buffer.advance((rounds_done - self.first_round) / self.rounds)

    def sample(self) -> Batch:
        count = self.batch_size if self.demonstrations is None else self.batch_size - self.num_demonstrations
        batch = self.buffer.deliver(self.buffer.sample(count))
        if self.demonstrations is not None:
            batch = batch.concat(self.demonstrations.batch(self.num_demonstrations, with_rewards=True))
            batch.own_B = batch.index_B >= 0  # demonstrations have no place in the buffer
        return batch.trim() if self.trims else batch

    def update_priorities(self, batch: Batch, error_BT: Tensor | None) -> None:
        if self.buffer.device == self.buffer.batch_device:
            self.buffer.update_priorities(batch, error_BT)
        elif self.buffer.needs_errors:  # on the host, which has to wait for the errors
            device = self.buffer.device
            self.buffer.update_priorities(batch.to(device), None if error_BT is None else error_BT.to(device))


@dataclass(frozen=True)
class Phase:
    """Some rounds of a run.

    Attributes:
        name: for progress and messages.
        first_round: rounds of the phases before it.
        rounds: of this phase.
        learner: makes the updates.
        sampler: gives their batches.
        num_updates: how many a round makes, asked after its rollout.
        rollout: plays with exploration, given the phase's progress in [0, 1); None where nothing is played.
        finish: called after the last round; None for nothing.
    """

    name: str
    first_round: int
    rounds: int
    learner: Learner
    sampler: Sampler
    num_updates: Callable[[], int]
    rollout: Callable[[float], None] | None = None
    finish: Callable[[], None] | None = None

    @property
    def end(self) -> int:
        """Rounds of the run when this phase is over."""
        return self.first_round + self.rounds

    def progress(self, rounds_done: int) -> float:
        """Share of the phase that is done."""
        return (rounds_done - self.first_round) / self.rounds
