"""The config group `returns`: number of rewards before a temporal-difference target bootstraps. See `ops.returns`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.ops import returns as ops
from dqnlm.ops.returns import AffineReturn
from dqnlm.utils.context import RunContext
from dqnlm.utils.declared import require_method


class Returns(ABC):
    """Targets from rewards and values.

    Attributes:
        lookahead: decisions that a target spans; None: to the row's end.
        is_affine: each target is R + G v of one observation, which `affine` gives, so distributional heads can learn it.
        bootstraps_inside: uses values of observations before a row's end.
    """

    lookahead: int | None = None
    is_affine: bool = False
    bootstraps_inside: bool = True

    def __init_subclass__(cls) -> None:
        require_method(cls, Returns, "is_affine", "affine")

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @abstractmethod
    def target(
        self, reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor, carry_BT: Tensor | None, value_BS: Tensor
    ) -> Tensor:
        """target_BT in return units; meaningless at times without a decision. `carry_BT` None: no step is carried."""

    def affine(self, reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor, carry_BT: Tensor | None) -> AffineReturn:
        """R, G and the index of the bootstrapped observation; for those with `is_affine`."""
        raise NotImplementedError(f"{type(self).__name__} has no `affine`")


class NStep(Returns):
    """n decisions, fewer at the row's end (Sutton 1988).

    Args:
        n: at least 1.

    Raises:
        UserError: n below 1.
    """

    is_affine = True

    def __init__(self, *, n: int) -> None:
        if n < 1:
            raise UserError(
                f"returns.n counts decisions and must be at least 1, not {n}; for all take returns=monte_carlo"
            )
        self.lookahead: int | None = n

    def target(
        self, reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor, carry_BT: Tensor | None, value_BS: Tensor
    ) -> Tensor:
        return self.affine(reward_BT, discount_BT, mask_BT, carry_BT).at(value_BS)

    def affine(self, reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor, carry_BT: Tensor | None) -> AffineReturn:
        return ops.n_step(reward_BT, discount_BT, mask_BT, carry_BT, self.lookahead)


class OneStep(NStep):
    """r + d v(s') (Watkins 1989)."""

    def __init__(self) -> None:
        super().__init__(n=1)

    def target(
        self, reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor, carry_BT: Tensor | None, value_BS: Tensor
    ) -> Tensor:
        if carry_BT is None:
            return ops.one_step_target(reward_BT, discount_BT, value_BS)
        return super().target(reward_BT, discount_BT, mask_BT, carry_BT, value_BS)


class MonteCarlo(NStep):
    """All rewards to the row's end, plus the value there if the row was truncated."""

    bootstraps_inside = False

    def __init__(self) -> None:
        self.lookahead = None


class Lambda(Returns):
    """A mixture of all n-step returns, weights (1 - trace) trace^(n-1), uncorrected (Peng and Williams 1996).

    Args:
        trace: lambda, in [0, 1]; 0 is one step, 1 is Monte-Carlo.

    Raises:
        UserError: outside [0, 1].
    """

    def __init__(self, *, trace: float) -> None:
        if not 0 <= trace <= 1:
            raise UserError(f"returns.trace must lie between 0 (one step) and 1 (Monte-Carlo), not {trace}")
        self.trace = trace

    def target(
        self, reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor, carry_BT: Tensor | None, value_BS: Tensor
    ) -> Tensor:
        return ops.lambda_target(reward_BT, discount_BT, value_BS, mask_BT, carry_BT, self.trace)
