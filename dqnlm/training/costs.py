"""What the rest of a run takes: seconds of a round of each phase, of an evaluation and of a checkpoint.

They are first measured in small (`training.measuring`), then on the run itself: the more rounds of a phase are done, the less the
first measurement counts. What stands in the header and what stands beside the progress bar are the same sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.runs.console import clock
from dqnlm.runs.settings import CheckpointSettings
from dqnlm.training.phases import Phase

TRUSTED = 0.1  # share of a phase after which only its own rounds count


@dataclass
class Mean:
    """Seconds of something that is done again and again.

    Attributes:
        expected: of one, before any was timed; None where nothing is known.
        count, total: of those that were timed.
    """

    expected: float | None = None
    count: int = 0
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.count, self.total = self.count + 1, self.total + seconds

    def lengthen(self, seconds: float) -> None:
        """Adds to what was timed, such as the wait for a device that was still at work."""
        self.total += seconds

    def each(self, trusted: float = 1.0) -> float | None:
        """Seconds of the next one; after `trusted` of them what was expected no longer counts. None: nothing is known."""
        if not self.count:
            return self.expected
        share = 1.0 if self.expected is None else min(self.count / max(trusted, 1.0), 1.0)
        return (1 - share) * (self.expected or 0.0) + share * self.total / self.count


@dataclass
class Left:
    """Seconds of the rest of a run, by what they are spent on."""

    training: float
    evaluations: int
    evaluating: float
    saving: float

    @property
    def seconds(self) -> float:
        return self.training + self.evaluating + self.saving


def estimate_line(left: Left | None, preflight_s: float) -> str:
    """The length of a run, as it is said after the preflight, which took so long."""
    if left is None:
        return "estimate: not known before the first rounds are done (no episode ended in a short try)"
    evaluations = f"{left.evaluations} evaluation{'' if left.evaluations == 1 else 's'} {clock(left.evaluating)}"
    return (
        f"estimate: about {clock(left.seconds)} (training {clock(left.training)}, {evaluations}, saving {clock(left.saving)}; "
        f"measured in small within {preflight_s:.1f} s)"
    )


@dataclass
class Costs:
    """See the module's text.

    Attributes:
        phases: of the run, in their order.
        evaluation, saving: when is evaluated and saved.
        rounds: of each phase by name.
        evaluating, checkpoint: of one evaluation, of one checkpoint.
        once: seconds that the first evaluation takes beyond the others.
    """

    phases: Sequence[Phase]
    evaluation: EvaluationSettings
    saving: CheckpointSettings
    rounds: dict[str, Mean] = field(init=False)
    evaluating: Mean = field(default_factory=Mean)
    checkpoint: Mean = field(default_factory=Mean)
    once: float = 0.0

    def __post_init__(self) -> None:
        self.rounds = {phase.name: Mean() for phase in self.phases}

    @contextmanager
    def timed(self, what: Mean) -> Iterator[None]:
        """Times one more of something; what ends in an error is not counted."""
        began = perf_counter()
        yield
        what.add(perf_counter() - began)

    def left(self, rounds_done: int) -> Left | None:
        """The rest of the run after so many rounds; None while nothing is known of a phase that is to come."""
        training = 0.0
        for phase in self.phases:
            each = self.rounds[phase.name].each(TRUSTED * phase.rounds)
            rounds = phase.end - max(rounds_done, phase.first_round)
            if rounds > 0:
                if each is None:
                    return None
                training += rounds * each
        evaluations = self.evaluations_left(rounds_done)
        evaluating = evaluations * (self.evaluating.each() or 0.0)
        evaluating += self.once if evaluations and not self.evaluating.count else 0.0
        saves = self._saves_left(rounds_done, training + evaluating)
        return Left(training, evaluations, evaluating, saves * (self.checkpoint.each() or 0.0))

    def evaluations_left(self, rounds_done: int) -> int:
        """Each `evaluation.every` rounds, after the pretraining, and at the end."""
        every, end = self.evaluation.every, self.phases[-1].end
        extra = {phase.end for phase in self.phases if phase.name == "pretraining"} | {end}
        single = sum(rounds > rounds_done and rounds % every != 0 for rounds in extra)
        return end // every - rounds_done // every + single

    def _saves_left(self, rounds_done: int, seconds: float) -> int:
        """By the count or by the clock, and at the end."""
        end, every, minutes = self.phases[-1].end, self.saving.every, self.saving.minutes
        by_count = 0 if every is None else (end - 1) // every - rounds_done // every
        by_clock = 0 if minutes is None else math.floor(seconds / (60 * minutes))
        return max(by_count, by_clock, 0) + (rounds_done < end)
