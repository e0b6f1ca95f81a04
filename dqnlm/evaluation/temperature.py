"""Fits the temperature at which softmax(Q / T) best predicts a text, by its negative log-likelihood in nats.

The mean negative log-likelihood is convex in the inverse temperature b = 1 / T:

    d/db = mean(E_p[Q] - Q[target]),  d2/db2 = mean(Var_p[Q]),  p = softmax(b Q)

so the sign of the slope gives the side of b on which the one minimum lies, and Newton's method finds it; where a step would
leave the remaining interval, or be more than fourfold, the interval is halved (on the log scale). Newton alone can
oscillate around the minimum: where Q is nearly one-hot the slope is a steep sigmoid of b.

All are sums over positions, taken block by block (`ops.positions`), so that Q of a long text need not be held.
"""

from __future__ import annotations

import math

from torch import Tensor

from dqnlm.evaluation.positions import CachedLogits, LogitSource

_SPREAD = 4000  # positions of a first fit
_SPREAD_NUMBERS = 2**27  # Q-values that they may be


def nats(positions: LogitSource, inverse_temperature: float) -> float:
    """Mean of -log softmax(b Q)[target]; illegal actions are -inf in Q. Targets that are illegal give inf."""
    total = 0.0
    for q_MA, target_M in positions.blocks():
        logit_MA = q_MA * inverse_temperature
        total += float((logit_MA.logsumexp(-1) - logit_MA.gather(1, target_M[:, None])[:, 0]).sum())
    return total / len(positions)


def fit(positions: LogitSource, start: float | None = None, steps: int = 40) -> float:
    """Finds the b in [1e-3, 1e4] that minimises `nats`.

    Args:
        positions: Q float32, finite but for -inf at illegal actions; targets must be legal.
        start: a first guess; by default the fit to some thousand positions spread over the text, to save time.
        steps: at most so many steps, each changing b by a factor of at most 4 unless it halves the interval.
    """
    if start is None:
        stride = len(positions) // min(_SPREAD, max(_SPREAD_NUMBERS // positions.num_actions, 1))
        spread = positions.every(max(stride, 1)).held()
        rough = 1.0 / max(float(spread.q_NA.masked_fill(spread.q_NA.isinf(), 0.0).std()), 1e-3)
        start = fit(spread, rough) if stride > 1 else rough
    inverse, low, high = start, 1e-3, 1e4
    for _ in range(steps):
        slope, curvature = _derivatives(positions, inverse)
        low, high = (low, min(high, inverse)) if slope > 0 else (max(low, inverse), high)
        proposal = min(max(inverse - slope / max(curvature, 1e-12), inverse / 4), inverse * 4)
        before, inverse = inverse, proposal if low < proposal < high else math.sqrt(low * high)
        if abs(inverse - before) <= 1e-4 * before:
            break
    return inverse


def _derivatives(positions: LogitSource, inverse: float) -> tuple[float, float]:
    """First and second derivative of `nats` in b."""
    slope = curvature = 0.0
    for q_MA, target_M in positions.blocks():
        finite_MA = q_MA.masked_fill(q_MA.isinf(), 0.0)
        probability_MA = (q_MA * inverse).softmax(-1)
        mean_M = (probability_MA * finite_MA).sum(-1)
        slope += float((mean_M - finite_MA.gather(1, target_M[:, None])[:, 0]).sum())
        curvature += float(((probability_MA * finite_MA.square()).sum(-1) - mean_M.square()).sum())
    return slope / len(positions), curvature / len(positions)


def fit_inverse_temperature(q_NA: Tensor, target_N: Tensor, start: float | None = None) -> float:
    """`fit` for tensors in memory: q_NA float32, target_N int64."""
    return fit(CachedLogits(q_NA, target_N), start)


def cross_fitted_nats(positions: LogitSource) -> float:
    """Nats with each half of the text scored at the temperature fitted to the other half.

    Raises:
        ValueError: fewer than two positions.
    """
    if len(positions) < 2:
        raise ValueError("cross-fitting needs at least two positions")
    first, second = positions.halves()
    of_first, of_second = nats(first, fit(second)), nats(second, fit(first))
    return (of_first * len(first) + of_second * len(second)) / len(positions)


