"""Preprocessing of logged rewards: keeping the best share of the episodes, and scaling.

The return of an episode is the plain sum of its rewards (no discount). An episode is all trajectories that share an
`episode` number; a trajectory without one is an episode of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from dqnlm.data.trajectories.records import Trajectory
from dqnlm.errors import UserError

RewardScaling = Literal["none", "standardise", "divide_by_deviation", "to_unit_range"]


def episodes(trajectories: Sequence[Trajectory]) -> list[list[int]]:
    """Indices of the trajectories of each episode, episodes in the order in which they begin."""
    found: dict[tuple[bool, int], list[int]] = {}
    for place, trajectory in enumerate(trajectories):
        alone = trajectory.episode < 0
        found.setdefault((alone, place if alone else trajectory.episode), []).append(place)
    return list(found.values())


def episode_returns(trajectories: Sequence[Trajectory]) -> list[float]:
    """The return of each episode, in the order of `episodes`."""
    return [math.fsum(r for i in places for r in trajectories[i].rewards) for places in episodes(trajectories)]


def keep_best(trajectories: Sequence[Trajectory], share: float) -> tuple[list[Trajectory], str]:
    """The trajectories of the best episodes, in their old order (for filtered behaviour cloning), and a note.

    Args:
        trajectories: at least one.
        share: of the episodes, in (0, 1]; their number is rounded up. Of equal returns the earlier ones are kept.

    Raises:
        UserError: the share is outside its range.
    """
    if not 0 < share <= 1:
        raise UserError(f"data.keep_best is {share}; it must be above 0 and at most 1, or null to keep everything.")
    members, returns = episodes(trajectories), episode_returns(trajectories)
    # The small term keeps a whole number whole: 0.07 * 100 is 7.000000000000001 in floating point.
    count = max(1, math.ceil(share * len(returns) - 1e-9))
    best = sorted(range(len(returns)), key=lambda i: -returns[i])[:count]  # stable: ties by order
    kept = sorted(place for i in best for place in members[i])
    note = (
        f"Kept the best {count:,} of {len(returns):,} episodes (data.keep_best={share:g}): returns of at least "
        f"{returns[best[-1]]:.6g}, mean {_mean([returns[i] for i in best]):.6g} (of all: {_mean(returns):.6g})."
    )
    return [trajectories[place] for place in kept], note


class Scale(NamedTuple):
    """An affine scaling: new return = (return - shift) / unit; `name` is the setting."""

    name: RewardScaling
    shift: float
    unit: float


def scale(
    trajectories: Sequence[Trajectory], scaling: RewardScaling, every: Sequence[Trajectory] = ()
) -> tuple[list[Trajectory], str | None]:
    """Scales the rewards; returns them and a note with the arithmetic (None where nothing changed); see `measured_among`.

    Raises:
        UserError: as `measured` and `applied`.
    """
    found = measured_among(trajectories, every or trajectories, scaling)
    return applied(trajectories, found), described(found)


def measured_among(
    kept: Sequence[Trajectory], every: Sequence[Trajectory], scaling: RewardScaling
) -> Scale:
    """As `measured`, of the episodes that were kept; where their returns are all equal (the best of a log of 0 and 1), of all.

    Raises:
        UserError: as `measured`.
    """
    returns = episode_returns(kept)
    return measured(kept if min(returns) < max(returns) else every, scaling)


def measured(trajectories: Sequence[Trajectory], scaling: RewardScaling) -> Scale:
    """Shift and unit, over the returns G of all episodes:

        standardise           shift = mean of G,              unit = sqrt(mean of (G - mean)^2)
        divide_by_deviation   shift = 0,                      unit = the same deviation
        to_unit_range         shift = (max G + min G) / 2,    unit = (max G - min G) / 2: the range becomes [-1, 1]
        none                  shift = 0,                      unit = 1

    Raises:
        UserError: all returns are equal.
    """
    if scaling == "none":
        return Scale(scaling, 0.0, 1.0)
    returns = episode_returns(trajectories)
    low, high, mean = min(returns), max(returns), _mean(returns)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        raise UserError(
            f"data.reward_scaling={scaling} cannot be done: the returns of all {len(returns):,} episodes are {mean:.6g}, so "
            "there is no variance to divide by. Set data.reward_scaling=none, or keep more episodes (data.keep_best)."
        )
    deviation = math.sqrt(_mean([(g - mean) ** 2 for g in returns]))
    shift, unit = {
        "standardise": (mean, deviation),
        "divide_by_deviation": (0.0, deviation),
        "to_unit_range": ((high + low) / 2, (high - low) / 2),
    }[scaling]
    return Scale(scaling, shift, unit)


def applied(trajectories: Sequence[Trajectory], scaling: Scale) -> list[Trajectory]:
    """Every reward divided by the unit; the shift is first taken from the last reward of each episode, so that a reward in
    the middle keeps its sign and zeros stay zeros.

    Raises:
        UserError: a shift is asked for and an episode continues after its last row (`next`): its end is not there to carry the
            shift, and paying it elsewhere would change which behaviour is best.
    """
    _, shift, unit = scaling
    last = [places[-1] for places in episodes(trajectories)]
    cut = sum(trajectories[place].next != "" for place in last)
    if shift and cut:
        raise UserError(
            f"data.reward_scaling={scaling.name} moves the return of each episode at its end, but {cut:,} of {len(last):,} "
            "episodes continue after their last row (they have a next text). Use data.reward_scaling=divide_by_deviation."
        )
    if scaling.name == "none":
        return list(trajectories)
    result = [replace(t, rewards=tuple(r / unit for r in t.rewards)) for t in trajectories]
    for place in last if shift else []:
        rewards = trajectories[place].rewards
        result[place] = replace(result[place], rewards=(*result[place].rewards[:-1], (rewards[-1] - shift) / unit))
    return result


def described(scaling: Scale) -> str | None:
    """The arithmetic as text; None where nothing changes."""
    if scaling.name == "none":
        return None
    moved = f", after {scaling.shift:.6g} was taken from the last reward of each episode" if scaling.shift else ""
    return f"Rewards were scaled (data.reward_scaling={scaling.name}): each is divided by {scaling.unit:.6g}{moved}."


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
