"""The temperature at which softmax(Q / T) best predicts text, and what it then costs in nats.

The mean negative log-likelihood is convex in the inverse temperature b = 1 / T:

    d/db = mean(E_p[Q] - Q[target]),  d2/db2 = mean(Var_p[Q]),  p = softmax(b Q)

so the sign of the slope says on which side of b its one minimum lies, and Newton's method finds it; where a step would
leave the interval that is left, or be more than fourfold, the interval is halved (on the log scale). Newton alone can jump
to and fro over the minimum: where Q is nearly one-hot the slope is a steep sigmoid of b.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SPREAD = 4000  # positions of a first fit


def nats(q_NA: Tensor, target_N: Tensor, inverse_temperature: float) -> float:
    """Mean of -log softmax(b Q)[target]; illegal actions are -inf in `q_NA`. Targets that are illegal give inf."""
    logit_NA = q_NA * inverse_temperature
    return float((logit_NA.logsumexp(-1) - logit_NA.gather(1, target_N[:, None])[:, 0]).mean())


def fit_inverse_temperature(q_NA: Tensor, target_N: Tensor, start: float | None = None, steps: int = 40) -> float:
    """The b in [1e-3, 1e4] that minimises `nats`.

    Args:
        q_NA: float32, finite but for -inf at illegal actions; targets must be legal.
        target_N: int64.
        start: a first guess; by default the fit to some thousand positions spread over the text, to save time.
        steps: at most so many steps, each changing b by a factor of at most 4 unless it halves the interval.
    """
    finite_NA = q_NA.masked_fill(q_NA.isinf(), 0.0)
    chosen = finite_NA.gather(1, target_N[:, None]).mean()
    if start is None:
        stride = len(q_NA) // _SPREAD
        rough = 1.0 / max(float(finite_NA.std()), 1e-3)
        start = fit_inverse_temperature(q_NA[::stride], target_N[::stride], rough) if stride > 1 else rough
    inverse, low, high = start, 1e-3, 1e4
    for _ in range(steps):
        probability_NA = (q_NA * inverse).softmax(-1)
        mean_N = (probability_NA * finite_NA).sum(-1)
        slope = float(mean_N.mean() - chosen)
        curvature = float(((probability_NA * finite_NA.square()).sum(-1) - mean_N.square()).mean())
        low, high = (low, min(high, inverse)) if slope > 0 else (max(low, inverse), high)
        proposal = min(max(inverse - slope / max(curvature, 1e-12), inverse / 4), inverse * 4)
        before, inverse = inverse, proposal if low < proposal < high else math.sqrt(low * high)
        if abs(inverse - before) <= 1e-4 * before:
            break
    return inverse


def cross_fitted_nats(q_NA: Tensor, target_N: Tensor) -> float:
    """Each half of the text scored at the temperature that is best for the other half, so that no half fits itself."""
    middle = len(target_N) // 2
    first, second = (q_NA[:middle], target_N[:middle]), (q_NA[middle:], target_N[middle:])
    if middle == 0:
        raise ValueError("cross-fitting needs at least two positions")
    of_first = nats(*first, fit_inverse_temperature(*second))
    of_second = nats(*second, fit_inverse_temperature(*first))
    return (of_first * middle + of_second * (len(target_N) - middle)) / len(target_N)


def distinct_share(tokens: list[list[int]], n: int) -> float:
    """distinct-n (Li et al. 2016): different n-grams over all n-grams of the texts together; 0 where there are none."""
    grams = [tuple(text[i : i + n]) for text in tokens for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def top_token_share(tokens: list[list[int]]) -> float:
    """Share of the most frequent token among all."""
    flat = torch.tensor([t for text in tokens for t in text], dtype=torch.int64)
    return float(flat.bincount().max() / len(flat)) if len(flat) else 0.0
