"""Evaluation by greedy episodes: the first finished episode of each of E environments.

eval/return          mean undiscounted return
eval/return_error    its standard error over the episodes
eval/return_least    the worst of them
eval/length          steps an episode
eval/q_start         mean over episodes of max_a Q(s_0, a), the return that the network predicts
eval/overestimation  that prediction less the mean discounted return that followed (van Hasselt et al. 2016, figure 3)

The last two are left out where Q is no return in the units of the reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from rich.table import Table
from torch import Tensor

from dqnlm.agent.actor import Actor
from dqnlm.agent.exploration import Greedy
from dqnlm.agent.policy import Policy
from dqnlm.envs.base import Environment
from dqnlm.evaluation.base import Evaluation, Evaluator
from dqnlm.evaluation.tables import episode_table
from dqnlm.metrics import Accumulator, Metric, Metrics
from dqnlm.networks.noisy import set_noise
from dqnlm.ops.bootstrap import max_value
from dqnlm.types import DECISION, Rows, discount_from_flags


class EpisodeCollector:
    """A receiver of rows that keeps the first row, and the returns, of the first episode of each environment."""

    def __init__(self, gamma: float, legal: Callable[[Tensor], Tensor | None]) -> None:
        self.gamma, self.legal = gamma, legal
        self.rows: list[Rows] = []
        self._discounted_E: Tensor | None = None

    def _begin(self, like_E: Tensor) -> None:
        if self._discounted_E is None:
            self._discounted_E = torch.zeros(like_E.shape, device=like_E.device)
            self._scale_E, self._return_E = torch.ones_like(self._discounted_E), torch.zeros_like(self._discounted_E)
            self._begun_E = torch.zeros_like(like_E, dtype=torch.bool)
            self.episode_end_E, self._steps_E = self._begun_E.clone(), torch.zeros_like(like_E)

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        keep_B = torch.ones_like(rows.length_B, dtype=torch.bool) if keep_B is None else keep_B
        self._begin(rows.length_B)
        assert self._discounted_E is not None
        new_B = keep_B & ~self._begun_E
        self._begun_E = self._begun_E | keep_B
        self.rows.append(Rows(*(x[new_B] for x in vars(rows).values())))
        counts_B = (keep_B & ~self.episode_end_E).float()
        discount_BT = discount_from_flags(rows.flag_BT, rows.length_B, self.gamma)
        before_BT = torch.cat([torch.ones_like(discount_BT[:, :1]), discount_BT[:, :-1]], 1).cumprod(1)
        self._discounted_E += counts_B * self._scale_E * (before_BT * rows.reward_BT).sum(1)
        last_B1 = (rows.length_B - 1).clamp(min=0)[:, None]
        through_B = (before_BT * discount_BT).gather(1, last_B1).squeeze(1)
        self._scale_E = torch.where(counts_B > 0, self._scale_E * through_B, self._scale_E)
        self._steps_E += (counts_B * rows.length_B).long()

    def finished(self, return_E: Tensor, episode_end_E: Tensor) -> None:
        new_E = episode_end_E & ~self.episode_end_E
        self._return_E = torch.where(new_E, return_E, self._return_E)
        self.episode_end_E = self.episode_end_E | episode_end_E

    def done(self) -> bool:
        """Whether every environment has finished an episode."""
        return self._discounted_E is not None and bool(self.episode_end_E.all())

    def returns(self) -> Tensor:
        """Undiscounted return of the first episode of each environment that has finished one."""
        return self._return_E[self.episode_end_E]

    def discounted(self) -> Tensor:
        """Their discounted returns."""
        assert self._discounted_E is not None
        return self._discounted_E[self.episode_end_E]

    def steps(self) -> Tensor:
        """Their lengths."""
        return self._steps_E[self.episode_end_E]

    def texts(self) -> list[list[int]]:
        """The decisions of each first row."""
        decided = [(r.action_BT, (r.flag_BT & DECISION) != 0) for r in self.rows]
        return [a[m].tolist() for actions, mask in decided for a, m in zip(actions, mask, strict=True)]


def play_greedily(env: Environment, policy: Policy, gamma: float) -> EpisodeCollector:
    """Plays one episode in each environment by the argmax of the policy's preference."""
    collector = EpisodeCollector(gamma, env.legal)
    greedy = Greedy(torch.Generator(env.device))
    # Where episodes end apart, prompts are read step by step too, and the longest episode takes all its steps.
    steps = None if env.spec.teacher_forced or env.spec.lockstep else env.spec.episode_steps
    Actor(env, policy, greedy, collector, Accumulator(env.device)).rollout(steps, noise=False, until=collector.done)
    return collector


