"""Evaluation on held-out text: likelihood of the whole text, greedy episodes, and samples. Has its own generators.

eval/accuracy   share of held-out positions where the argmax of Q is the next token
eval/nll       -log probability of the next token under the declared policy, nats a token
eval/return     mean undiscounted return of greedy episodes on held-out text
(and the other metrics of `dqnlm.evaluation.episodes`)
eval/return_best_constant   the return of the best constant action on those episodes
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.table import Table
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.envs.continuation import Continuation
from dqnlm.errors import UserError
from dqnlm.evaluation import diversity, episodes
from dqnlm.evaluation import temperature as fitting
from dqnlm.evaluation.base import Evaluation, Evaluator
from dqnlm.evaluation.episodes import PREDICTED, RETURN, REWARD, measure_episodes, play_greedily
from dqnlm.evaluation.tables import evaluation_table
from dqnlm.evaluation.text_positions import text_positions
from dqnlm.metrics import Metric, Metrics
from dqnlm.networks.noisy import set_noise

MAX_CONSTANTS = 256  # tokens tried as constant policies: all of a small vocabulary, the most frequent of a large one


TOKENS, PAIRS = "share of tokens", "share of n-grams"
METRICS = (
    Metric("eval/accuracy", "accuracy", "Greedy next-token accuracy, held-out text", TOKENS, True),
    Metric("eval/nll", "nats/token", "Negative log-likelihood of the declared policy, held-out text", "nats per token", False),
    Metric("eval/nll_softmax", "nats/token of softmax(Q/T)",
           "Negative log-likelihood of softmax(Q / temperature), held-out text", "nats per token", False),
    RETURN,
    *episodes.METRICS[1:],
    Metric("eval/return_best_constant", "always one token", "Return of the best constant policy", REWARD),
    Metric("eval/temperature", "temperature", "Temperature that fits held-out text best", "reward units"),
    Metric("eval/unscored_share", "not scored", "Held-out positions whose token the policy may not choose", TOKENS),
    *(Metric(f"eval/distinct_{n}", f"distinct-{n}", f"Distinct {n}-grams of tokens in greedy text", PAIRS) for n in (1, 2, 3)),
    Metric("eval/top_token_share", "top token", "Share of the most frequent token in greedy text", TOKENS),
)  # fmt: skip


class TextEvaluator(Evaluator):
    """Scores a policy on held-out text.

    Args:
        heldout_ids: the text.
        make_env: a new environment on the held-out text, always with the same episodes.
        frequent_ids: tokens by falling frequency in the training text.
        gamma: discount of eval/overestimation.
        q_is_return: whether Q predicts the return in the units of the reward.
        baselines: name -> (accuracy, nats) of models without learning, for the table.
    """

    shows_prompt = False  # a line break

    def __init__(
        self,
        heldout_ids: Tensor,
        make_env: Callable[[], Continuation],
        frequent_ids: list[int],
        gamma: float,
        q_is_return: bool,
        samples: int,
        sample_tokens: int,
        sample_temperature: float,
        seed: int,
        baselines: dict[str, tuple[float, float]],
    ) -> None:
        self.heldout_ids, self.make_env, self.frequent_ids = heldout_ids, make_env, frequent_ids
        self.samples, self.sample_tokens, self.sample_temperature = samples, sample_tokens, sample_temperature
        self.gamma, self.q_is_return, self.seed, self.baselines = gamma, q_is_return, seed, baselines
        self._best_constant: tuple[float, int] | None = None
        self.metrics = (*METRICS, *(PREDICTED if q_is_return else ()))

    def prepare(self) -> None:
        """The best constant policy."""
        self.best_constant()

    @torch.no_grad()
    def evaluate(self, policy: Policy) -> Evaluation:
        """Computes all metrics; changes only the policy's fitted temperature."""
        policy.network.eval()
        set_noise(policy.network, False)
        metrics = score_text(policy, self.heldout_ids)
        policy.fit(metrics["eval/temperature"])
        metrics |= self._episodes(policy)
        samples = self._samples(policy)
        ids = [policy.tokenizer.encode(text).tolist() for _, text in samples]
        metrics |= {f"sample/distinct_{n}": diversity.distinct_share(ids, n) for n in (1, 2, 3)}
        metrics["sample/top_token_share"] = diversity.top_token_share(ids)
        return Evaluation(metrics, samples, policy.temperature)

    def known(self) -> dict[str, Metrics]:
        """See `Evaluator.known`."""
        return {name: {"eval/accuracy": hits, "eval/nll": nats} for name, (hits, nats) in self.baselines.items()}

    def table(self, evaluation: Evaluation, policy: Policy, step: int, done: str) -> Table:
        """Table of the policy and the baselines."""
        constant = repr(policy.tokenizer.decode([self.best_constant()[1]]))
        names = {"boltzmann": "softmax(Q/T)", "probability": "Q normalised", "reweighted": "log pi_b + beta (Q-V)"}
        return evaluation_table(evaluation.metrics, self.baselines, names[policy.declared], constant, step, done)

    def _episodes(self, policy: Policy) -> Metrics:
        collector = play_greedily(self.make_env(), policy, self.gamma)
        metrics = measure_episodes(collector, policy, self.q_is_return) | {
            "eval/return_best_constant": self.best_constant()[0]
        }
        texts = collector.texts()
        metrics |= {f"eval/distinct_{n}": diversity.distinct_share(texts, n) for n in (1, 2, 3)}
        return metrics | {"eval/top_token_share": diversity.top_token_share(texts)}

    def best_constant(self) -> tuple[float, int]:
        """Return and token of the best constant policy on the evaluation's episodes; computed once."""
        if self._best_constant is None:
            tokens = self.frequent_ids[:MAX_CONSTANTS]
            self._best_constant = max((self._constant_return(token), -token) for token in tokens)
        return self._best_constant[0], -self._best_constant[1]

    def _constant_return(self, token: int) -> float:
        env = self.make_env()
        env.reset()
        if env.spec.teacher_forced:
            rows = env.score_actions(torch.full((env.num_envs, env.spec.row_transitions), token, device=env.device))
            return float(rows.reward_BT.sum(1).mean())
        action_E = torch.full((env.num_envs,), token, device=env.device)
        return_E = torch.zeros(env.num_envs, device=env.device)
        ended_E = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        for _ in range(env.spec.row_transitions):
            step = env.step(action_E)
            return_E += step.reward_E * ~ended_E
            if step.sequence_reward_ET is not None:
                return_E = torch.where(step.row_end_E & ~ended_E, step.sequence_reward_ET.sum(1), return_E)
            ended_E |= step.row_end_E
        return float(return_E.mean())

    def _samples(self, policy: Policy) -> list[tuple[str, str]]:
        prompt = "\n" if policy.tokenizer.count_unknown("\n") == 0 else policy.tokenizer.decode(self.frequent_ids[:1])
        base = policy.temperature if policy.declared == "boltzmann" else 1.0
        texts = policy.generate(
            prompt, self.sample_tokens, n=self.samples, temperature=base * self.sample_temperature, seed=self.seed
        )
        return [(prompt, text) for text in texts]


