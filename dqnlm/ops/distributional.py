"""Losses between distributions of returns: projection on fixed atoms, and regression of quantiles. Pure functions.

A distribution is M values z with probabilities p; a scalar target is the case M = 1, p = 1. X stands for any leading axes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def project_categorical(z_BTM: Tensor, p_BTM: Tensor, support_K: Tensor) -> Tensor:
    """Projects a distribution on the atoms of `support_K`, the nearest in Cramer distance (C51: Bellemare et al. 2017).

    Values outside the support move to its ends; the mass of every other value is split between its two neighbours in
    inverse proportion to their distance, so the mean stays. A value on an atom gives it all its mass, the last one too
    (the neighbours are i and i + 1 also there: none is counted twice or lost).

    Args:
        z_BTM: values, any order, any leading axes.
        p_BTM: their probabilities.
        support_K: increasing, K >= 2, the dtype of `z_BTM`; need not be evenly spaced.

    Returns:
        p_BTK, of the mass of `p_BTM`.

    Raises:
        ValueError: fewer than two atoms.
    """
    atoms = support_K.shape[0]
    if atoms < 2:
        raise ValueError(f"a support has at least two atoms, not {atoms}")
    z_BTM = torch.minimum(torch.maximum(z_BTM, support_K[0]), support_K[-1]).contiguous()
    lower_BTM = (torch.searchsorted(support_K, z_BTM, right=True) - 1).clamp(0, atoms - 2)
    low_BTM, high_BTM = support_K[lower_BTM], support_K[lower_BTM + 1]
    upper_share_BTM = (z_BTM - low_BTM) / (high_BTM - low_BTM)
    p_BTK = p_BTM.new_zeros(*z_BTM.shape[:-1], atoms)
    p_BTK = p_BTK.scatter_add(-1, lower_BTM, p_BTM * (1 - upper_share_BTM))
    return p_BTK.scatter_add(-1, lower_BTM + 1, p_BTM * upper_share_BTM)


def quantile_huber(prediction_XN: Tensor, tau_XN: Tensor, target_XM: Tensor, p_XM: Tensor, kappa: float) -> Tensor:
    """sum_n E_m [ |tau_n - 1(u < 0)| L(u) / kappa ], u = z_m - prediction_n (Dabney et al. 2018 a, b).

    L is the Huber loss with threshold kappa: u^2 / 2 where |u| <= kappa, kappa (|u| - kappa / 2) beyond. Divided by kappa it
    tends to |u| for kappa -> 0, and kappa 0 is that: plain quantile regression, whose minimiser is the quantile.

    Args:
        prediction_XN: predicted quantiles; the gradient is theirs.
        tau_XN: their levels, in [0, 1], one set for each X, or tau_N for all.
        target_XM: target values, return units.
        p_XM: their probabilities, summing to 1.
        kappa: threshold in return units, at least 0.

    Returns:
        loss_X, return units.
    """
    error_XNM = target_XM[..., None, :] - prediction_XN[..., :, None]
    size_XNM = error_XNM.abs()
    if kappa > 0:
        size_XNM = torch.where(size_XNM <= kappa, error_XNM.square() / (2 * kappa), size_XNM - kappa / 2)
    side_XNM = (tau_XN[..., None] - (error_XNM < 0).to(error_XNM.dtype)).abs()
    return (side_XNM * size_XNM * p_XM[..., None, :]).sum((-2, -1))
