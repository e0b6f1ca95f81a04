"""The interface of tasks: from the data and the settings of a run to its environment, evaluator and logged rows.

A task class belongs to one kind of work. The run's task is that of its environment's class (`Environment.task`); its
data must be of the same kind (`data.task` equals the task's `kind`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.buffers.shard import Shard
from dqnlm.config.schema import instantiate, instantiate_with
from dqnlm.config.selected import option_name
from dqnlm.data.parts import Part
from dqnlm.data.tokenizers.base import CharacterTokenizer, Tokenizer
from dqnlm.data.trajectories.files import DataSource
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.evaluation.base import Evaluator
from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.rewards.base import Reward
from dqnlm.tasks.rewards import build_reward
from dqnlm.types import TaskSpec
from dqnlm.utils import streams

Config = dict[str, Any]


class Data(Protocol):
    """The interface of the objects built by the config group `data`.

    Attributes:
        task: kind of the task that learns from it: `text`, `answers`, `log`, or `environment` for logged episodes of an
            environment and for no data.
        source: its origin, for the manifest.
    """

    task: ClassVar[str]

    @property
    def source(self) -> DataSource: ...

    def fingerprint(self) -> str:
        """Equal exactly if the training data is equal."""


def build_data(config: Config, bundled_allowed: bool = True) -> Any:
    """Builds the data of a run. A run on real text is never continued on the bundled one.

    Raises:
        UserError: a file, a line or a setting that is wrong.
    """
    node = dict(config["data"])
    if not bundled_allowed and "bundled_fallback" in node:
        node["bundled_fallback"] = False
    return instantiate(node)


class Task(ABC):
    """The task of one run; the subclasses are final.

    Args:
        config: the run's settings.
        data: of this kind.
        device: of the environments.
        choices: group -> option as typed, for messages.

    Attributes:
        kind: `Data.task` of the data that it learns from.
        plays: whether the run can have rollouts.
        part: what evaluations score; validation, unless `dqnlm eval` sets another of `parts` before it builds the evaluator.
        has_references: `dqnlm eval` compares answers with references, through `dqnlm.commands.evaluate_answers`.
        eval_options: options of `dqnlm eval` that have a meaning here.
        line_break_ends_turn: in `dqnlm chat` a line of the user, and of the answer, ends in a line break.
        completion_end: text at which a sample of `dqnlm rate` is cut; None for none.
        has_heldout_prompts: `heldout_prompts` gives some.
        has_text: it learns from texts, so that a run on ratings can continue it.
        reward_only_scores: the setting `reward` is what answers are scored by in evaluations; nothing is learned from it.
        rewarded_by: the origin of rewards, where not the setting `reward`, for `dqnlm inspect`; None for that setting.

    Raises:
        UserError: the data is of another kind, or lacks what all data has.
    """

    kind: ClassVar[str]
    plays: ClassVar[bool] = True
    has_references: ClassVar[bool] = False
    eval_options: ClassVar[frozenset[str]] = frozenset()
    line_break_ends_turn: ClassVar[bool] = True
    completion_end: ClassVar[str | None] = None
    has_heldout_prompts: ClassVar[bool] = False
    has_text: ClassVar[bool] = True
    rewarded_by: ClassVar[str | None] = None
    reward_only_scores: ClassVar[bool] = False

    def __init__(
        self, config: Config, data: Any, device: torch.device, choices: Mapping[str, Any] | None = None
    ) -> None:
        self.config, self.data, self.device, self.choices = config, data, device, choices or {}
        self.part: Part = "validation"
        lacking = [name for name in ("task", "source", "fingerprint") if not hasattr(data, name)]
        if lacking:
            raise UserError(
                f"data={self.option('data')}: {type(data).__name__} has no {', '.join(lacking)}, which dqnlm.tasks.base.Data "
                "asks for"
            )
        if data.task != self.kind:
            raise UserError(self._wrong_data())

    def _wrong_data(self) -> str:
        """Message that compares the data that the environment needs with the given data."""
        env, data = self.option("env"), self.option("data")
        if self.data.task == "log":
            return f"data={data} is a log to learn from alone, and env={env} is a task of another kind; set env=logged"
        return self.wanted_data(env, data)

    @abstractmethod
    def wanted_data(self, env: str, data: str) -> str:
        """The message for data of another kind; `env` and `data` are the options that were chosen."""

    def option(self, group: str) -> str:
        """The selected option of a group, as typed."""
        return option_name(self.config, group, self.choices)

    # ---- what a run is made of

    @cached_property
    def env(self) -> Environment:
        """The training environment."""
        return self.make_env(streams.seed_of(self.config["seed"], streams.ENV))

    @abstractmethod
    def make_env(self, seed: int, *, evaluating: bool = False, num_envs: int | None = None) -> Environment:
        """Builds an environment; for an evaluation with this number of copies, on held-out data."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that can be scored; () where the data has no parts, or episodes are played."""
        return ()

    @property
    def spec(self) -> TaskSpec:
        """The static facts of the task."""
        return self.env.spec

    @property
    def reward(self) -> Reward | None:
        """The environment's reward function; None where it has rewards of its own."""
        return None

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None where observations are no characters."""
        alphabet = self.spec.alphabet
        if alphabet is None:
            return None
        tokenizer = CharacterTokenizer(alphabet)
        assert tokenizer.characters == alphabet, "an alphabet is sorted by code point, so that ids are places in it"
        return tokenizer

    @property
    def legal_A(self) -> Tensor | None:
        """Tokens that may be chosen at any time, bool; None for all."""
        return None

    @abstractmethod
    def evaluator(self, settings: EvaluationSettings, *, q_is_return: bool, learns_returns: bool) -> Evaluator:
        """Builds the evaluator of the run's policy.

        Args:
            settings: of the group `evaluation`.
            q_is_return: Q predicts the return in the units of the reward, and may be compared with it.
            learns_returns: an objective makes Q follow the returns, in whatever units.
        """

    def small_evaluator(
        self, settings: EvaluationSettings, *, q_is_return: bool, learns_returns: bool
    ) -> Evaluator:
        """As `evaluator`, on so little data that it takes seconds, to try it out."""
        return self.evaluator(settings, q_is_return=q_is_return, learns_returns=learns_returns)

    @property
    def num_logged_rows(self) -> int:
        """Number of rows of logged data."""
        return 0

    def add_logged_rows(self, buffer: Buffer | Shard, policy: Policy) -> None:
        """Stores the logged rows in the buffer.

        Raises:
            UserError: they do not fit the buffer, or their returns the head's bounds.
        """
        assert self.num_logged_rows == 0, f"{type(self).__name__} has logged rows, and no way to add them"

    def check(self, policy: Policy) -> None:  # noqa: B027
        """Raises UserError where the data does not fit the environment or the network."""

    # ---- what is said of it

    def notes(self) -> list[str]:
        """Notes about data and environment, one sentence each; kept in the run's summary."""
        source = self.data.source
        bundled = "trained on the BUNDLED corpus (a grammar's imitation plays), not on Shakespeare"
        return [*([bundled] if source.bundled else []), *source.notes, *self._conventions(), *self.env.notes()]

    def _conventions(self) -> list[str]:
        """What the tokenizer puts before each prompt."""
        tokenizer = self.tokenizer
        if tokenizer is None or not tokenizer.start_ids:
            return []
        return [f"Prompts begin with {tokenizer.decode(tokenizer.start_ids)}, as the model's tokenizer begins a text."]

    def sizes(self) -> dict[str, int]:
        """Number of rows or tokens by part, for the manifest."""
        return {"logged_rows": self.num_logged_rows}

    def record(self) -> Config:
        """Source, sizes and fingerprint of the data, for the manifest."""
        source = self.data.source
        return {
            "name": source.name, "origin": source.origin, "sha256": source.sha256, "bundled": source.bundled,
            **self.sizes(), "fingerprint": self.data.fingerprint(),
        }  # fmt: skip

    @abstractmethod
    def describe_data(self) -> tuple[str, str]:
        """(label, description) of the data, for the run summary."""

    @abstractmethod
    def describe_env(self, rollout_steps: int | None) -> str:
        """One-line description of the environment, for the run summary."""

    def scored_on(self) -> str:
        """The data scored by `dqnlm eval`, in words."""
        return "greedy episodes"

    def scoring_notes(self, other_data: bool) -> list[str]:
        """Notes about the scores of `dqnlm eval`; `other_data`: on the user's data, not the run's own."""
        return []

    def heldout_prompts(self) -> list[str]:
        """Prompts of the held-out part, each once; [] where the task has none."""
        return []

    # ---- for subclasses

    def instantiate_env(
        self, seed: int, evaluating: bool, num_envs: int | None, dependencies: dict[str, Any]
    ) -> Any:
        """Builds the environment of the group `env`, with its settings and dependencies by parameter name."""
        node = self.config["env"] | ({} if num_envs is None else {"num_envs": num_envs})
        if num_envs is not None and "guesses_per_position" in node:
            node["guesses_per_position"] = 1
        given = {"device": self.device, "seed": seed, "evaluating": evaluating} | dependencies
        return instantiate_with(node, given, "env")

    def build_reward(self, dependencies: dict[str, Any]) -> Reward:
        """Builds the reward of the group `reward`."""
        return build_reward(self.config["reward"], dependencies)


class TokenizedTask(Task):
    """A task whose data has a tokenizer of its own."""

    @property
    def tokenizer(self) -> Tokenizer:
        tokenizer: Tokenizer = self.data.tokenizer
        return tokenizer

    @cached_property
    def legal_A(self) -> Tensor | None:
        return allowed_tokens(self.config, self.tokenizer)


def allowed_tokens(config: Config, tokenizer: Tokenizer) -> Tensor | None:
    """legal_A: the mask of legal tokens, bool; None for all. The unknown token is never legal.

    Raises:
        UserError: env.allowed has characters that the tokenizer does not know.
    """
    allowed = config["env"].get("allowed")
    if allowed is None and tokenizer.unknown_id is None:
        return None
    if allowed is None:
        legal_A = torch.ones(tokenizer.vocabulary_size, dtype=torch.bool)
    else:
        legal_A = torch.zeros(tokenizer.vocabulary_size, dtype=torch.bool)
        legal_A[tokenizer.encode_strict(allowed).long()] = True
    if tokenizer.unknown_id is not None:
        legal_A[tokenizer.unknown_id] = False
    return legal_A
