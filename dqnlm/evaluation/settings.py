"""Settings of the group `evaluation`: how often, on how much, and which policy counts as the best."""

from __future__ import annotations

from dataclasses import dataclass

from dqnlm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """See configs/evaluation/.

    Attributes:
        every: rounds between two evaluations.
        episodes: greedy episodes, or prompts, of each.
        samples: texts generated at each.
        sample_tokens: tokens in each of them.
        sample_temperature: factor of the policy's temperature for them.
        betas: further values of policy.beta that are evaluated beside the one that acts.
        best_metric: metric that the best policy is chosen by; None: the first that the evaluator declares a direction of.
        patience: evaluations without a better best_metric before training stops; None: no early stopping.

    Raises:
        UserError: a number outside its range.
    """

    every: int
    episodes: int
    samples: int
    sample_tokens: int
    sample_temperature: float
    betas: list[float]
    best_metric: str | None
    patience: int | None

    def __post_init__(self) -> None:
        for name in ("every", "episodes", "samples", "sample_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"evaluation.{name} must be at least 1, not {getattr(self, name)}")
        if self.sample_temperature <= 0:
            raise UserError(f"evaluation.sample_temperature must be above 0, not {self.sample_temperature}")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"evaluation.patience must be at least 1 or null, not {self.patience}")
