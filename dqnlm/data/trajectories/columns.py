"""Several rewards of a row, each in a column of its own.

    data.rewards=[reward_a,reward_b]              all of them: each is learned by a Q of its own (`objectives.per_reward`)
    data.reward_weights={reward_a: 1, reward_b: 0.5}   one reward, the weighted sum of the columns

Whatever the row's form (`forms`), it is read once for each column, with that column in the place of its reward.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dqnlm.data.trajectories.forms import REWARDS, FormSettings, RewardColumns, records_of
from dqnlm.data.trajectories.records import Trajectory, trajectory_of
from dqnlm.data.trajectories.reward_values import require_alike, value_of
from dqnlm.data.trajectories.rewards import RewardScaling, Scale, applied, described, measured_among
from dqnlm.errors import UserError
from dqnlm.utils.output_names import suffix
from dqnlm.utils.suggest import nearest

_OWN = ("turns", "chosen", "rejected")  # fields of the forms whose rewards stand elsewhere
_REPLACED = (*REWARDS, "rewards", "label")  # what a row is paid by where no column is named


def reward_columns(rewards: Sequence[str] | None, weights: Mapping[str, float] | None) -> RewardColumns | None:
    """The settings `data.rewards` and `data.reward_weights`, checked; None where both are null.

    Raises:
        UserError: both are given, a column is named twice (or so that its Q would have another's name), or a weight is no number.
    """
    if rewards is None and weights is None:
        return None
    if rewards is not None and weights is not None:
        raise UserError(
            "data.rewards learns a Q for each column, data.reward_weights one Q of their weighted sum: set one of them to null"
        )
    if weights is not None:
        wrong = [name for name, weight in weights.items() if not math.isfinite(weight)]
        if wrong or not any(weights.values()):
            why = f"{wrong[0]} has {weights[wrong[0]]}" if wrong else "no weight is other than 0"
            raise UserError(f"data.reward_weights are a finite number for each column, not all 0: {why}")
        return RewardColumns(tuple(weights), tuple(weights.values()))
    names = tuple(rewards or ())
    if not names:
        raise UserError("data.rewards=[] names no column: name the columns of the rewards, or set it to null")
    for place, name in enumerate(names):
        for other in names[:place]:
            if suffix(name) == suffix(other):
                raise UserError(
                    f"data.rewards names {other} and {name}, whose outputs would both be called q_{suffix(name)}: rename a column"
                )
    return RewardColumns(names, None)


def trajectories_of(row: Any, place: str, forms: FormSettings) -> list[Trajectory]:
    """The trajectories of one row, with all rewards that the settings name.

    Raises:
        UserError: as `records_of` and `trajectory_of`; a column is not there, or writes its rewards in two ways.
    """
    columns = forms.columns
    if columns is None or not isinstance(row, Mapping):
        return [trajectory_of(place, record) for record in records_of(row, place, forms)]
    rest = replace(forms, counts=Counter(), left_out=Counter())  # a row is counted once
    found = []
    for number, name in enumerate(columns.names):
        where = f"{place}, {name}"
        paid_row = _paid_by(row, name, place, columns)
        paid = value_of(row[name], forms.ratings)
        require_alike(row[name], None if paid is None else paid.kind, name, place, forms.kinds)
        records = records_of(paid_row, where, rest if number else forms)
        found.append([trajectory_of(where, record) for record in records])
    return [_joined(parts, place, columns) for parts in zip(*found, strict=True)]


def _paid_by(row: Mapping[str, Any], name: str, place: str, columns: RewardColumns) -> dict[str, Any]:
    """The row with one column as its reward."""
    own = [key for key in _OWN if row.get(key) is not None]
    if own:
        raise UserError(
            f"{place} has {own[0]}, whose rewards do not stand in columns of the row, as {columns.setting} says: give prompt, "
            "completion and the columns"
        )
    if row.get(name) is None:
        there = [str(key) for key, value in row.items() if value is not None]
        near = nearest(name, [key for key in there if key not in columns.names])
        raise UserError(
            f"{place} has no {name} ({columns.setting}); it has {', '.join(there) or 'nothing'}"
            + (f"\n  did you mean {near}?" if near else "")
        )
    return {key: value for key, value in row.items() if key not in _REPLACED} | {"reward": row[name]}


def _joined(parts: Sequence[Trajectory], place: str, columns: RewardColumns) -> Trajectory:
    """One trajectory with the rewards of all."""
    first = parts[0]
    if columns.weights is None:
        return replace(first, place=place, more=tuple(part.rewards for part in parts[1:]))
    paid = zip(*(part.rewards for part in parts), strict=True)
    weighed = tuple(math.fsum(w * r for w, r in zip(columns.weights, rewards, strict=True)) for rewards in paid)
    return replace(first, place=place, rewards=weighed)


def scales_of(
    kept: Sequence[Trajectory], every: Sequence[Trajectory], scaling: RewardScaling, names: Sequence[str]
) -> list[Scale]:
    """The scaling of each reward by itself, see `rewards.measured_among`; `names` is empty where there is one.

    Raises:
        UserError: all returns of one of them are equal.
    """
    found = []
    for place, name in enumerate(names or ("",)):
        try:
            of_kept, of_every = ([item.of_reward(place) for item in part] for part in (kept, every))
            found.append(measured_among(of_kept, of_every, scaling))
        except UserError as error:
            raise UserError(f"{name}: {error}" if name else str(error)) from error
    return found


def scaled(part: Sequence[Trajectory], scales: Sequence[Scale]) -> list[Trajectory]:
    """Every reward by its own scale, see `rewards.applied`."""
    each = [applied([item.of_reward(place) for item in part], scale) for place, scale in enumerate(scales)]
    return [replace(first, more=tuple(item.rewards for item in more)) for first, *more in zip(*each, strict=True)]


def scaling_notes(scales: Sequence[Scale], names: Sequence[str]) -> list[str]:
    """What `scaled` did, a sentence for each reward; nothing where nothing changed."""
    said = [(name, described(scale)) for name, scale in zip(names or ("",), scales, strict=True)]
    return [f"{name}: {note}" if name else note for name, note in said if note is not None]