def measure_episodes(collector: EpisodeCollector, policy: Policy, q_is_return: bool) -> Metrics:
    """The metrics of the module's text; without the last two where Q is no return in the units of the reward."""
    return_E = collector.returns()
    error = return_E.std() / len(return_E) ** 0.5 if len(return_E) > 1 else return_E.new_zeros(())
    metrics = {
        "eval/return": float(return_E.mean()),
        "eval/return_error": float(error),
        "eval/return_least": float(return_E.min()),
        "eval/length": float(collector.steps().float().mean()),
    }
    if q_is_return:
        metrics["eval/q_start"] = start_values(collector, policy)
        metrics["eval/overestimation"] = metrics["eval/q_start"] - float(collector.discounted().mean())
    return metrics


@torch.no_grad()
def start_values(collector: EpisodeCollector, policy: Policy) -> float:
    """Mean of max_a Q at the first decision of the episodes, for any kind of policy."""
    values = []
    for rows in collector.rows:
        if len(rows.length_B):
            first_B = ((rows.flag_BT & DECISION) != 0).float().argmax(1)
            observation_BS = rows.observation_BS[:, : int(first_B.max()) + 1]
            q_BSA = policy.head.value(policy.network(observation_BS)["q"])
            value_BS = max_value(q_BSA, collector.legal(observation_BS))
            values.append(value_BS.gather(1, first_B[:, None]).flatten())
    return float(torch.cat(values).mean())


REWARD = "reward units"
RETURN = Metric("eval/return", "return", "Return of a greedy episode", REWARD, True)
RETURN_ERROR = Metric("eval/return_error", "+-", "Standard error of the return over the episodes", REWARD)
PREDICTED = (
    Metric("eval/q_start", "Q at the start", "Return that Q predicts at the first decision", REWARD),
    Metric("eval/overestimation", "overestimation", "Return that Q predicts less the return that followed", REWARD),
)
METRICS = (
    RETURN,
    RETURN_ERROR,
    Metric("eval/return_least", "least", "Return of the worst episode", REWARD),
    Metric("eval/length", "steps", "Length of an episode", "steps"),
)


class EpisodeEvaluator(Evaluator):
    """Scores a policy by greedy episodes in an environment of its own, the same at every evaluation.

    Args:
        make_env: a new environment in its evaluation mode.
        gamma: discount of the overestimation.
        betas: further strengths of a reweighted policy, shown for comparison.
        samples: episodes shown as text, where the environment's tokens are characters.
        q_is_return: whether Q predicts the return in the units of the reward, and may be compared with it.
    """

    def __init__(
        self, make_env: Callable[[], Environment], gamma: float, betas: list[float], samples: int, q_is_return: bool
    ) -> None:
        self.make_env, self.gamma, self.betas, self.samples = make_env, gamma, betas, samples
        self.q_is_return = q_is_return
        self.references = make_env().references()
        self.episode_metrics = (*METRICS, *(PREDICTED if q_is_return else ()))
        self.metrics: Sequence[Metric] = self.episode_metrics

    @torch.no_grad()
    def evaluate(self, policy: Policy) -> Evaluation:
        """Computes all metrics; does not change the policy."""
        policy.network.eval()
        set_noise(policy.network, False)
        collector = play_greedily(self.make_env(), policy, self.gamma)
        metrics = self._metrics(collector, policy)
        if policy.declared == "reweighted":
            metrics |= self._betas(policy)
        return Evaluation(metrics, self._samples(collector, policy))

    def known(self) -> dict[str, Metrics]:
        """See `Evaluator.known`."""
        return {name: {"eval/return": value} for name, value in self.references.items()}

    def table(self, evaluation: Evaluation, policy: Policy, step: int, done: str) -> Table:
        """Table of the policy and the known references of the task."""
        del policy
        return episode_table(evaluation.metrics, self.episode_metrics, self.references, step, done)

    def _metrics(self, collector: EpisodeCollector, policy: Policy) -> Metrics:
        return measure_episodes(collector, policy, self.q_is_return)

    def _betas(self, policy: Policy) -> Metrics:
        metrics, fixed = {}, policy.beta
        try:
            for beta in self.betas:
                policy.beta = beta
                metrics[f"eval/return_beta_{beta:g}"] = float(
                    play_greedily(self.make_env(), policy, self.gamma).returns().mean()
                )
        finally:
            policy.beta = fixed
        return metrics

    def _samples(self, collector: EpisodeCollector, policy: Policy) -> list[tuple[str, str]]:
        """Text of the first row of the first episodes, with the prompt separate."""
        if policy.tokens is None:
            return []
        samples: list[tuple[str, str]] = []
        for rows in collector.rows:
            for b in range(len(rows.length_B)):
                decided_T = ((rows.flag_BT[b] & DECISION) != 0).nonzero().flatten()
                first, last = int(decided_T[0]), int(decided_T[-1])
                prompt, text = rows.observation_BS[b, : first + 1], rows.observation_BS[b, first + 1 : last + 2]
                samples.append((policy.tokens.decode_prompt(prompt.tolist()), policy.tokens.decode(text.tolist())))
        return samples[: self.samples]
