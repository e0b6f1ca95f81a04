"""Statistics over seeds: the interquartile mean, and 95 % intervals by bootstrap and by Student's t.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021: section 4.1 for the
stratified bootstrap, section 4.3 for the interquartile mean. Student's t is for a mean of few values that are nearly
normal, such as the differences of two policies seed by seed. Pure functions of numbers; N counts values, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000  # another seed of the resampling moves an end of the interval by some 1 % of its width

# Student's t, 97.5 % quantile, by degrees of freedom from 1. NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def interquartile_mean(values_XN: Array) -> Array:
    """Interquartile mean: floor(N / 4) values are left out at each end; with fewer than 4 it is the mean.

    One outlier among four seeds has little effect on it, unlike on the mean; it uses more of the data than the median.

    Args:
        values_XN: finite values, any leading axes.

    Returns:
        values_X.

    Raises:
        ValueError: there is no value.
    """
    sorted_XN = np.sort(np.asarray(values_XN, dtype=np.float64), axis=-1)
    count = sorted_XN.shape[-1]
    if count == 0:
        raise ValueError("the interquartile mean of no values is not defined")
    middle_X: Array = np.mean(sorted_XN[..., count // 4 : count - count // 4], axis=-1)
    return middle_X


def bootstrap_interval(
    strata: Sequence[Sequence[float]],
    statistic: Callable[[Array], Array] = interquartile_mean,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of a statistic over all values, each stratum (the seeds of one task) resampled separately.

    The statistic sees R samples, each with as many values of every stratum as were given, drawn with replacement; the
    interval runs between its (1 - confidence) / 2 quantiles from below and from above. It covers only what differs
    between seeds, not the choice of tasks. Few values make it too narrow: of normal values, a 95 % interval of the
    interquartile mean contained the true one in 74 % of 20,000 trials with 3 values, 90 % with 5, 93 % with 10 and 94 %
    with 20.

    Args:
        strata: the values of each stratum, in units that may be averaged over strata.
        statistic: values_RN -> values_R.
        confidence: between 0 and 1.
        resamples: R.
        seed: of the resampling; the same values and seed give the same interval.

    Returns:
        (low, high), or None where a stratum has fewer than two values: one seed has no spread.
    """
    if not strata or min(len(values) for values in strata) < 2:
        return None
    draw = np.random.default_rng(seed)
    drawn_RN = np.concatenate(
        [np.asarray(v, dtype=np.float64)[draw.integers(len(v), size=(resamples, len(v)))] for v in strata], axis=1
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(drawn_RN), [tail, 1 - tail])
    return float(low), float(high)


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of normal values by Student's t: mean -+ t_{.975, N - 1} s / sqrt(N).

    Args:
        values: one a seed, at most 31.

    Returns:
        (low, high), or None of fewer than two values.

    Raises:
        ValueError: more values than the table of quantiles has.
    """
    if len(values) < 2:
        return None
    if len(values) > len(T_975) + 1:
        raise ValueError(f"{len(values)} values: the table of Student's t ends at {len(T_975) + 1}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = T_975[len(values) - 2] * deviation / math.sqrt(len(values))
    return mean - half, mean + half
