"""The components of a run, for the trainer and for inspection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dqnlm.agent.actor import Actor
from dqnlm.agent.demonstrations import Demonstrations, Pretraining
from dqnlm.agent.exploration import Exploration
from dqnlm.agent.learner import Learner
from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.envs.base import Environment
from dqnlm.evaluation.base import Evaluator
from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.metrics import Accumulator, Logger
from dqnlm.runs.checkpoint import Checkpoints
from dqnlm.runs.console import RunConsole
from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.settings import CheckpointSettings
from dqnlm.tasks.base import Task
from dqnlm.training.phases import Acting
from dqnlm.utils.context import RunContext
from dqnlm.utils.ranks import ALONE, Ranks


@dataclass
class Components:
    """The objects of one run, put together by the builder."""

    directory: RunDirectory
    console: RunConsole
    logger: Logger
    task: Task
    policy: Policy
    actor: Actor | None  # None where nothing can be played
    exploration: Exploration
    buffer: Buffer
    learner: Learner
    evaluator: Evaluator
    evaluation: EvaluationSettings
    saving: CheckpointSettings
    accumulator: Accumulator
    checkpoints: Checkpoints
    fingerprint: str  # of the data: a run resumes only on the data that it was trained on
    episode_decisions: int  # most decisions in a row
    logged_rows: int  # rows of logged data that the buffer began with
    context: RunContext  # facts of the run and flags of its parts
    make_acting: Callable[[int | None], Acting] | None = None  # from the steps of a rollout; None where nothing can be played
    acting: Acting | None = None  # plays the rollouts, where there are any
    ranks: Ranks = ALONE  # the processes of the run
    steps_of_all_ranks: int = 0  # of all environments of all ranks, at the last rollout
    notes: list[str] = field(default_factory=list)  # kept in the summary
    pretraining: Pretraining | None = None  # behaviour cloning before the first round of the run's own objectives
    demonstrations: Demonstrations | None = None  # the data's own answers, mixed into batches

    @property
    def env(self) -> Environment:
        """The training environment."""
        return self.task.env

    @property
    def env_steps(self) -> int:
        """Steps of all environments together, until the last rollout; 0 without rollouts."""
        return self.steps_of_all_ranks

    def count_env_steps(self) -> None:
        """Counts `env_steps`, over all ranks."""
        if self.actor is not None:
            self.steps_of_all_ranks = self.ranks.sum(self.actor.env_steps)

    @property
    def episodes(self) -> float:
        """Episodes that have ended, over all ranks; 0 without rollouts. Syncs with the device."""
        return 0.0 if self.actor is None else float(self.ranks.total(self.actor.episodes))

    @property
    def updates(self) -> int:
        """Gradient steps so far, those of the pretraining included."""
        return self.learner.updates + (0 if self.pretraining is None else self.pretraining.learner.updates)
