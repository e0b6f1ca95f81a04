"""What an environment is: E copies that move together, with masked auto-reset. Those on tokens are tensor code.

On tokens, between `reset` and any later point nothing may synchronise with the host: no `.item()`, no `bool(tensor)`, no
`nonzero`. What the host must know to run the loop, it knows without reading a tensor: `lockstep`, `parallel`,
`row_transitions`, `first_decision`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from dqnlm.types import Bounds, Rows, TimeStep
from dqnlm.utils.context import RunContext


class RunsOfIds(Protocol):
    """Token ids of many texts, end to end; text k stands in ids[start_K[k] : start_K[k + 1]]."""

    @property
    def ids(self) -> Tensor: ...

    @property
    def start_K(self) -> Tensor: ...

    def longest(self) -> int: ...


class Environment(ABC):
    """E episodes at once.

    Attributes:
        num_envs: E.
        num_actions: A.
        observation_size: F of vector observations, float32; 0 where observations are tokens.
        num_tokens: token ids that can be observed; 0 where observations are vectors.
        alphabet: the character of each token id, where the environment brings its own; None where a text gives them.
        row_transitions: T, the longest row.
        episode_steps: most calls of `step` in one episode.
        first_decision: no row has a decision before this time.
        device: where observations live and actions are expected.
        copies: consecutive environments come in groups of so many that see the same observations (`parallel` only).
        generated: whole episodes are written at once, each to its own end: `prompts` and `judge` in the place of `step`.
        stop_id: token that ends an episode when chosen; None for none.
        playable: there is something to play; else rows come from logged data alone.
        parallel: observations do not depend on actions, so that `reveal` and `score` may be used.
        uneven: rows differ so much in length that each batch is cut to its longest row, which asks the host.
        lockstep: all episodes start and end at the same time, which the host knows.
        interleaved: steps without a decision may follow a decision in the same row.
        restart: where an episode goes on in a new row, that row begins with so many last observations of the old one and
            nothing before them, so their value is to be read without it; 0 where this makes no difference.
        cuts_rows: a row may end without its episode's termination, so that its last observation has a value.
        exact_resume: `load_state_dict` puts back the very episodes; else it starts new ones.
        actions_are_observed: the action of each step is the token observed next.
    """

    num_envs: int
    num_actions: int
    num_tokens: int
    observation_size: int = 0
    alphabet: str | None = None
    row_transitions: int
    episode_steps: int
    first_decision: int
    device: torch.device
    copies: int = 1
    generated: bool = False
    uneven: bool = False
    stop_id: int | None = None
    playable: bool = True
    parallel: bool = False
    lockstep: bool = False
    interleaved: bool = False
    restart: int = 0
    cuts_rows: bool = False
    actions_are_observed: bool = False
    exact_resume: bool = True

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @abstractmethod
    def reset(self) -> Tensor:
        """Starts a new episode everywhere; the random generator goes on. Returns observation_E (int64), or _EF."""

    @abstractmethod
    def step(self, action_E: Tensor) -> TimeStep:
        """Takes one action in every copy; copies whose episode ended start a new one.

        Args:
            action_E: int64, in [0, A). Ignored where the step is no decision.
        """

    def skip_prompt(self) -> Tensor | None:
        """Moves all copies past the observations that no action can change, when all stand at time 0 in lockstep.

        Returns:
            observation_EP, int64: the first P observations; the first action to choose follows the last of them, and
            the P - 1 steps between them have flag 0 and reward 0. None, with nothing changed, where that is not
            possible or P is 1.
        """
        return None

    def reveal(self) -> Tensor:
        """All observations of the episodes that stand at time 0: observation_ES, int64. `parallel` only."""
        raise NotImplementedError(f"{type(self).__name__} shows what follows only step by step")

    def score(self, action_ET: Tensor) -> Rows:
        """Plays whole episodes, those that `reveal` shows, and starts new ones. `parallel` only.

        Args:
            action_ET: int64; ignored (but handed back) at steps without a decision.

        Returns:
            Rows of E whole episodes, equal to what `step` would have answered.
        """
        raise NotImplementedError(f"{type(self).__name__} is played only step by step")

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Begins new episodes everywhere: prompt_EP, int64, right-padded with 0, and its length_E. `generated` only."""
        raise NotImplementedError(f"{type(self).__name__} has no prompts to answer")

    def judge(self, action_EH: Tensor, length_E: Tensor) -> Rows:
        """What the answers to the latest `prompts` were worth. `generated` only.

        Args:
            action_EH: int64, the decisions, right-padded; H is `horizon`.
            length_E: how many of them count, at least 1.

        Returns:
            Rows of E whole episodes.
        """
        raise NotImplementedError(f"{type(self).__name__} judges step by step")

    def demonstrate(self, count: int, generator: torch.Generator, judged: bool) -> Rows | None:
        """Whole episodes of this task in which every decision is the reference's; the running episodes are left alone.

        Args:
            count: rows.
            generator: draws them, on this device.
            judged: whether their rewards are wanted (else they are 0).

        Returns:
            Rows as wide as `row_transitions`, with every flag; None where the task has no references.
        """
        return None

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        """Which actions may be chosen after each observation: bool, broadcastable to BSA; None if all may always."""
        return None

    @abstractmethod
    def return_bounds(self, gamma: float) -> Bounds:
        """Bounds of the discounted return from any decision."""

    @property
    @abstractmethod
    def reward_bounds(self) -> Bounds:
        """Bounds of the reward of one decision."""

    def references(self) -> dict[str, float]:
        """Mean returns that are known without learning ("optimal", "uniform"), for the table; may be {}."""
        return {}

    def notes(self) -> list[str]:
        """What a user should know of what is played, one sentence each; may be []."""
        return []

    def reward_parts(self) -> dict[str, Tensor]:
        """Unweighted parts of the latest rewards, for the log; may be {}.

        (E,) after `step`, (E, H) after `score`; after a step with `judged_ET`, those of the decisions of the rows that end.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything the future depends on, the random generator's state included: tensors and numbers in dicts."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave, on this device; the same actions then have the same future."""
