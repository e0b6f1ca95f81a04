"""A weighted sum of rewards; each component is also logged.

If any component is sequence-level, so is the sum: token-level components are then computed with the others, by their
`row`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.rewards.base import Episodes, Reward, without_prompt
from dqnlm.types import Bounds
from dqnlm.utils.context import RunContext


class Mixture(Reward):
    """r_t = sum over parts of weight * r_t(part).

    Args:
        num_actions: A.
        build_part: makes a reward from the configuration of a part, its weight taken out: what the builder does with
            any `reward` group, for the same num_actions.
        parts: configuration of each part by its name in the log: a reward's own keys with `_target_`, and `weight`, a
            finite number. A reward of weight 0 is only logged.

    Raises:
        UserError: no parts, a part without a usable weight, or all weights 0.
    """

    def __init__(
        self, num_actions: int, build_part: Callable[[dict[str, Any]], Reward], *, parts: dict[str, dict[str, Any]]
    ) -> None:
        super().__init__(num_actions)
        self._weights = {name: _weight(name, part) for name, part in parts.items()}
        if not any(self._weights.values()):
            raise UserError("reward.parts is always 0: it needs at least one part with a weight other than 0")
        self._parts = {
            name: build_part({key: value for key, value in part.items() if key != "weight"})
            for name, part in parts.items()
        }
        self.knows_all_actions = all(self._parts[name].knows_all_actions for name in self._weighted())
        self.sequence_level = any(part.sequence_level for part in self._parts.values())
        self._latest: dict[str, Tensor] = {}

    @property
    def bounds(self) -> Bounds:
        return self._sum_bounds({name: part.bounds for name, part in self._parts.items()})

    def return_bounds(self, gamma: float, horizon: int, endless: bool = False) -> Bounds:
        return self._sum_bounds({n: part.return_bounds(gamma, horizon, endless) for n, part in self._parts.items()})

    def reset(self, reference_EH: Tensor, mask_E: Tensor | None = None) -> None:
        if not self.sequence_level:
            for part in self._parts.values():
                part.reset(reference_EH, mask_E)

    def step(self, action_E: Tensor, active_E: Tensor | None = None) -> Tensor:
        if self.sequence_level:
            self._latest = {}
            return torch.zeros(action_E.shape, dtype=torch.float32, device=action_E.device)
        return self._sum({name: part.step(action_E, active_E) for name, part in self._parts.items()})

    def row(self, action_BH: Tensor, reference_BH: Tensor) -> Tensor:
        if self.sequence_level:
            return self.judge(without_prompt(action_BH, reference_BH))
        return self._sum({name: part.row(action_BH, reference_BH) for name, part in self._parts.items()})

    def judge(self, episodes: Episodes) -> Tensor:
        """See `Reward.judge`.

        Raises:
            UserError: a part is token-level, and a reference has not one token for each decision.
        """
        if not self.sequence_level:
            return super().judge(episodes)
        return self._sum({name: _judge_part(name, part, episodes) for name, part in self._parts.items()})

    def all_actions(self, reference_BH: Tensor) -> Tensor:
        rewards = [self._weights[name] * self._parts[name].all_actions(reference_BH) for name in self._weighted()]
        return torch.stack(rewards).sum(0)

    def parts(self) -> dict[str, Tensor]:
        if not self._latest:
            return {}
        inner = {f"{n}/{key}": value for n, part in self._parts.items() for key, value in part.parts().items()}
        return {**self._latest, **inner}

    def use_columns(self, columns: dict[str, list[Any]]) -> None:
        for part in self._parts.values():
            part.use_columns(columns)

    def state_dict(self) -> dict[str, Any]:
        if self.sequence_level:
            return {}
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, saved in state.items():
            self._parts[name].load_state_dict(saved)

    def check(self, context: RunContext) -> None:
        """As `Reward.check`, for every component."""
        for part in self._parts.values():
            part.check(context)

    def _weighted(self) -> list[str]:
        """Names of the components with a weight other than 0."""
        return [name for name, weight in self._weights.items() if weight]

    def _sum(self, rewards: dict[str, Tensor]) -> Tensor:
        self._latest = rewards
        return torch.stack([self._weights[name] * reward for name, reward in rewards.items()]).sum(0)

    def _sum_bounds(self, bounds: dict[str, Bounds]) -> Bounds:
        """RowTotals weighted intervals; a negative weight swaps the bounds, a weight of 0 leaves an infinite one out."""
        low = high = 0.0
        for name, weight in self._weights.items():
            if weight != 0.0:
                ends = sorted(weight * end for end in bounds[name])
                low, high = low + ends[0], high + ends[1]
        return Bounds(low, high)


def _judge_part(name: str, part: Reward, episodes: Episodes) -> Tensor:
    if part.sequence_level:
        return part.judge(episodes)
    action_BH, reference_BR = episodes.action_BH, episodes.reference_BR
    horizon = action_BH.shape[1]
    if reference_BR.shape[1] != horizon or not bool((episodes.reference_length_B == horizon).all()):
        raise UserError(
            f"reward.parts.{name} compares token by token and needs as many tokens of reference as decisions ({horizon}), which "
            "they have not here; edit_distance compares texts of any length: use it in its place"
        )
    reward_BH = part.row(action_BH, reference_BR)
    place_H = torch.arange(horizon, device=action_BH.device)
    return torch.where(place_H < episodes.length_B[:, None], reward_BH, 0.0)


def _weight(name: str, part: dict[str, Any]) -> float:
    weight = part.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        given = "missing" if "weight" not in part else f"{weight!r}"
        raise UserError(f"reward.parts.{name}.weight is {given}; it must be a finite number, such as 1.0")
    return float(weight)
