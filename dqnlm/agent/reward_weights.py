"""Weights of several learned rewards, chosen when a run acts: sum_i w_i Q_i, from a setting or from the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dqnlm.errors import UserError
from dqnlm.utils.suggest import suggestion


def weights_of(given: Mapping[str, float] | None, rewards: Sequence[str], what: str) -> dict[str, float]:
    """A weight for each reward, in their order: those given, 0 for the others; None gives all the same, 1 over their number.

    Args:
        given: name -> number.
        rewards: names that the run learned; none where it learned one reward, which has no weight.
        what: the setting or the option, for messages.

    Raises:
        UserError: a name that is no reward of the run, a number that is not finite or below 0, or weights of a run on one reward.
    """
    if not rewards:
        if given:
            raise UserError(f"{what}: this run learned one reward, without a weight (data.rewards names several): leave it out")
        return {}
    if given is None:
        return {name: 1 / len(rewards) for name in rewards}
    for name, weight in given.items():
        if name not in rewards:
            known = f"it learned {', '.join(rewards)}{suggestion(name, rewards)}"
            raise UserError(f"{what}: {name} is no reward of this run; {known}")
        if not 0 <= weight < math.inf:
            raise UserError(
                f"{what}: the weight of {name} is {weight:g}; it must be finite and at least 0: Q is learned low for what the "
                "log does not show, and a weight below 0 would make that the best. To have less of it, log it with the other sign"
            )
    return {name: float(given.get(name, 0.0)) for name in rewards}


def read_weights(text: str, option: str) -> dict[str, float]:
    """`reward_a=1,reward_b=.3` as name -> number.

    Raises:
        UserError: a part is no NAME=NUMBER, or a name stands twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not equals or math.isnan(weight):
            raise UserError(f"{option}: {part.strip()!r} is no NAME=NUMBER; write {option} reward_a=1,reward_b=.3")
        if name in found:
            raise UserError(f"{option} has {name} twice; give each reward one number")
        found[name] = weight
    return found
