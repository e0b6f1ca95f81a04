"""How much each setting of a sweep matters for its objective: the share of the variance that its values explain.

Of N jobs with objective y and mean m, and a setting with k levels of n_j jobs and mean m_j each:

    eta squared      sum_j n_j (m_j - m)^2 / sum (y - m)^2
    epsilon squared  (SS_between - (k - 1) MS_within) / SS_total,  MS_within = SS_within / (N - k)

Eta squared is Pearson's correlation ratio; of few jobs it is too large, as k means fit k values: where the setting does not
matter it is (k - 1) / (N - 1) on average. Epsilon squared (Kelley, "An unbiased correlation ratio measure", PNAS 1935) takes
that away, and is 0 on average there. Each setting is seen alone: over all combinations of the values the shares of settings
that do not interact add up to at most 1, and what is missing is their interaction and chance; where the settings were not
combined in full, as in a search, one may get the share of another. Pure functions of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_A_LEVEL = 2  # jobs with the same value; with one each nothing is known about chance
MOST_BINS = 5  # of a numeric setting that was searched over a range
FEW_JOBS = 10  # a warning below that


@dataclass(frozen=True)
class Importance:
    """One setting.

    Attributes:
        setting: its key.
        levels: the label of each value, or range of values, with its number of jobs and their mean objective.
        eta: eta squared, 0 to 1; None where it is not defined: no two jobs share a value, or all have the same objective.
        epsilon: epsilon squared, at most eta; below 0 the setting explains less than chance would.
    """

    setting: str
    levels: list[tuple[str, int, float]]
    eta: float | None
    epsilon: float | None


def importance(setting: str, values: Sequence[str], objective: Sequence[float]) -> Importance:
    """The importance of one setting.

    Args:
        setting: its key.
        values: of each job, as text; many different numbers are binned into ranges, see `binned`.
        objective: finite, of each job.
    """
    labels = binned(values)
    names = list(dict.fromkeys(labels)) if labels is values else sorted(set(labels), key=lambda label: float(label.split()[0]))
    y = np.asarray(objective, dtype=np.float64)
    groups = [y[[label == name for label in labels]] for name in names]
    levels = [(name, len(group), float(group.mean())) for name, group in zip(names, groups, strict=True)]
    total = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
    count, k = len(y), len(groups)
    if total == 0.0 or k < 2 or count <= k:
        return Importance(setting, levels, None, None)
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups))
    eta = 1.0 - within / total
    return Importance(setting, levels, eta, eta - (k - 1) * within / (count - k) / total)


def binned(values: Sequence[str]) -> Sequence[str]:
    """The values themselves where they repeat or are words; else labels `low to high` of up to five ranges of as many values."""
    numbers = as_numbers(values)
    if numbers is None or len(set(numbers)) <= MOST_BINS or len(set(numbers)) * FEWEST_A_LEVEL <= len(values):
        return values
    distinct = np.unique(numbers)
    bins = min(MOST_BINS, max(2, math.isqrt(len(values))))
    labels: dict[float, str] = {}
    for part in np.array_split(distinct, bins):
        labels |= {float(value): f"{part[0]:.3g} to {part[-1]:.3g}" for value in part}
    return [labels[number] for number in numbers]


def as_numbers(values: Sequence[str]) -> list[float] | None:
    """The values as finite numbers; None where one is none."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def cautions(found: Sequence[Importance], jobs: int) -> list[str]:
    """What a reader must know before believing the shares of `jobs` finished jobs."""
    told = []
    if jobs < FEW_JOBS:
        told.append(f"Only {jobs} finished jobs: shares of so few are little more than chance.")
    thin = [item.setting for item in found if jobs < 3 * len(item.levels)]
    if thin:
        told.append(f"Fewer than three jobs a value: {', '.join(thin)}; look at epsilon squared, and repeat with seeds.")
    undefined = [item.setting for item in found if item.eta is None]
    if undefined:
        told.append(f"Not defined, as no two jobs share a value or all have the same objective: {', '.join(undefined)}.")
    return told
