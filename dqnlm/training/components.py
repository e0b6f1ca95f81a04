"""What a run is made of, for the trainer and for what looks at a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from dqnlm.agent.actor import Actor
from dqnlm.agent.demonstrations import Demonstrations, WarmStart
from dqnlm.agent.exploration import Exploration
from dqnlm.agent.learner import Learner
from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.evaluation.episodes import EpisodeEvaluator
from dqnlm.evaluation.logged import LogEvaluator
from dqnlm.evaluation.text import TextEvaluator
from dqnlm.metrics import Accumulator, Logger
from dqnlm.runs.checkpoint import Checkpoints
from dqnlm.runs.console import RunConsole
from dqnlm.runs.directory import RunDirectory
from dqnlm.utils.context import RunContext

Evaluator = TextEvaluator | EpisodeEvaluator | LogEvaluator
OF_TEXT = ("eval/accuracy", "eval/nats", "eval/nats_softmax", "eval/return")


@dataclass
class Parts:
    """The builder fills it in."""

    directory: RunDirectory
    console: RunConsole
    logger: Logger
    policy: Policy
    actor: Actor
    exploration: Exploration
    buffer: Buffer
    learner: Learner
    evaluator: Evaluator
    accumulator: Accumulator
    checkpoints: Checkpoints
    fingerprint: str  # of the data: a run resumes only on what it was trained on
    episode_decisions: int  # of one environment, for schedules that count episodes
    logged_rows: int  # rows of logged data that the buffer began with
    context: RunContext  # facts of the run and flags of its parts
    notes: list[str] = field(default_factory=list)  # kept in the summary
    warm_start: WarmStart | None = None  # cloning before the first round of the run's own objectives
    demonstrations: Demonstrations | None = None  # the text's own answers, mixed into batches

    @property
    def by_episodes(self) -> bool:
        """Whether evaluations are episodes alone, without a text."""
        return isinstance(self.evaluator, EpisodeEvaluator)

    @property
    def best_metrics(self) -> tuple[str, ...]:
        """Figures of the evaluations that the best policy can be chosen by, the default first."""
        if isinstance(self.evaluator, LogEvaluator):
            return self.evaluator.best_metrics
        return ("eval/return",) if self.by_episodes else OF_TEXT

    @property
    def updates(self) -> int:
        """Gradient steps so far, those of the warm start included."""
        return self.learner.updates + (0 if self.warm_start is None else self.warm_start.cloner.updates)
