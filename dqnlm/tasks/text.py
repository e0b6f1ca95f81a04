"""The task of continuing a text: windows of a corpus, scored on its held-out end."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.data.parts import Part
from dqnlm.data.text.corpora import Corpus
from dqnlm.envs.continuation import Continuation
from dqnlm.errors import UserError
from dqnlm.evaluation.ngram_baselines import baselines
from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.evaluation.text import TextEvaluator
from dqnlm.rewards.base import Reward
from dqnlm.tasks.base import Task, TokenizedTask, allowed_tokens
from dqnlm.utils import streams


def require_reward(task: Task, reward: Reward) -> Reward:
    """Builds the reward.

    Raises:
        UserError: the reward is `none`, and the data has no rewards of its own.
    """
    if reward.is_none:
        raise UserError(
            f"reward={task.option('reward')}: env={task.option('env')} has no other rewards to learn from; choose one "
            "(env=logged has a log's)"
        )
    return reward


class TextTask(TokenizedTask):
    """See the module's text."""

    kind = "text"
    eval_options = frozenset({"data_path"})
    data: Corpus

    def wanted_data(self, env: str, data: str) -> str:
        return (
            f"env={env} plays on a text, but data={data} is none; set data=tiny_shakespeare, data=text_file data.path=FILE, "
            "or data=bundled"
        )

    @cached_property
    def legal_A(self) -> Tensor | None:
        """See `allowed_tokens`; without env.allowed also those alone that the corpus says may be chosen."""
        legal_A, choosable_A = allowed_tokens(self.config, self.tokenizer), self.data.choosable_A
        if choosable_A is None or self.config["env"].get("allowed") is not None:
            return legal_A
        return choosable_A if legal_A is None else legal_A & choosable_A

    def make_env(self, seed: int, *, evaluating: bool = False, num_envs: int | None = None) -> Continuation:
        ids, tokenizer = self.scored_ids if evaluating else self.data.train_ids, self.data.tokenizer
        dependencies: dict[str, Any] = {
            "num_actions": tokenizer.vocabulary_size, "legal_mask_A": self.legal_A, "tokenizer": tokenizer,
            "train_ids": self.data.train_ids, "corpus_ids": ids, "eos_id": self._stop_id(),
        }  # fmt: skip
        dependencies["reward"] = require_reward(self, self.build_reward(dependencies))
        env: Continuation = self.instantiate_env(seed, evaluating, num_envs, dependencies)
        return env

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if len(self.data.test_ids) else ("validation",)

    @property
    def scored_ids(self) -> Tensor:
        """The tokens of the part that evaluations score, 1-D."""
        return self.data.test_ids if self.part == "test" else self.data.validation_ids

    def _stop_id(self) -> int | None:
        text = self.config["env"]["stop_token"]
        if text is None:
            return None
        ids = self.data.tokenizer.encode_strict(text)
        if len(ids) != 1:
            raise UserError(f"env.stop_token={text!r} must be one token, but it is {len(ids)}")
        return int(ids[0])

    @property
    def reward(self) -> Reward:
        env = self.env
        assert isinstance(env, Continuation)
        return env.reward

    def check(self, policy: Policy) -> None:
        self.data.require_tokens(max(self.spec.row_transitions + 1, 3), "an episode (env.prompt_length + env.horizon)")

    def evaluator(self, settings: EvaluationSettings, *, q_is_return: bool, learns_returns: bool) -> TextEvaluator:
        return self._evaluator(self.scored_ids, settings, q_is_return)

    def small_evaluator(
        self, settings: EvaluationSettings, share: float, *, q_is_return: bool, learns_returns: bool
    ) -> TextEvaluator:
        """See `Task.small_evaluator`: the beginning of the held-out text, at least as long as four episodes."""
        tokens = max(4 * (self.spec.row_transitions + 1), int(share * len(self.scored_ids)))
        return self._evaluator(self.scored_ids[:tokens], settings, q_is_return)

    def _evaluator(self, scored_ids: Tensor, settings: EvaluationSettings, q_is_return: bool) -> TextEvaluator:
        data = self.data
        seed = streams.seed_of(self.config["seed"], streams.EVALUATION)
        size = data.tokenizer.vocabulary_size
        reference = data.train_ids if len(data.train_ids) else scored_ids
        return TextEvaluator(
            scored_ids, lambda: self.make_env(seed, evaluating=True, num_envs=settings.episodes),
            self._by_frequency(), self.config["gamma"], q_is_return, settings.samples, settings.sample_tokens,
            settings.sample_temperature, seed, baselines(reference, scored_ids, size),
        )  # fmt: skip

    def _by_frequency(self) -> list[int]:
        """Legal tokens, by decreasing frequency in the training text."""
        frequency_A = torch.bincount(self.data.train_ids.long(), minlength=self.data.tokenizer.vocabulary_size)
        if self.legal_A is not None:
            frequency_A[~self.legal_A] = -1
        return [i for i in frequency_A.argsort(descending=True).tolist() if frequency_A[i] >= 0]

    def notes(self) -> list[str]:
        unknown = sum(self.data.unknown.values())
        note = f"{unknown} held-out characters do not occur in the training part (unknown token)"
        return [*super().notes(), *([note] if unknown else [])]

    def sizes(self) -> dict[str, int]:
        data = self.data
        return {
            "train_tokens": len(data.train_ids), "validation_tokens": len(data.validation_ids), "test_tokens": len(data.test_ids),
        }  # fmt: skip

    def describe_data(self) -> tuple[str, str]:
        data = self.data
        chosen = "" if data.choosable_A is None else f", of which the {int(data.choosable_A.sum())} that occur may be chosen"
        return "text", (
            f"{data.source.name}: {len(data.train_ids):,} tokens to learn from, {len(data.validation_ids):,} for validation, "
            f"{len(data.test_ids):,} for the test, vocabulary {data.tokenizer.vocabulary_size}{chosen}"
        )

    def describe_env(self, rollout_steps: int | None) -> str:
        node = self.config["env"]
        return (
            f"{self.env.num_envs} x {node['horizon']} decisions a rollout, transition {node['transition']}, reward="
            f"{self.option('reward')}"
        )

    def scored_on(self) -> str:
        return f"{self.data.source.name}, {len(self.scored_ids):,} tokens"

    def scoring_notes(self, other_data: bool) -> list[str]:
        unknown, notes = self.data.unknown[self.part], []
        if unknown:
            notes.append(f"{unknown} characters are unknown to the run: counted as misses, left out of nats")
        choosable_A = self.data.choosable_A
        if choosable_A is not None and self.tokenizer.unknown_id is None:
            never = int((~choosable_A)[self.scored_ids.long()].sum())
            told = f"{never} bytes never occur in what the run was trained on: counted as misses, left out of nats"
            notes += [told] if never else []
        if other_data:
            notes.append("unigram and bigram are counted on this very text, so their numbers are optimistic")
        return notes
