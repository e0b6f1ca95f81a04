"""The config group `bootstrap`: value of the next state, v(s), in a temporal-difference target. Formulas: `ops.bootstrap`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.ops import bootstrap as ops
from dqnlm.utils.context import RunContext
from dqnlm.utils.declared import require_method


class StateValues:
    """One network's values of observations, in return units.

    Args:
        q_BSA: values of all actions, or a function that computes them when they are first read.
        v_BS: values of the states, where the network has that output.
    """

    def __init__(self, q_BSA: Tensor | Callable[[], Tensor], v_BS: Tensor | None) -> None:
        self._q, self.v_BS = q_BSA, v_BS

    @property
    def q_BSA(self) -> Tensor:
        """Values of all actions."""
        if not isinstance(self._q, Tensor):
            self._q = self._q()
        return self._q


class Bootstrap(ABC):
    """Values of states from the outputs of the online and the target network; `legal` is bool, broadcastable, or None.

    Attributes:
        needs_outputs: named outputs beside `q` that the network must have.
        names_action: the value is that of ONE action, so a distributional head can use that action's distribution.
        adds_bonus: `bonus` returns something.
        adds_entropy: the value holds the entropy of a soft policy beside rewards, so it may leave the bounds of the return.
        asks_online: uses the online network's values, so it must read a row's last observation too.
    """

    needs_outputs: tuple[str, ...] = ()
    names_action: bool = False
    adds_bonus: bool = False
    adds_entropy: bool = False
    asks_online: bool = False

    def __init_subclass__(cls) -> None:
        require_method(cls, Bootstrap, "names_action", "action")

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @abstractmethod
    def value(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        """value_BS."""

    def action(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        """action_BS, int64, whose Qbar is `value`; for those with `names_action`."""
        raise NotImplementedError(f"{type(self).__name__} names no action")

    def bonus(self, q_target_BTA: Tensor, action_BT: Tensor, legal: Tensor | None) -> Tensor | None:
        """bonus_BT, added to the rewards of decisions; None where there is none."""
        return None


class Max(Bootstrap):
    """max_a Qbar(s, a) (Mnih et al. 2015)."""

    names_action = True

    def value(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        return ops.max_value(target.q_BSA, legal)

    def action(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        return ops.max_action(target.q_BSA, legal)


class Double(Bootstrap):
    """Qbar(s, argmax_a Q(s, a)) (van Hasselt et al. 2016)."""

    names_action = True
    asks_online = True

    def value(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        return ops.double_value(online.q_BSA, target.q_BSA, legal)

    def action(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        return ops.double_action(online.q_BSA, legal)


class Soft(Bootstrap):
    """T logsumexp_a Qbar(s, a) / T (Haarnoja et al. 2017).

    Args:
        temperature: T, return units.

    Raises:
        UserError: a temperature that is not above 0.
    """

    adds_entropy = True

    def __init__(self, *, temperature: float) -> None:
        self.temperature = _positive(temperature)

    def value(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        return ops.soft_value(target.q_BSA, legal, self.temperature)


class Munchausen(Bootstrap):
    """The soft value, and alpha clip(T log pi(a | s), clip_low, 0) added to the reward (Vieillard et al. 2020).

    Args:
        alpha: share of the bonus, in [0, 1]; 0 leaves the soft value alone.
        temperature: T, return units.
        clip_low: least T log pi, return units, below 0.

    Raises:
        UserError: one of them is outside its range.
    """

    adds_bonus = adds_entropy = True

    def __init__(self, *, alpha: float, temperature: float, clip_low: float) -> None:
        if not 0 <= alpha <= 1:
            raise UserError(f"bootstrap.alpha must lie between 0 and 1, not {alpha}")
        if not -math.inf < clip_low < 0:
            raise UserError(f"bootstrap.clip_low must be finite and below 0 (the paper has -1), not {clip_low}")
        self.alpha, self.temperature, self.clip_low = alpha, _positive(temperature), clip_low

    def value(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        return ops.munchausen_value(target.q_BSA, legal, self.temperature)

    def bonus(self, q_target_BTA: Tensor, action_BT: Tensor, legal: Tensor | None) -> Tensor | None:
        return ops.munchausen_bonus(q_target_BTA, action_BT, legal, self.alpha, self.temperature, self.clip_low)


class Value(Bootstrap):
    """v(s): the target network's output `v`, trained by another objective (Kostrikov et al. 2022)."""

    needs_outputs = ("v",)

    def value(self, online: StateValues, target: StateValues, legal: Tensor | None) -> Tensor:
        assert target.v_BS is not None, "the builder asks for the output v"
        return target.v_BS


def _positive(temperature: float) -> float:
    """The temperature, checked.

    Raises:
        UserError: not above 0, or infinite.
    """
    if not 0 < temperature < math.inf:
        raise UserError(
            f"bootstrap.temperature must be finite and above 0, not {temperature}; for the limit 0 take bootstrap=max"
        )
    return temperature
