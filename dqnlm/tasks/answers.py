"""The task of answering prompts with references: translation, replies; scored on held-out prompts."""

from __future__ import annotations

from typing import Any

from dqnlm.data.pairs.dataset import STOP, Pairs, TokenPairs
from dqnlm.data.parts import Part
from dqnlm.envs.prompted import Prompted
from dqnlm.evaluation.answers import PairEvaluator
from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.rewards.base import Reward
from dqnlm.tasks.base import TokenizedTask
from dqnlm.tasks.text import require_reward
from dqnlm.utils import streams


class AnswersTask(TokenizedTask):
    """See the module's text."""

    kind = "answers"
    has_references = True
    has_heldout_prompts = True
    eval_options = frozenset({"beam", "temperature", "seed", "save"})
    completion_end = STOP
    data: Pairs

    def wanted_data(self, env: str, data: str) -> str:
        return (
            f"env={env} answers prompts, but data={data} holds none; set data=translation, data=replies or "
            "data=translation_jsonl with data.path, or data=translation_hub with data.name"
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test", "train")

    def make_env(self, seed: int, *, evaluating: bool = False, num_envs: int | None = None) -> Prompted:
        part = self.data.heldout if evaluating else self.data.train
        return self.make_env_on(part, seed, evaluating=evaluating, num_envs=num_envs)

    def make_env_on(
        self, part: TokenPairs, seed: int, *, evaluating: bool = True, num_envs: int | None = None
    ) -> Prompted:
        """As `make_env`, on any part of the data; in an evaluation copy i answers its prompt i."""
        data = self.data
        dependencies: dict[str, Any] = {
            "num_actions": data.tokenizer.vocabulary_size, "legal_mask_A": self.legal_A, "tokenizer": data.tokenizer,
            "train_ids": data.train_ids, "prompts": part.prompts, "references": part.references, "eos_id": data.eos_id,
            "longest_prompt": data.longest_prompt,
        }  # fmt: skip
        dependencies["reward"] = require_reward(self, self.build_reward(dependencies))
        env: Prompted = self.instantiate_env(seed, evaluating, num_envs, dependencies)
        return env

    @property
    def reward(self) -> Reward:
        env = self.env
        assert isinstance(env, Prompted)
        return env.reward

    def evaluator(self, settings: EvaluationSettings, *, q_is_return: bool, learns_returns: bool) -> PairEvaluator:
        seed = streams.seed_of(self.config["seed"], streams.EVALUATION)
        heldout = self.data.heldout
        episodes = min(settings.episodes, len(heldout.texts))  # each pair once
        return PairEvaluator(
            lambda: self.make_env(seed, evaluating=True, num_envs=episodes), self.config["gamma"],
            settings.betas, settings.samples, q_is_return, [pair.answer for pair in heldout.texts],
        )  # fmt: skip

    def sizes(self) -> dict[str, int]:
        return {part: len(getattr(self.data, part).texts) for part in ("train", "heldout", "test")}

    def describe_data(self) -> tuple[str, str]:
        sizes = ", ".join(f"{count:,} {part}" for part, count in self.sizes().items())
        return "pairs", f"{self.data.source.name}: {sizes}, vocabulary {self.data.tokenizer.vocabulary_size}"

    def describe_env(self, rollout_steps: int | None) -> str:
        env = self.env
        assert isinstance(env, Prompted)
        size = f"{env.num_envs} answers a rollout of at most {env.max_new_tokens} decisions"
        return f"env={self.option('env')}, {size}, reward={self.option('reward')}"

    def heldout_prompts(self) -> list[str]:
        return list(dict.fromkeys(pair.prompt + STOP for pair in self.data.heldout.texts))
