"""Regression targets from rewards, discounts and values of later observations. Pure functions on tensors.

Time: `reward_BT[t]` and `discount_BT[t]` belong to s_t -> s_{t+1}; `value_BS[t]` to s_t, S = T + 1. `mask_BT` is 1 where
the agent decided; `carry_BT` is True on the other steps that count (a prompt, a partner); neither holds on padding.

Every target is affine in one later value, y_t = R_t + G_t v[index_t], and affine maps compose:

    (R, G, i) then (R', G', i') = (R + G R'[i], G G'[i], i'[i])

so a walk over n decisions is the n-th power of the walk over one, by repeated squaring: about log2 T operations on whole
tensors, no host synchronisation. A row's end is a fixed point of each walk, so none passes it, nor reads padding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class AffineReturn(NamedTuple):
    """y_t = reward_BT + discount_BT v[index_BT].

    Attributes:
        reward_BT: sum of the rewards up to it, discounted to t.
        discount_BT: product of the discounts up to it; 0 where the episode ended.
        index_BT: int64 in 0..T: the observation that is bootstrapped from.
    """

    reward_BT: Tensor
    discount_BT: Tensor
    index_BT: Tensor

    def at(self, value_BS: Tensor) -> Tensor:
        """target_BT for these values of the observations."""
        return self.reward_BT + self.discount_BT * value_BS.gather(1, self.index_BT)


class _Walk(NamedTuple):
    """A map from each observation to another one; a fixed point maps to itself: (0, 1, itself)."""

    reward_BS: Tensor
    discount_BS: Tensor
    index_BS: Tensor

    def then(self, other: _Walk) -> _Walk:
        reward_BS, discount_BS, index_BS = (field.gather(1, self.index_BS) for field in other)
        return _Walk(self.reward_BS + self.discount_BS * reward_BS, self.discount_BS * discount_BS, index_BS)

    def power(self, n: int) -> _Walk:
        """The `n`-th power of this walk, n >= 1."""
        if n == 1:
            return self
        rest = self.then(self).power(n // 2)
        return self.then(rest) if n % 2 else rest


def carried_value(value_BS: Tensor, reward_BT: Tensor, discount_BT: Tensor, carry_BT: Tensor) -> Tensor:
    """Value of steps without a decision: v_t = r_t + d_t v_{t+1}; decisions and padding keep theirs.

    Used where a partner's tokens lie between two decisions, so that the earlier one bootstraps from the later one.

    Args:
        value_BS: bootstrap values of every observation.
        reward_BT: rewards.
        discount_BT: discounts, 0 at a termination.
        carry_BT: bool.

    Returns:
        value_BS, replaced where `carry_BT`.
    """
    walk = _over_carried(reward_BT, discount_BT, carry_BT)
    return walk.reward_BS + walk.discount_BS * value_BS.gather(1, walk.index_BS)


def one_step_target(reward_BT: Tensor, discount_BT: Tensor, value_BS: Tensor) -> Tensor:
    """y_t = r_t + d_t v(s_{t+1}) (Watkins 1989), with the discount as data: 0 ends the return.

    Returns:
        target_BT.
    """
    return reward_BT + discount_BT * value_BS[:, 1:]


def n_step(reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor, carry_BT: Tensor | None, n: int | None) -> AffineReturn:
    """n-step return: the rewards of n decisions from t on, plus the value after them (Watkins 1989; Sutton 1988).

    Steps that carry are walked over without being counted, also behind the n-th decision. A walk ends early at the row's
    last observation, and bootstraps from its value (with G = 0 if the episode ended there); so the last n - 1 decisions of
    a row have targets too, of fewer rewards.

    Args:
        reward_BT: rewards; a gradient passes.
        discount_BT: discounts.
        mask_BT: 1 at decisions.
        carry_BT: bool; None where no step is carried.
        n: decisions; None: all to the row's end (Monte-Carlo).

    Returns:
        the affine map; at times without a decision it has no meaning.

    Raises:
        ValueError: n below 1.
    """
    if n is not None and n < 1:
        raise ValueError(f"a return spans at least one decision, not {n}")
    times = reward_BT.shape[1]
    one = _single(reward_BT, discount_BT, mask_BT > 0)
    if carry_BT is not None:
        one = one.then(_over_carried(reward_BT, discount_BT, carry_BT))
    walk = one.power(_enough(times) if n is None or n >= times else n)
    return AffineReturn(*(field[:, :-1] for field in walk))


def lambda_target(
    reward_BT: Tensor,
    discount_BT: Tensor,
    value_BS: Tensor,
    mask_BT: Tensor,
    carry_BT: Tensor | None,
    trace: float,
) -> Tensor:
    """G_t = r_t + d_t [(1 - trace) v_{t+1} + trace G_{t+1}], at the row's end G = v (Peng and Williams 1996).

    A carried step has G_t = r_t + d_t G_{t+1}, and its v is the carried one, so that `trace` falls with decisions alone.
    The recursion is a Monte-Carlo return of rewards r + d (1 - trace) v and discounts trace d, and is computed so.

    Returns:
        target_BT: `one_step_target` of carried values for trace 0, the Monte-Carlo return for trace 1.
    """
    decision_BT = mask_BT > 0
    if carry_BT is not None:
        value_BS = carried_value(value_BS, reward_BT, discount_BT, carry_BT)
    next_BT = value_BS[:, 1:]
    closed_BT = reward_BT + (1 - trace) * discount_BT * next_BT
    reward_BT, discount_BT = (
        torch.where(decision_BT, closed_BT, reward_BT),
        torch.where(decision_BT, trace * discount_BT, discount_BT),
    )
    return n_step(reward_BT, discount_BT, mask_BT, carry_BT, None).at(value_BS)


def _single(reward_BT: Tensor, discount_BT: Tensor, where_BT: Tensor) -> _Walk:
    """One step to the next observation where `where_BT`; a fixed point elsewhere and at the last observation."""
    reward_BS = F.pad(torch.where(where_BT, reward_BT, 0.0), (0, 1))
    discount_BS = F.pad(torch.where(where_BT, discount_BT, 1.0), (0, 1), value=1.0)
    steps_BS = F.pad(where_BT.long(), (0, 1))
    index_BS = steps_BS + torch.arange(steps_BS.shape[1], device=steps_BS.device)
    return _Walk(reward_BS, discount_BS, index_BS)


def _over_carried(reward_BT: Tensor, discount_BT: Tensor, carry_BT: Tensor) -> _Walk:
    """Walks to the next observation that is not carried: a decision, or the row's end."""
    return _single(reward_BT, discount_BT, carry_BT).power(_enough(reward_BT.shape[1]))


def _enough(times: int) -> int:
    """A power of two of at least `times` steps, which needs only squarings; more steps have no effect."""
    return 1 << times.bit_length()
