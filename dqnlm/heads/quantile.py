"""Quantiles of the return at fixed levels (QR-DQN: Dabney et al. 2018a)."""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.distributional import DistributionalHead, at_least_float32, midpoints, taken
from dqnlm.ops.distributional import quantile_huber
from dqnlm.types import Bounds


class Quantile(DistributionalHead):
    """raw number i is the quantile at level (i + 1/2) / N of the return, in return units; each has probability 1 / N.

    Needs no bounds of the return, and clamps nothing.

    Args:
        bounds: of the return.
        num_quantiles: N, 1 or more.
        kappa: error in return units up to which the loss is quadratic; 0 for quantile regression proper. Where returns
            differ by less than kappa the numbers learned are expectiles, not quantiles, and their mean is not the mean
            return unless the distribution is symmetric: for a reward of 1 with probability 1/20 it is 0.117.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, bounds: Bounds, *, num_quantiles: int, kappa: float) -> None:
        super().__init__(bounds)
        check_quantiles(num_quantiles, kappa)
        self.num_parameters = num_quantiles
        self.kappa = kappa

    def atoms(self, raw_XN: Tensor) -> tuple[Tensor, Tensor]:
        z_XN = at_least_float32(raw_XN)
        return z_XN, torch.full_like(z_XN, 1 / z_XN.shape[-1])

    def loss_atoms(self, raw_BTAN: Tensor, action_BT: Tensor, z_BTM: Tensor, p_BTM: Tensor) -> Tensor:
        prediction_BTN = taken(raw_BTAN, action_BT)
        tau_N = midpoints(self.num_parameters, prediction_BTN)
        return quantile_huber(prediction_BTN, tau_N, z_BTM, p_BTM, self.kappa)

    def clamped(self, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


def check_quantiles(num_quantiles: int, kappa: float) -> None:
    """Raises a UserError that names the key of a value out of range."""
    if num_quantiles < 1:
        raise UserError(f"head.num_quantiles is {num_quantiles}; the least is 1. Set head.num_quantiles=1 or more.")
    if not kappa >= 0:
        raise UserError(
            f"head.kappa is {kappa}; it cannot be below 0. Set head.kappa=0.0 for plain quantile regression."
        )
