"""The interface of evaluators: scores a policy and declares its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rich.table import Table

from dqnlm.agent.policy import Policy
from dqnlm.evaluation.tables import episode_table
from dqnlm.metrics import Metric, Metrics


@dataclass
class Evaluation:
    """Metrics, samples as (prompt, text), and the fitted temperature (1 where there is no text)."""

    metrics: Metrics
    samples: list[tuple[str, str]] = field(default_factory=list)
    temperature: float = 1.0


class Evaluator(ABC):
    """Scores a policy on the same held-out data, or the same episodes, at every evaluation.

    Attributes:
        metrics: those of `evaluate`, with their names, labels and directions. Those with a direction may be chosen as
            `best_metric`; the first of them is the default.
        shows_prompt: whether a sample is shown behind its prompt.
    """

    metrics: Sequence[Metric]
    shows_prompt: ClassVar[bool] = True

    def prepare(self) -> None:  # noqa: B027
        """Computes what is the same at every evaluation; the first one does it, where nobody asked before."""

    @abstractmethod
    def evaluate(self, policy: Policy) -> Evaluation:
        """Computes all metrics, by name; changes only the policy's fitted temperature."""

    def table(self, evaluation: Evaluation, policy: Policy, step: int, done: str) -> Table:
        """The metrics found, for the terminal, one column each; `step` in updates, `done` is the progress of the run."""
        del policy
        found = [metric for metric in self.metrics if metric.name in evaluation.metrics]
        return episode_table(evaluation.metrics, found, {}, step, done)

    def known(self) -> dict[str, Metrics]:
        """Name -> metrics of what is known without learning (guessing at random, word counts, the optimum); may be {}."""
        return {}

    def best_candidates(self) -> dict[str, bool]:
        """name -> whether higher is better, of the metrics that can select the best policy; the default first."""
        return {m.name: m.higher_is_better for m in self.metrics if m.higher_is_better is not None}
