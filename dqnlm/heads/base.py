"""A head defines the meaning of the raw outputs: Q-values in return units, and the loss against a target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dqnlm.types import Bounds
from dqnlm.utils.context import RunContext


class Head(nn.Module, ABC):
    """Maps raw outputs to Q-values and losses. Other code uses `value`, never the raw outputs.

    Attributes:
        num_parameters: N, raw numbers for each action.
        is_distributional: it predicts a distribution of returns (`heads.distributional.DistributionalHead`), not only a mean.
        is_probability: Q is the probability that the action is the rewarded one; `log_probability` gives its log.
        is_scaled_by_bounds: Q is limited to the bounds of the reward, so nothing may be added to the return.
        needs_all_actions: the value of an action depends on the raw numbers of others.
        raw_is_q: a raw number is Q itself (but for a constant), so that cloned logits are a usable Q.
        low, high: bounds of the return, saved with the weights so that a policy can be loaded without its environment.
    """

    num_parameters = 1
    is_distributional = False
    is_probability = False
    is_scaled_by_bounds = False
    needs_all_actions = False
    raw_is_q = False
    low: Tensor
    high: Tensor

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(float(bounds.low)))
        self.register_buffer("high", torch.tensor(float(bounds.high)))

    def check(self, context: RunContext) -> None:
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    def project(self, make: Callable[[int, int, int], nn.Module], features: int, num_actions: int) -> nn.Module:
        """Builds the module from a body's features (..., D) to the raw outputs (..., A, N) of this head.

        Args:
            make: (features, num_actions, parameters of each action) -> a projection, the one that the user chose.
            features: D.
            num_actions: A.
        """
        return make(features, num_actions, self.num_parameters)

    @abstractmethod
    def value(self, raw_XAN: Tensor) -> Tensor:
        """q_XA in return units."""

    def q(self, outputs: dict[str, Tensor]) -> Tensor:
        """q_XA in return units from raw outputs q_XAN, and q2_XAN if present: the smaller of two Q-functions.

        (Clipped double Q-learning: Fujimoto et al. 2018.) Other outputs are not read.
        """
        q_XA = self.value(outputs["q"])
        return torch.minimum(q_XA, self.value(outputs["q2"])) if "q2" in outputs else q_XA

    @abstractmethod
    def loss_taken(self, raw_BTAN: Tensor, action_BT: Tensor, target_BT: Tensor) -> Tensor:
        """loss_BT of the action taken against its target in return units; does not use the rewards of other actions."""

    @abstractmethod
    def loss_all(self, raw_BTAN: Tensor, target_BTA: Tensor) -> Tensor:
        """loss_BT summed over all actions, each with its own target in return units."""

    def log_probability(self, raw_XAN: Tensor) -> Tensor | None:
        """Log of the probability that each action is the rewarded one, up to a constant; None if Q is no probability.
        """
        del raw_XAN
        return None

    def meaning(self) -> str | None:
        """What Q means besides a return, as a sentence for the inspection page; None if nothing."""
        return "Q is the probability of being the text's own token." if self.is_probability else None

    def clamped(self, target: Tensor) -> Tensor:
        """1.0 where a target lies outside the bounds and is clamped by the loss, else 0; zeros without bounds."""
        outside = (target < self.low - 1e-4) | (target > self.high + 1e-4)
        return outside.float()
