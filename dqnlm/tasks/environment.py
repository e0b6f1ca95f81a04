"""The task of playing an environment with its own tokens, or vectors, and rewards; optionally from logged episodes."""

from __future__ import annotations

from typing import Any

from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.buffers.shard import Shard
from dqnlm.config.schema import instantiate_with
from dqnlm.data.pairs.files import read_dialogues
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.evaluation.base import Evaluator
from dqnlm.evaluation.episodes import EpisodeEvaluator
from dqnlm.evaluation.settings import EvaluationSettings
from dqnlm.tasks.base import Task
from dqnlm.tasks.log import require_within_bounds
from dqnlm.utils import streams


class EnvironmentTask(Task):
    """See the module's text."""

    kind = "environment"
    rewarded_by = "the environment"
    has_text = False

    def wanted_data(self, env: str, data: str) -> str:
        if self.data.task == "answers":
            return f"data={data} is prompts with answers, which env={env} does not read; set env=translation"
        return (
            f"env={env} has its own tokens, and a text (data={data}) would not be used; set data=none, or "
            "data=trajectories data.path=FILE to learn from logged episodes"
        )

    def make_env(self, seed: int, *, evaluating: bool = False, num_envs: int | None = None) -> Environment:
        dialogues = self.config["env"].get("num_envs") if num_envs is None else num_envs
        hosts = {
            "device": self.device, "seed": seed, "evaluating": evaluating, "dialogues": dialogues,
            "read_dialogues": read_dialogues,
        }  # fmt: skip
        dependencies: dict[str, Any] = {"make_partner": lambda node: instantiate_with(node, hosts, "env.partner")}
        env: Environment = self.instantiate_env(seed, evaluating, num_envs, dependencies)
        return env

    def evaluator(self, settings: EvaluationSettings, *, q_is_return: bool, learns_returns: bool) -> Evaluator:
        seed = streams.seed_of(self.config["seed"], streams.EVALUATION)
        return EpisodeEvaluator(
            lambda: self.make_env(seed, evaluating=True, num_envs=settings.episodes),
            self.config["gamma"], settings.betas, settings.samples, q_is_return,
        )  # fmt: skip

    @property
    def num_logged_rows(self) -> int:
        return len(self.data)

    def add_logged_rows(self, buffer: Buffer | Shard, policy: Policy) -> None:
        """Stores the logged episodes of the environment, if there are any.

        Raises:
            UserError: the environment's tokens are no characters, the log is of another task, a return lies outside the
                head's bounds, or the buffer is smaller than the log.
        """
        if not self.num_logged_rows:
            return
        self._require_same_task(policy)
        tokens = policy.tokens
        assert tokens is not None, "that was required"
        rows = self.data.rows(tokens, self.spec.row_transitions, self.device)
        advice = "set data.reward_scaling=none, a head without bounds (head=scalar head.loss=huber, head=quantile)"
        require_within_bounds(rows.reward_BT.sum(1), policy, advice)
        count = len(rows.length_B)
        if count > buffer.rows:
            needed = count * (self.spec.row_transitions - self.spec.first_decision)
            raise UserError(
                f"{count:,} logged rows do not fit the buffer's {buffer.rows:,}; set buffer.capacity={needed}"
            )
        buffer.add(rows)

    def _require_same_task(self, policy: Policy) -> None:
        """Raises UserError where the log cannot be of this environment."""
        data, spec = self.data, self.spec
        if policy.tokens is None:
            raise UserError(
                "logged text cannot be used here: this environment's tokens are no characters"
            )
        if data.first_decision() < spec.first_decision:
            raise UserError(
                f"the shortest prompt of the logged data has {data.first_decision() + 1} tokens, but this environment reads "
                f"{spec.first_decision + 1} before its first decision: the log is of another task; choose its env"
            )
        if any(item.next for item in data.items) and not (spec.multi_turn and spec.truncates):
            raise UserError(
                "some logged rows have a `next` text, but in this environment a row is a whole episode and nothing follows its "
                "actions: leave `next` out, or choose the env that the log is of"
            )

    def contents(self) -> dict[str, str]:
        return super().contents() | {f"env.{name}": checksum for name, checksum in self.env.contents().items()}

    def describe_data(self) -> tuple[str, str]:
        rows = f": {self.num_logged_rows:,} logged rows" if self.num_logged_rows else ""
        return "data", f"{self.data.source.name}{rows}"

    def describe_env(self, rollout_steps: int | None) -> str:
        env, steps = self.env, rollout_steps or self.spec.row_transitions
        name = f"env={self.option('env')} {env.describe()}".rstrip()
        return f"{name}, {env.num_envs} x {steps} steps a rollout, {self.spec.num_actions} actions"
