"""Settings of the group `checkpoint`: how often the run is saved, and how many checkpoints are kept."""

from __future__ import annotations

from dataclasses import dataclass

from dqnlm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """See configs/checkpoint/.

    Attributes:
        every: rounds between two checkpoints; None: by the clock alone.
        minutes: minutes between two checkpoints; None: by the count alone.
        keep_last: checkpoints that are kept beside the best policy.

    Raises:
        UserError: a number outside its range.
    """

    every: int | None
    minutes: float | None
    keep_last: int

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise UserError(f"checkpoint.every must be at least 1 or null, not {self.every}")
        if self.minutes is not None and self.minutes <= 0:
            raise UserError(f"checkpoint.minutes must be above 0 (or null), not {self.minutes}")
        if self.keep_last < 1:
            raise UserError(f"checkpoint.keep_last must be at least 1, not {self.keep_last}")

    def is_due(self, rounds_done: int, seconds: float) -> bool:
        """Whether the run is to be saved after so many rounds, and so many seconds after the last checkpoint."""
        by_count = self.every is not None and rounds_done % self.every == 0
        return by_count or (self.minutes is not None and seconds >= self.minutes * 60)
