"""The interquartile mean by hand, how often the bootstrap interval contains what it should, and Student's t by integration."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dqnlm.reporting.statistics import T_975, bootstrap_interval, interquartile_mean, t_interval


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    """Bug: values are not sorted, or the wrong number is cut off.

    Sorted, 8 values lose 2 at each end: 1, 2 | 3, 4, 5, 8 | 9, 100 -> (3 + 4 + 5 + 8) / 4 = 5. Of 6, floor(6 / 4) = 1 is
    lost at each end: 0 | 1, 2, 4, 5 | 90 -> 3.
    """
    assert interquartile_mean(np.array([100.0, 3.0, 1.0, 8.0, 2.0, 5.0, 9.0, 4.0])) == 5.0
    assert interquartile_mean(np.array([90.0, 5.0, 1.0, 0.0, 2.0, 4.0])) == 3.0


def test_of_fewer_than_four_values_it_is_the_mean() -> None:
    """Bug: three seeds become their median, or one seed fails."""
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0
    assert interquartile_mean(np.array([7.0])) == 7.0
    with pytest.raises(ValueError, match="no values"):
        interquartile_mean(np.array([]))


def test_leading_axes_are_kept() -> None:
    """Bug: resamples are mixed, so that all of them have one statistic. Rows: (2 + 3) / 2 and (20 + 40) / 2."""
    values_RN = np.array([[3.0, 1.0, 9.0, 2.0], [40.0, 10.0, 20.0, 90.0]])
    assert interquartile_mean(values_RN).tolist() == [2.5, 30.0]


def test_a_single_seed_gives_no_interval() -> None:
    """Bug: one seed gets an interval of no width, which reads as certainty; also where only one task has a single seed."""
    assert bootstrap_interval([[1.0]]) is None
    assert bootstrap_interval([[1.0, 2.0, 3.0], [5.0]]) is None
    assert bootstrap_interval([]) is None and bootstrap_interval([[]]) is None


def test_two_values_by_hand() -> None:
    """Bug: drawn without replacement, or the wrong quantiles.

    Of values 0 and 1 the mean of a resample is 0, 1/2, 1 with chances 1/4, 1/2, 1/4. The 2.5 % and 97.5 % quantiles are 0
    and 1; those of a 40 % interval, at 30 % and 70 %, are both 1/2.
    """
    assert bootstrap_interval([[0.0, 1.0]]) == (0.0, 1.0)
    assert bootstrap_interval([[0.0, 1.0]], confidence=0.4) == (0.5, 0.5)
    assert bootstrap_interval([[4.0, 4.0, 4.0]]) == (4.0, 4.0)


def test_tasks_are_resampled_by_themselves() -> None:
    """Bug: values of all tasks are drawn from one pot, so that tasks of different level widen the interval.

    Each task is constant, so every stratified resample holds the same values: mean (0 + 100) / 2. Drawn from one pot of
    8, the mean would have a standard deviation of 50 / sqrt(8) = 18.
    """
    interval = bootstrap_interval([[0.0] * 4, [100.0] * 4], lambda values_RN: values_RN.mean(-1))
    assert interval == (50.0, 50.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    """Bug: a table that cannot be repeated."""
    values = [[0.1, 0.5, 0.7, 0.2, 0.9]]
    assert bootstrap_interval(values) == bootstrap_interval(values) != bootstrap_interval(values, seed=1, resamples=50)


def test_the_interval_contains_the_true_value_as_often_as_it_says() -> None:
    """Bug: an interval of the values rather than of their mean (contains it always), of half the width, or off centre.

    600 samples of 20 standard normal values, whose interquartile mean is 0 by symmetry. The percentile interval is a
    little narrow: in 20,000 trials it contained 0 in 93.7 %. The count is then binomial with mean 562 and standard
    deviation 6.0, and falls outside 536 to 588 with a chance of 1.9e-5: the false alarm, were the seeds drawn anew. Half
    the width would contain 0 in 69 % (414); an interval of the values themselves, always (600).
    """
    draw = np.random.default_rng(0)
    contained = 0
    for trial in range(600):
        interval = bootstrap_interval([draw.normal(size=20).tolist()], resamples=400, seed=trial)
        assert interval is not None
        contained += interval[0] <= 0 <= interval[1]
    assert 536 <= contained <= 588


def test_the_interval_over_two_tasks_contains_the_true_value_too() -> None:
    """Bug: strata are concatenated along the wrong axis, or only the first is resampled.

    Two tasks with means 0 and 1 and 10 values each: the mean of all is 1/2. Contained in 91.3 % of 20,000 trials; of 400
    the count has mean 365 and standard deviation 5.6, and falls outside 338 to 389 with a chance of 3.4e-06 (the false
    alarm, were the seeds drawn anew). With one task resampled alone the interval contains it in 77 % (308).
    """
    draw = np.random.default_rng(1)
    contained = 0
    for trial in range(400):
        strata = [draw.normal(mean, 1.0, size=10).tolist() for mean in (0.0, 1.0)]
        interval = bootstrap_interval(strata, lambda values_RN: values_RN.mean(-1), resamples=400, seed=trial)
        assert interval is not None
        contained += interval[0] <= 0.5 <= interval[1]
    assert 338 <= contained <= 389


def test_the_quantiles_of_students_t() -> None:
    """Bug: a digit of the table is wrong, or it is shifted by one degree of freedom.

    The density of t with n degrees of freedom is Gamma((n + 1) / 2) / (sqrt(n pi) Gamma(n / 2)) (1 + t^2 / n)^(-(n + 1) / 2).
    Half of the probability lies below 0; from 0 to the quantile there must be .475, up to the rounding of the quantile
    to three decimals: half of the last one times the density there.
    """
    for degrees, quantile in enumerate(T_975, 1):
        scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
        t_N = np.linspace(0.0, quantile, 20_001)
        density_N = scale * (1 + t_N**2 / degrees) ** (-(degrees + 1) / 2)
        assert float(np.trapezoid(density_N, t_N)) == pytest.approx(0.475, abs=0.0005 * float(density_N[-1]) + 1e-7)


def test_the_interval_by_students_t() -> None:
    """Bug: the deviation of the population in place of the sample's, or n for n - 1 degrees of freedom.

    1, 2, 3: mean 2, deviation 1, half the interval 4.303 / sqrt 3 = 2.4843.
    """
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.48434, 2 + 2.48434), abs=1e-4)
    assert t_interval([1.0]) is None and t_interval([]) is None
    assert t_interval([0.0] * 31) == (0.0, 0.0)
    with pytest.raises(ValueError, match="ends at 31"):
        t_interval([0.0] * 32)
