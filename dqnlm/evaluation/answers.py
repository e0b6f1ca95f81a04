"""How good answers to held-out prompts are: greedy answers, their reward, and their distance from the references."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from dqnlm.agent.policy import Policy
from dqnlm.envs.base import Environment
from dqnlm.evaluation.episodes import Collector, EpisodeEvaluator, Evaluation
from dqnlm.evaluation.scores import scores
from dqnlm.evaluation.tables import episode_table
from dqnlm.metrics import Figures

_SHOWN = ("chrf", "bleu", "length_ratio", "distinct_2", "distinct_2_references")


class PairEvaluator(EpisodeEvaluator):
    """As `EpisodeEvaluator`, with the figures of `dqnlm.evaluation.scores`.

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
        self.texts = references

    def _figures(self, collector: Collector, policy: Policy) -> Figures:
        answers = [policy.tokenizer.decode(ids).rstrip("\n") for ids in collector.texts()]
        return super()._figures(collector, policy) | scores(answers, self.texts[: len(answers)])[0]

    def table(self, evaluation: Evaluation, policy: Policy, step: int, done: str) -> Table:
        """Greedy episodes, and the figures of their texts below."""
        del policy
        table = episode_table(evaluation.figures, {}, step, done)
        for name in _SHOWN:
            table.add_row(name.replace("_", " "), f"{evaluation.figures[f'eval/{name}']:.3f}")
        return table
