"""Evaluation on held-out prompts: reward of greedy answers, and their distance from the references."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from dqnlm.agent.policy import Policy
from dqnlm.envs.base import Environment
from dqnlm.evaluation.base import Evaluation
from dqnlm.evaluation.episodes import EpisodeCollector, EpisodeEvaluator
from dqnlm.evaluation.scores import scores
from dqnlm.metrics import Metric, Metrics

OF_TEXTS = (
    Metric("eval/chrf", "chrF", "chrF of the greedy answers", "chrF, 0 to 100", True),
    Metric("eval/bleu", "BLEU", "BLEU of the greedy answers", "BLEU, 0 to 100", True),
    Metric("eval/length_ratio", "length ratio", "Characters of the answers over characters of the references", "ratio"),
    Metric("eval/distinct_2", "distinct-2", "Distinct pairs of words in the answers", "share of pairs"),
    Metric("eval/distinct_2_references", "distinct-2 of the references", "Distinct pairs of words in the references",
           "share of pairs"),
)  # fmt: skip


class PairEvaluator(EpisodeEvaluator):
    """As `EpisodeEvaluator`, with the metrics of `dqnlm.evaluation.scores`.

    Args:
        make_env: a new environment in its evaluation mode, whose copy i answers prompt i.
        gamma: discount of eval/overestimation.
        betas: further strengths of a reweighted policy.
        samples: answers shown.
        q_is_return: as there.
        references: answer i of the data, as text.
    """

    def __init__(
        self,
        make_env: Callable[[], Environment],
        gamma: float,
        betas: list[float],
        samples: int,
        q_is_return: bool,
        references: list[str],
    ) -> None:
        super().__init__(make_env, gamma, betas, samples, q_is_return)
        self.texts, self.metrics = references, (*self.metrics, *OF_TEXTS)

    def _metrics(self, collector: EpisodeCollector, policy: Policy) -> Metrics:
        answers = [policy.tokenizer.decode(ids).rstrip("\n") for ids in collector.texts()]
        return super()._metrics(collector, policy) | scores(answers, self.texts[: len(answers)])[0]

    def table(self, evaluation: Evaluation, policy: Policy, step: int, done: str) -> Table:
        """Table of greedy episodes, with the metrics of their texts below."""
        table = super().table(evaluation, policy, step, done)
        for metric in OF_TEXTS:
            table.add_row(metric.label, f"{evaluation.metrics[metric.name]:.3f}")
        return table
