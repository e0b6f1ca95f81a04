"""Evaluation on held-out prompts: reward of completions sampled from the policy as it is used, and of greedy ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.table import Table

from dqnlm.agent.actor import Actor
from dqnlm.agent.exploration import Boltzmann
from dqnlm.agent.policy import Policy
from dqnlm.envs.base import Environment
from dqnlm.evaluation import diversity
from dqnlm.evaluation.base import Evaluation
from dqnlm.evaluation.divergence import KL, divergence
from dqnlm.evaluation.episodes import (
    RETURN_ERROR,
    REWARD,
    EpisodeCollector,
    EpisodeEvaluator,
    measure_episodes,
    play_greedily,
)
from dqnlm.evaluation.tables import episode_table
from dqnlm.metrics import Accumulator, Metric, Metrics
from dqnlm.networks.noisy import set_noise

METRICS = (
    Metric("eval/return", "return", "Return of a sampled completion", REWARD, True),
    RETURN_ERROR,
    Metric("eval/return_least", "least", "Return of the worst completion", REWARD),
    Metric("eval/return_greedy", "greedy", "Return of a greedy completion", REWARD, True),
    Metric("eval/length", "tokens", "Length of a completion", "tokens"),
    Metric("eval/distinct_2", "distinct-2", "Distinct pairs of tokens in the completions", "share of pairs"),
)


class CompletionEvaluator(EpisodeEvaluator):
    """As `EpisodeEvaluator`, by completions sampled from the policy (the same random numbers at every evaluation).

    Args:
        make_env, gamma, betas, samples, q_is_return: as there.
        seed: of the random numbers.
    """

    def __init__(
        self, make_env: Callable[[], Environment], gamma: float, betas: list[float], samples: int, q_is_return: bool,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__(make_env, gamma, betas, samples, q_is_return)
        self.seed, self.episode_metrics, self.metrics = seed, METRICS, (*METRICS, KL)

    @torch.no_grad()
    def evaluate(self, policy: Policy) -> Evaluation:
        """Computes all metrics; does not change the policy."""
        policy.network.eval()
        set_noise(policy.network, False)
        sampled = self._sample(policy)
        metrics = self._metrics(sampled, policy)
        metrics["eval/return_greedy"] = float(play_greedily(self.make_env(), policy, self.gamma).returns().mean())
        if policy.declared == "reweighted":
            metrics |= {KL.name: divergence(policy, sampled.rows)} | self._betas(policy)
        return Evaluation(metrics, self._samples(sampled, policy), policy.temperature)

    def table(self, evaluation: Evaluation, policy: Policy, step: int, done: str) -> Table:
        """Table of the sampled completions."""
        del policy
        shown = [metric for metric in self.metrics if metric.name in evaluation.metrics]
        return episode_table(evaluation.metrics, shown, {}, step, done, policy="sampled")

    def _metrics(self, collector: EpisodeCollector, policy: Policy) -> Metrics:
        found = measure_episodes(collector, policy, q_is_return=False)
        texts = collector.texts()
        found["eval/length"] = sum(map(len, texts)) / len(texts)  # without the prompt
        return found | {"eval/distinct_2": diversity.distinct_share(texts, 2)}

    def _sample(self, policy: Policy) -> EpisodeCollector:
        """One completion of each prompt by the policy."""
        env = self.make_env()
        collector = EpisodeCollector(self.gamma, env.legal)
        generator = torch.Generator(env.device).manual_seed(self.seed)
        temperature = policy.temperature if policy.declared == "boltzmann" else 1.0
        sampler = Boltzmann(generator, 1, temperature=temperature, greedy=0.0, random=0.0)
        Actor(env, policy, sampler, collector, Accumulator(env.device)).rollout(None, noise=False)
        return collector

    def _betas(self, policy: Policy) -> Metrics:
        metrics, fixed = {}, policy.beta
        try:
            for beta in self.betas:
                policy.beta = beta
                metrics[f"eval/return_beta_{beta:g}"] = float(self._sample(policy).returns().mean())
        finally:
            policy.beta = fixed
        return metrics
