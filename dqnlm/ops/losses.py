"""Errors of one prediction against one target, elementwise; the learner masks, weights and averages.

The minimiser of `squared` and `logistic` is the conditional mean of the target, so they are consistent regressions on
returns; that of `huber` lies between mean and median where errors exceed 1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    """0.5 (prediction - target)^2; its gradient is the TD error."""
    return 0.5 * (prediction - target).square()


def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared within 1 of the target, linear beyond: the clipped error of Mnih et al. 2015 (delta = 1 return unit)."""
    return F.huber_loss(prediction, target, reduction="none", delta=1.0)


def logistic(logit: Tensor, label: Tensor) -> Tensor:
    """-label log sigmoid(logit) - (1 - label) log(1 - sigmoid(logit)), with a soft label in [0, 1].

    The gradient in the logit is sigmoid(logit) - label: bounded, and not flattened where the prediction is near 0, which
    squared error on a bounded output is. Returns as classification: Farebrother et al. 2024.
    """
    return F.binary_cross_entropy_with_logits(logit, label, reduction="none")


def expectile(error: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(error < 0)| error^2 / 2, error = target - prediction (Newey and Powell 1987; Kostrikov et al. 2022).

    Its minimiser is the expectile of the targets: their mean for 1/2 (half of `squared`), near 1 almost their greatest.
    """
    return 0.5 * (expectile - (error < 0).to(error.dtype)).abs() * error.square()


def masked_mean(value_BT: Tensor, mask_BT: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean over the places where mask is 1; 0 when there are none. Scalar. `count` (at least 1) in the place of their number."""
    return (value_BT * mask_BT).sum() / (mask_BT.sum().clamp(min=1) if count is None else count)
