"""Normalised head, for one rewarded action and uncontrollable futures: Q is a probability plus the future value.

    Q(s, a) = p(a | s) + v(s)        p = softmax(advantages),  v = v_max sigmoid(value stream + v_bias)

That is the structure of teacher-forced exact match: r = 1 for the one right token, and gamma V(s') is the same for all.
The outcome of a wrong guess then updates all other actions too, because probabilities sum to one. The TD target
y = r + d Qbar(s',.) splits accordingly; each part is regressed on y less the other part:

    -(l log p_a + (1 - l) log(1 - p_a)),  l = y - v(s)  (its mean is E[r])        and        (v(s) - (y - p_a))^2 / 2
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.types import Bounds
from dqnlm.utils.context import RunContext

# The value stream starts near its lower bound: started in the middle, the labels y - v are negative, every action is pushed
# away, and training collapses to one token (measured).
_VALUE_BIAS = -3.0


class Normalised(Head):
    """Reads a dueling projection: the mean of its outputs over actions is v, their softmax gives the advantages.

    Args:
        bounds: of the return; high - 1 bounds the future value besides one reward.
        probability_of_match: unused here, Q less v always is a probability.
        value_weight: factor of the loss of v.

    Raises:
        UserError: the return has no upper bound.
    """

    is_probability = is_scaled_by_bounds = needs_all_actions = True

    def __init__(self, bounds: Bounds, probability_of_match: bool, *, value_weight: float) -> None:
        super().__init__(bounds)
        if not math.isfinite(bounds.high):
            raise UserError(
                f"head=normalised needs a finite bound of the return, but it is {bounds.high}: choose a gamma below "
                "1, or env.horizon_end=terminate"
            )
        del probability_of_match
        self.value_weight = value_weight

    def check(self, context: RunContext) -> None:
        """See `Head.check`.

        Raises:
            UserError: several actions may be rewarded, the future depends on them, q2 beside q, or no value stream to read.
        """
        if not context.is_teacher_forced or not context.is_match_indicator:
            raise UserError(
                "head=normalised requires that exactly one action is rewarded, with 1, and that the future is the same for all, "
                "which needs env.transition=teacher and reward=exact_match with reward.match=1 and reward.mismatch=0; else "
                "use head=scalar"
            )
        if not context.has_value_stream:
            raise UserError("head=normalised reads the value stream of a dueling projection: set projection=dueling")
        if context.is_twin:
            raise UserError("objective.td.twin=true needs head=scalar or a distributional head")

    def meaning(self) -> str:
        return (
            "Q is the probability of being the text's own token, plus the value of the future, which is the same for every "
            "token."
        )

    def value(self, raw_XAN: Tensor) -> Tensor:
        raw_XA = raw_XAN.squeeze(-1).float()
        return raw_XA.softmax(-1) + self._future(raw_XA)[..., None]

    def _future(self, raw_XA: Tensor) -> Tensor:
        """v_X in return units."""
        return (self.high - 1) * (raw_XA.mean(-1) + _VALUE_BIAS).sigmoid()

    def loss_taken(self, raw_BTAN: Tensor, action_BT: Tensor, target_BT: Tensor) -> Tensor:
        raw_BTA = raw_BTAN.squeeze(-1).float()
        log_BT = raw_BTA.log_softmax(-1).gather(-1, action_BT[..., None]).squeeze(-1)
        return self._loss(log_BT, self._future(raw_BTA), target_BT)

    def loss_all(self, raw_BTAN: Tensor, target_BTA: Tensor) -> Tensor:
        raw_BTA = raw_BTAN.squeeze(-1).float()
        return self._loss(raw_BTA.log_softmax(-1), self._future(raw_BTA)[..., None], target_BTA).sum(-1)

    def _loss(self, log_p: Tensor, future: Tensor, target: Tensor) -> Tensor:
        label = target - future.detach()
        # log(1 - p), kept finite where p rounds to 1; its gradient is then 0, as a certain right guess needs none.
        log_other = (-torch.expm1(log_p.clamp(max=-1e-6))).clamp(min=1e-6).log()
        match = -(label * log_p + (1 - label) * log_other)
        return match + self.value_weight * 0.5 * (future - (target - log_p.detach().exp())).square()

    def log_probability(self, raw_XAN: Tensor) -> Tensor:
        return F.log_softmax(raw_XAN.squeeze(-1).float(), -1)
