"""The environment interface: E parallel episodes with masked auto-reset. Environments on tokens are tensor code.

On tokens, between `reset` and any later point nothing may synchronise with the host: no `.item()`, no `bool(tensor)`, no
`nonzero`. The facts that the host needs to run the loop are in `spec`.

Three ways of playing, each a class of its own; an environment may offer several:

    StepEnvironment      one action of every copy at a time
    TeacherForced        observations do not depend on actions: whole episodes in one forward pass
    CompletesPrompts     whole completions of prompts at once, each to its own end
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from dqnlm.types import Bounds, Rows, TaskSpec, TimeStep
from dqnlm.utils.context import RunContext


class Environment(ABC):
    """Base class of environments: the facts and methods of every task, whether it can be played or not.

    Attributes:
        task: the kind of work that an environment of this class belongs to: `text`, `answers`, `log` or `environment` (a key
            of `dqnlm.tasks.select.TASKS`), or a `Task` class of one's own.
        spec: the static facts of the task.
        num_envs: E.
        device: where observations live and actions are expected.
    """

    task: ClassVar[str | type] = "environment"
    spec: TaskSpec
    num_envs: int
    device: torch.device

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this environment cannot work in a run like this one; called once, when all parts are built."""

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        """Mask of the legal actions after each observation: bool, broadcastable to BSA; None if all are always legal."""
        return None

    @abstractmethod
    def return_bounds(self, gamma: float) -> Bounds:
        """Bounds of the discounted return from any decision."""

    @property
    @abstractmethod
    def reward_bounds(self) -> Bounds:
        """Bounds of the reward of one decision."""

    def demonstrate(self, count: int, generator: torch.Generator, with_rewards: bool) -> Rows | None:
        """Demonstrations: whole episodes of this task with the reference's actions; the running episodes do not change.

        Args:
            count: rows.
            generator: draws them, on this device.
            with_rewards: whether to compute their rewards (else they are 0).

        Returns:
            Rows as wide as `spec.row_transitions`, with every flag; None where the task has no references.
        """
        return None

    def references(self) -> dict[str, float]:
        """Mean returns that are known without learning ("optimal", "uniform"), for the results table; may be {}."""
        return {}

    def notes(self) -> list[str]:
        """Notes for the user about the task, one sentence each; may be []."""
        return []

    def contents(self) -> dict[str, str]:
        """Setting of `env` that names a file which this part reads in its own way -> sha256 of what was read; may be {}."""
        return {}

    def describe(self) -> str:
        """The task's name and size beyond `spec`, for the run summary; "" if there is nothing to add."""
        return ""

    def reward_parts(self) -> dict[str, Tensor]:
        """Unweighted components of the latest rewards, for the log; may be {}.

        (E,) after `step`, (E, H) after `score_actions`; after a step with `sequence_reward_ET`, those of the decisions of the
        rows that end.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The complete state, that of the random generator included: tensors and numbers in dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restores a state of `state_dict` on this device; the same actions then have the same results."""


class StepEnvironment(Environment):
    """An environment that is played one action at a time."""

    def check(self, context: RunContext) -> None:
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @abstractmethod
    def reset(self) -> Tensor:
        """Starts a new episode everywhere; the random generator goes on. Returns observation_E (int64), or _EF."""

    @abstractmethod
    def step(self, action_E: Tensor) -> TimeStep:
        """Takes one action in every environment; those whose episode ended start a new one.

        Args:
            action_E: int64, in [0, A). Ignored where the step is no decision.
        """

    def legal_next(self, observation_E: Tensor) -> Tensor | None:
        """Legal actions of the next step, bool, broadcastable to (E, A); None where all are.

        Args:
            observation_E: int64, or _EF: the latest observations, by which alone `legal` knows what is legal unless this is
                overridden.
        """
        legal = self.legal(observation_E[:, None])
        return legal if legal is None or legal.dim() < 3 else legal[:, 0]

    def skip_prompt(self) -> Tensor | None:
        """Advances all environments past the prompt, which no action can change, when all stand at time 0 in lockstep.

        Returns:
            observation_EP, int64: the first P observations; the first action to choose follows the last of them, and
            the P - 1 steps between them have flag 0 and reward 0. None, with nothing changed, where that is not
            possible or P is 1.
        """
        return None

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TeacherForced(Environment):
    """An environment whose observations do not depend on actions; used where `spec.teacher_forced`."""

    @abstractmethod
    def reset(self) -> Tensor:
        """Starts new episodes everywhere; returns their first observation_E."""

    @abstractmethod
    def teacher_forced_observations(self) -> Tensor:
        """All observations of the episodes that stand at time 0: observation_ES, int64."""

    @abstractmethod
    def score_actions(self, action_ET: Tensor) -> Rows:
        """Scores whole episodes, those of `teacher_forced_observations`, and starts new ones.

        Args:
            action_ET: int64; ignored (but handed back) at steps without a decision.

        Returns:
            Rows of E whole episodes, equal to those that `step` would give.
        """


class CompletesPrompts(Environment):
    """An environment that scores whole completions of prompts.

    Attributes:
        max_new_tokens: most decisions in a completion, the end token included.
    """

    max_new_tokens: int

    @abstractmethod
    def prompts(self) -> tuple[Tensor, Tensor]:
        """Starts new episodes everywhere: prompt_EP, int64, right-padded with 0, and its length_E."""

    @abstractmethod
    def score_completions(self, action_EH: Tensor, length_E: Tensor) -> Rows:
        """Rewards of the completions of the latest `prompts`.

        Args:
            action_EH: int64, the decisions, right-padded; H is `max_new_tokens`.
            length_E: how many of them count, at least 1.

        Returns:
            Rows of E whole episodes.
        """
