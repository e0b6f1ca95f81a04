"""The task of completing prompts for a reward; scored by sampled completions of held-out prompts."""

from __future__ import annotations

from typing import Any

from dqnlm.agent.policy import Policy
from dqnlm.data.parts import Part
from dqnlm.data.prompts.dataset import PromptPart, Prompts
from dqnlm.envs.prompts import Completions
from dqnlm.errors import UserError
from dqnlm.evaluation.completions import CompletionEvaluator
from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.rewards.base import Reward
from dqnlm.tasks.base import TokenizedTask
from dqnlm.tasks.text import require_reward
from dqnlm.utils import streams


class PromptsTask(TokenizedTask):
    """See the module's text."""

    kind = "prompts"
    has_heldout_prompts = True
    line_break_ends_turn = False
    data: Prompts

    def wanted_data(self, env: str, data: str) -> str:
        return f"env={env} completes prompts, which data={data} does not give: set data=prompts data.path=FILE.jsonl"

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation",) if self.data.test is None else ("validation", "test")

    def make_env(self, seed: int, *, evaluating: bool = False, num_envs: int | None = None) -> Completions:
        part = self.data.parts[self.part if evaluating else "train"]
        reward = self._reward(part)
        dependencies: dict[str, Any] = {
            "num_actions": self.data.tokenizer.vocabulary_size, "legal_mask_A": self.legal_A, "prompts": part.prompts,
            "references": part.references, "eos_id": self.data.tokenizer.eos_id, "reward": reward,
            "longest_prompt": self.data.longest_prompt,
        }  # fmt: skip
        env: Completions = self.instantiate_env(seed, evaluating, num_envs, dependencies)
        return env

    def _reward(self, part: PromptPart) -> Reward:
        tokenizer = self.data.tokenizer
        reward = require_reward(self, self.build_reward({
            "num_actions": tokenizer.vocabulary_size, "tokenizer": tokenizer, "train_ids": self.data.train_ids,
            "eos_id": tokenizer.eos_id,
        }))  # fmt: skip
        reward.use_columns(part.columns())
        return reward

    @property
    def reward(self) -> Reward:
        env = self.env
        assert isinstance(env, Completions)
        return env.reward

    def check(self, policy: Policy) -> None:
        """Raises UserError where the network cannot read the longest prompt and completion, or no answer can be cloned."""
        if self.config["pretraining"]["updates"] and not self.data.has_references:
            raise UserError(
                f"pretraining.updates={self.config['pretraining']['updates']} clones the answers of the data, and not every "
                "prompt has a `reference`: set pretraining.updates=0, or add them"
            )
        context, needed = policy.network.context, self.spec.row_transitions
        if policy.network.max_observations is not None and needed > context:
            raise UserError(
                f"the longest prompt has {self.data.longest_prompt} tokens and a completion up to env.horizon="
                f"{self.config['env']['horizon']}, together {needed} transitions, but network.context={context}: set "
                f"network.context={needed}, or leave long prompts out with data.max_tokens"
            )

    def evaluator(
        self, settings: EvaluationSettings, *, q_is_return: bool, learns_returns: bool
    ) -> CompletionEvaluator:
        seed = streams.seed_of(self.config["seed"], streams.EVALUATION)
        return CompletionEvaluator(
            lambda: self.make_env(seed, evaluating=True, num_envs=settings.episodes), self.config["gamma"], settings.betas,
            settings.samples, q_is_return, seed,
        )  # fmt: skip

    def sizes(self) -> dict[str, int]:
        return {f"{name}_prompts": len(part.items) for name, part in self.data.parts.items()}

    def describe_data(self) -> tuple[str, str]:
        data = self.data
        columns = ", ".join(data.train.columns())
        test = 0 if data.test is None else len(data.test.items)
        return "prompts", (
            f"{data.source.name}: {len(data.train.items):,} to learn from, "
            f"{len(data.heldout.items):,} for validation, {test:,} for the "
            f"test, the longest {data.longest_prompt:,} tokens, vocabulary {data.tokenizer.vocabulary_size:,}"
            + (f"; columns for the reward: {columns}" if columns else "")
        )

    def describe_env(self, rollout_steps: int | None) -> str:
        env = self.env
        assert isinstance(env, Completions)
        each = self.config["env"]["samples_per_prompt"]
        return (
            f"{env.num_envs} completions a rollout ({each} a prompt) of at most {env.max_new_tokens} tokens, "
            f"reward={self.option('reward')}"
        )

    def scored_on(self) -> str:
        left_out = self.data.left_out[self.part]
        said = f", {left_out:,} left out by data.max_tokens" if left_out else ""
        scored = min(self.config["evaluation"]["episodes"], len(self.data.parts[self.part].items))
        return f"completions of {scored:,} of {len(self.data.parts[self.part].items):,} {self.part} prompts{said}"

    def heldout_prompts(self) -> list[str]:
        return list(dict.fromkeys(item.text for item in self.data.heldout.items))
