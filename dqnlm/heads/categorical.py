"""Categorical distribution over fixed returns (C51: Bellemare et al. 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.distributional import DistributionalHead, at_least_float32, taken
from dqnlm.ops.distributional import project_categorical
from dqnlm.types import Bounds


class Categorical(DistributionalHead):
    """p(z_k | s, a) = softmax_k(raw) on num_atoms returns, evenly spaced from low to high.

    The target is projected on the same returns, with mass outside moved to the ends, and the loss is the cross-entropy
    with it. With initial raw outputs near 0 all atoms are near 1 / num_atoms, and Q starts in the
    middle of low and high. `low` and `high` of `Head` are those of the atoms.

    Args:
        bounds: of the return.
        low: least atom, return units; None for the return's own bound.
        high: greatest atom, return units; None for the return's own bound.
        num_atoms: K, 2 or more.

    Raises:
        UserError: an infinite bound that was not given, low not below high, or fewer than two atoms.
    """

    support_K: Tensor

    def __init__(self, bounds: Bounds, *, low: float | None, high: float | None, num_atoms: int) -> None:
        chosen = Bounds(bounds.low if low is None else low, bounds.high if high is None else high)
        _check(bounds, chosen, num_atoms)
        super().__init__(chosen)
        self.num_parameters = num_atoms
        self.is_scaled_by_bounds = low is None or high is None
        self.register_buffer("support_K", torch.linspace(chosen.low, chosen.high, num_atoms), persistent=False)

    def atoms(self, raw_XN: Tensor) -> tuple[Tensor, Tensor]:
        p_XN = at_least_float32(raw_XN).softmax(-1)
        return self.support_K.to(p_XN.dtype).expand_as(p_XN), p_XN

    def loss_atoms(self, raw_BTAN: Tensor, action_BT: Tensor, z_BTM: Tensor, p_BTM: Tensor) -> Tensor:
        log_BTK = taken(raw_BTAN, action_BT).log_softmax(-1)
        target_BTK = project_categorical(z_BTM, p_BTM, self.support_K.to(z_BTM.dtype))
        return -(target_BTK * log_BTK).sum(-1)


def _check(bounds: Bounds, chosen: Bounds, num_atoms: int) -> None:
    for key, value in zip(Bounds._fields, chosen, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"head=categorical needs finite returns to put its atoms on, but head.{key} is {value} (the return's own "
                f"bounds are {bounds.low} and {bounds.high}): set head.{key} to a {'lower' if key == 'low' else 'higher'} "
                "limit of the returns that you expect, or choose head=quantile, which needs none"
            )
    if chosen.low >= chosen.high:
        raise UserError(
            f"head.low is {chosen.low} and head.high {chosen.high}: low must be below high. null takes the return's own "
            f"bounds, {bounds.low} and {bounds.high}"
        )
    if num_atoms < 2:
        raise UserError(f"head.num_atoms is {num_atoms}; the least is 2. Set head.num_atoms=51, the usual number.")