def score_text(policy: Policy, ids: Tensor) -> Metrics:
    """Scores all tokens of `ids` but the first, in non-overlapping windows of `context` tokens, each after its left_context.

    Returns:
        eval/accuracy; eval/nll of the declared policy; eval/temperature, the one that fits the whole text best;
        eval/nll_softmax of softmax(Q / T) with the temperature cross-fitted.

    Raises:
        UserError: fewer than two positions hold a token that the policy can choose.
    """
    target_N = ids[1:].long().to(policy.device)
    known_N = torch.ones_like(target_N).bool() if policy.legal_A is None else policy.legal_A.flatten()[target_N]
    places_K = known_N.nonzero()[:, 0]
    everywhere = text_positions(policy, ids, policy.q)
    # A token that the agent may never choose has no probability under it; such positions count for accuracy only, as misses.
    known = everywhere if len(places_K) == len(known_N) else everywhere.where(places_K)
    hits = sum(int((q_MA.argmax(-1) == target_M).sum()) for q_MA, target_M in known.blocks())
    metrics = {"eval/accuracy": hits / len(known_N)}
    if len(places_K) < 2:
        raise UserError(
            f"of the {len(known_N) + 1:,} tokens to be scored, {len(places_K)} are known to the run and may be chosen by it; "
            "all others are unknown characters, or not in env.allowed: score another text"
        )
    metrics["eval/unscored_share"] = 1.0 - float(known_N.float().mean())
    if policy.declared == "reweighted":  # a policy as it is, with nothing to fit
        metrics["eval/nll"] = metrics["eval/nll_softmax"] = fitting.nats(known, 1.0)
        return metrics | {"eval/temperature": 1.0}
    metrics["eval/nll_softmax"] = fitting.cross_fitted_nats(known)
    metrics["eval/temperature"] = 1.0 / fitting.fit(known)
    metrics["eval/nll"] = metrics["eval/nll_softmax"]
    if policy.declared == "probability":
        log = text_positions(policy, ids, lambda output: policy.logits(output, "probability", 1.0))
        metrics["eval/nll"] = fitting.nats(log.where(places_K), 1.0)
    return metrics
