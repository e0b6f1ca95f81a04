"""Scalar heads: one number per action."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.ops import losses
from dqnlm.types import Bounds


class Scalar(Head):
    """Q(s, a) is the raw number (squared, huber), or low + (high - low) sigmoid(raw) (logistic).

    With the logistic loss the target is scaled by the return's bounds to [0, 1] and used as a soft label; its minimiser is
    the mean return. `initial_return` is the initial Q: the middle of the bounds (logistic) is far too optimistic where one
    action in many is rewarded. `probability_of_match`: Q, so scaled, is the probability that the action is the rewarded one.

    Raises:
        UserError: logistic loss without finite bounds of the return.
    """

    def __init__(
        self,
        bounds: Bounds,
        probability_of_match: bool,
        *,
        loss: Literal["squared", "huber", "logistic"],
        initial_return: float | None,
    ) -> None:
        super().__init__(bounds)
        if loss == "logistic" and not (math.isfinite(bounds.low) and math.isfinite(bounds.high)):
            raise UserError(
                f"head.loss=logistic needs finite bounds of the return, but they are {bounds.low} to {bounds.high}: "
                "choose a bounded reward, a gamma below 1, or head.loss=huber"
            )
        self.kind = loss
        self.offset = self._offset(initial_return)
        self.is_scaled_by_bounds, self.raw_is_q = loss == "logistic", loss != "logistic"
        self.is_probability = probability_of_match and loss == "logistic"

    def _offset(self, initial_return: float | None) -> float:
        """The constant added to the raw outputs, which start near 0, so that Q starts at `initial_return`."""
        if initial_return is None or self.kind != "logistic":
            return 0.0 if initial_return is None else initial_return
        low, high = float(self.low), float(self.high)
        if not low < initial_return < high:
            raise UserError(
                f"head.initial_return={initial_return} must lie between the return's bounds, {low} and {high}"
            )
        share = (initial_return - low) / (high - low)
        return math.log(share / (1 - share))

    def _raw(self, raw_XAN: Tensor) -> Tensor:
        return raw_XAN.squeeze(-1).float() + self.offset

    def value(self, raw_XAN: Tensor) -> Tensor:
        raw_XA = self._raw(raw_XAN)
        if self.kind == "logistic":
            return self.low + (self.high - self.low) * raw_XA.sigmoid()
        return raw_XA

    def loss_taken(self, raw_BTAN: Tensor, action_BT: Tensor, target_BT: Tensor) -> Tensor:
        taken_BT = self._raw(raw_BTAN).gather(-1, action_BT[..., None]).squeeze(-1)
        return self._loss(taken_BT, target_BT)

    def loss_all(self, raw_BTAN: Tensor, target_BTA: Tensor) -> Tensor:
        return self._loss(self._raw(raw_BTAN), target_BTA).sum(-1)

    def _loss(self, raw: Tensor, target: Tensor) -> Tensor:
        if self.kind == "logistic":
            return losses.logistic(raw, ((target - self.low) / (self.high - self.low)).clamp(0, 1))
        return losses.huber(raw, target) if self.kind == "huber" else losses.squared(raw, target)

    def log_probability(self, raw_XAN: Tensor) -> Tensor | None:
        return F.logsigmoid(self._raw(raw_XAN)) if self.is_probability else None

    def clamped(self, target: Tensor) -> Tensor:
        return super().clamped(target) if self.kind == "logistic" else torch.zeros_like(target)
