"""The task of learning offline from a log of texts with rewards; scored on held-out rows and answers to their prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.buffers.shard import Shard
from dqnlm.data.parts import Part
from dqnlm.data.trajectories.log import Log, LogPart
from dqnlm.data.trajectories.rewards import episodes
from dqnlm.data.trajectories.rows import TokenRow, padded
from dqnlm.envs.logged import Logged, LogShape
from dqnlm.errors import UserError
from dqnlm.evaluation.logged import LogEvaluator
from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.rewards.base import Reward
from dqnlm.tasks.base import TokenizedTask
from dqnlm.types import DECISION, TRUNCATED, Bounds

_AT_ONCE = 4096  # rows that are padded together on their way to the buffer


class LogTask(TokenizedTask):
    """See the module's text."""

    kind = "log"
    has_heldout_prompts = True
    plays = False
    line_break_ends_turn = False
    rewarded_by = "the log"
    reward_only_scores = True
    data: Log

    def wanted_data(self, env: str, data: str) -> str:
        return (
            f"env={env} learns from a log alone, which data={data} does not give: set data=logged data.path=FILE.jsonl "
            "(+experiment=logged sets both)"
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("validation", "test") if len(self.data.test) else ("validation",)

    def make_env(self, seed: int, *, evaluating: bool = False, num_envs: int | None = None) -> Logged:
        dependencies: dict[str, Any] = {
            "log_shape": shape_of(self.data), "num_actions": self.data.tokenizer.vocabulary_size,
            "legal_mask_A": self.legal_A,
        }  # fmt: skip
        env: Logged = self.instantiate_env(seed, evaluating, num_envs, dependencies)
        return env

    def evaluator(self, settings: EvaluationSettings, *, q_is_return: bool, learns_returns: bool) -> LogEvaluator:
        return self._evaluator(self.data.part(self.part), settings, learns_returns)

    def small_evaluator(
        self, settings: EvaluationSettings, share: float, *, q_is_return: bool, learns_returns: bool
    ) -> LogEvaluator:
        """See `Task.small_evaluator`: the first held-out rows, at least four."""
        part = self.data.part(self.part)
        rows = max(4, int(share * len(part)))
        return self._evaluator(LogPart(part.items[:rows], part.rows[:rows]), settings, learns_returns)

    def _evaluator(self, heldout: LogPart, settings: EvaluationSettings, learns_returns: bool) -> LogEvaluator:
        env = self.env
        assert isinstance(env, Logged)
        return LogEvaluator(
            heldout, self._judge(), env.horizon, self.config["gamma"], settings.betas,
            settings.samples, settings.episodes, learns_returns, self.data.train,
        )  # fmt: skip

    def _judge(self) -> Reward | None:
        """The run's reward function, which only scores greedy answers here; None without one.

        Raises:
            UserError: a reward that needs a text to compare with, token by token.
        """
        tokenizer = self.data.tokenizer
        reward = self.build_reward(
            {
                "num_actions": tokenizer.vocabulary_size, "tokenizer": tokenizer, "train_ids": self.data.train_ids,
                "eos_id": tokenizer.eos_id,
            }
        )  # fmt: skip
        if reward.is_none:
            return None
        if not reward.sequence_level:
            raise UserError(
                f"reward={self.option('reward')} compares token by token with a given text, and with a log there is none: set "
                "reward=none, or a reward of the greedy answers: reward=function, classifier, language_model, lexicon"
            )
        reward.only_scores()
        return reward

    def check(self, policy: Policy) -> None:
        """Raises UserError where the network cannot read the longest rows: their number, place, and the remedy."""
        network, log = policy.network, self.data
        if network.max_observations is None or log.longest <= network.context:
            return
        items, rows = [*log.train.items, *log.heldout.items, *log.test.items], log.all_rows
        long = [place for place, row in enumerate(rows) if row.transitions > network.context]
        worst = max(long, key=lambda place: rows[place].transitions)
        raise UserError(
            f"{len(long):,} of {len(rows):,} logged rows are longer than network.context={network.context} reads; the longest, "
            f"{items[worst].place}, has {log.longest:,} transitions ({log.longest + 1:,} tokens): set network.context="
            f"{log.longest}, or leave such rows out with data.max_tokens={network.context + 1}"
        )

    @property
    def num_logged_rows(self) -> int:
        return len(self.data.train)

    def add_logged_rows(self, buffer: Buffer | Shard, policy: Policy) -> None:
        """Stores the training part in the buffer.

        Raises:
            UserError: the buffer is smaller than the log, or a row's return lies outside the head's bounds.
        """
        rows = self.data.train.rows
        return_B = torch.tensor(np.stack([row.reward_T.sum(0, np.float64) for row in rows]), device=policy.device).float()
        require_within_bounds(return_B, policy, "set a head without bounds (head=scalar head.loss=squared)")
        if len(rows) > buffer.rows:
            raise UserError(
                f"{len(rows):,} logged rows do not fit the buffer's {buffer.rows:,}; set buffer.capacity=null, which holds all"
            )
        for begin in range(0, len(rows), _AT_ONCE):
            block = rows[begin : begin + _AT_ONCE]
            buffer.add(padded(block, buffer.storage.row_transitions, self.data.tokenizer.dtype, policy.device))

    def sizes(self) -> dict[str, int]:
        return {"logged_rows": len(self.data.train), "validation_rows": len(self.data.heldout), "test_rows": len(self.data.test)}

    def describe_data(self) -> tuple[str, str]:
        data = self.data
        longest = max(row.transitions for row in data.train.rows)
        return "log", (
            f"{data.source.name}: {len(data.train):,} rows to learn from, {len(data.heldout):,} for validation, "
            f"{len(data.test):,} for the test, "
            f"vocabulary {data.tokenizer.vocabulary_size}, longest row {longest + 1:,} tokens"
        )

    def describe_env(self, rollout_steps: int | None) -> str:
        reward = self.option("reward")
        scored = "are not scored" if reward == "none" else f"are scored by reward={reward}"
        return f"none: nothing is played; greedy answers to held-out prompts {scored}"

    def scored_on(self) -> str:
        left_out = self.data.left_out[self.part]
        said = f", {left_out:,} left out by data.max_tokens" if left_out else ""
        return f"{len(self.data.part(self.part)):,} {self.part} rows{said}"

    def heldout_prompts(self) -> list[str]:
        return list(dict.fromkeys(item.prompt for item in self.data.heldout.items))


def require_within_bounds(return_B: Tensor, policy: Policy, advice: str) -> None:
    """Raises UserError where a logged return lies outside the bounds that the head is scaled by."""
    outside = int((policy.head.clamped(return_B).reshape(len(return_B), -1) > 0).any(1).sum())
    if outside:
        raise UserError(
            f"{outside:,} of {len(return_B):,} logged rows earn more or less than the bounds of the return that the head is "
            f"scaled by, {float(policy.head.low):g} to {float(policy.head.high):g}: {advice}, or head.low and head.high of "
            "head=categorical"
        )


def shape_of(log: Log) -> LogShape:
    """The shape of a log, see `LogShape`.

    Raises:
        UserError: following texts (`next`) of different lengths: the value after such a row is read from the first
            observations of the episode's next row, whose number must be constant.
    """
    paid = np.concatenate([row.reward_T[(row.flag_T & DECISION) != 0] for row in log.train.rows])
    cut = [_follows(row) for row in log.all_rows if row.flag_T[-1] & TRUNCATED]
    if len(set(cut)) > 1:
        raise UserError(
            f"{len(cut):,} rows of the log have a `next` text, of {min(cut)} to {max(cut)} tokens; here all must have equally "
            "many. Write each episode as one row: a dialogue with `turns`"
        )
    alone = len(episodes(log.train.items)) == len(log.train)
    at_end = all(not row.reward_T[:-1].any() for row in log.train.rows)
    return LogShape(
        row_transitions=log.longest,
        longest_completion=log.longest_completion,
        first_decision=min(row.prompt for row in log.all_rows) - 1,
        multi_turn=any(_is_multi_turn(row) for row in log.all_rows),
        cut=bool(cut),
        context_carry=max(cut, default=0),
        rewards=Bounds(float(paid.min()), float(paid.max())),
        paid_at_end=alone and at_end and not cut,
        reward_names=log.reward_names,
    )


def _follows(row: TokenRow) -> int:
    """Number of tokens after the last decision."""
    return row.transitions - 1 - int(np.flatnonzero(row.flag_T & DECISION)[-1])


def _is_multi_turn(row: TokenRow) -> bool:
    return not bool((row.flag_T[row.prompt - 1 :] & DECISION).all())
