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

    With a temperature eta, Q is not the mean of the distribution but its soft value,

        Q(s, a) = eta log sum_k p(z_k | s, a) exp(z_k / eta)

    which grows from the mean (eta -> infinity) to the greatest atom (eta -> 0), and by which pi_ref exp(Q / eta) is optimal
    where the distribution is that of returns under pi_ref (Zhou et al. 2025). A return between two atoms is divided between
    them, which raises its soft value by at most about d^2 / (8 eta), d the distance between atoms.

    Args:
        bounds: of the return.
        low: least atom, return units; None for the return's own bound.
        high: greatest atom, return units; None for the return's own bound.
        num_atoms: K, 2 or more.
        temperature: eta, return units; None: Q is the mean.

    Raises:
        UserError: an infinite bound that was not given, low not below high, fewer than two atoms, or a temperature that is not
            above 0 and finite.
    """

    support_K: Tensor

    def __init__(
        self, bounds: Bounds, *, low: float | None, high: float | None, num_atoms: int, temperature: float | None
    ) -> None:
        chosen = Bounds(bounds.low if low is None else low, bounds.high if high is None else high)
        _check(bounds, chosen, num_atoms)
        if temperature is not None and not 0 < temperature < math.inf:
            raise UserError(
                f"head.temperature is {temperature}; it must be above 0 and finite, in return units: set head.temperature=0.25 "
                "or so, or null for the mean of the distribution"
            )
        super().__init__(chosen)
        self.num_parameters, self.temperature = num_atoms, temperature
        self.is_scaled_by_bounds = low is None or high is None
        self.register_buffer("support_K", torch.linspace(chosen.low, chosen.high, num_atoms), persistent=False)

    def atoms(self, raw_XN: Tensor) -> tuple[Tensor, Tensor]:
        p_XN = at_least_float32(raw_XN).softmax(-1)
        return self.support_K.to(p_XN.dtype).expand_as(p_XN), p_XN

    def value(self, raw_XAN: Tensor) -> Tensor:
        """q_XA in return units: the mean, or with a temperature the soft value."""
        if self.temperature is None:
            return super().value(raw_XAN)
        log_XAK = at_least_float32(raw_XAN).log_softmax(-1)
        return self.temperature * (log_XAK + self.support_K.to(log_XAK.dtype) / self.temperature).logsumexp(-1)

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
