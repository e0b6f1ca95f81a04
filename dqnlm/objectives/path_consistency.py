"""Soft path consistency: along any path, start value = rewards, entropy and end value.

    V(s) = T logsumexp_a Q(s, a) / T        T log pi(a | s) = Q(s, a) - V(s)
    residual_t = -V(s_t) + sum_{i<n} gamma^i (r_{t+i} - T log pi(a_{t+i} | s_{t+i})) + gamma^n Vbar(s_{t+n})

with n counted in decisions (Nachum et al. 2017, in its unified form where one Q gives policy and value; on text, Guo et al.
2021). n = 1 is r + gamma Vbar(s') - Q(s, a): soft Q-learning. n = null goes to the row's end, so that a reward there
reaches every token at once.
"""

from __future__ import annotations

from typing import Literal

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import Legal, Objective, Outputs, Result, legal_from, present, reference_term
from dqnlm.ops import bootstrap as value_of
from dqnlm.ops import losses
from dqnlm.ops.returns import n_step
from dqnlm.types import Batch


class PathConsistency(Objective):
    """See the module's text. Rows cut by truncation, and paths shorter than the row, end in the target network's value.

    Args:
        head: meaning of the raw q.
        legal: observation_BS -> mask of legal actions, or None.
        last_has_value: rows may be cut, so the value of their last observation counts.
        interleaved: steps without a decision may follow a decision in the same row.
        weight: factor of this loss in the sum.
        temperature: T, in return units.
        n: decisions in a path; null: to the row's end.
        reference: `start` puts T log (pi / pi_ref) in the place of T log pi, pi_ref the policy that the run began with (after
            its warm start); `none` compares with nothing.

    Raises:
        UserError: a temperature that is not above 0, or n below 1.
    """

    learns_returns = adds_entropy = True

    def __init__(
        self,
        head: Head,
        legal: Legal,
        last_has_value: bool,
        interleaved: bool,
        *,
        weight: float,
        temperature: float,
        n: int | None,
        reference: Literal["none", "start"],
    ) -> None:
        super().__init__(weight)
        if temperature <= 0:
            raise UserError(f"objective.path_consistency.temperature must be above 0, not {temperature}")
        if n is not None and n < 1:
            raise UserError(f"objective.path_consistency.n counts decisions and must be at least 1 (or null), not {n}")
        self.head, self.legal, self.temperature, self.n = head, legal, temperature, n
        self.interleaved, self.needs_reference = interleaved, reference == "start"
        self.needs_target = n is not None or last_has_value
        self.needs_last = last_has_value
        self.lookahead = n

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        fields = present(batch, self.interleaved)
        times = fields.action_BT.shape[1]
        q_BTA = self.head.value(online["q"][:, :times])
        taken_BT = q_BTA.gather(-1, fields.action_BT[..., None]).squeeze(-1)
        legal = legal_from(self.legal, batch, times)
        value_BT = value_of.soft_value(q_BTA, legal, self.temperature)
        allowed_BT = 0.0 if reference is None else reference_term(self.head, reference, fields, legal, self.temperature)
        surplus_BT = fields.reward_BT - (taken_BT - value_BT - allowed_BT) * fields.mask_BT  # r - T log pi at decisions
        path = n_step(surplus_BT, fields.discount_BT, fields.mask_BT, fields.carry_BT, self.n)
        residual_BT = path.reward_BT - value_BT
        if target is not None:
            qbar_BSA = self.head.value(target["q"])
            end_BS = value_of.soft_value(qbar_BSA, legal_from(self.legal, batch, qbar_BSA.shape[1]), self.temperature)
            index_BT = path.index_BT.clamp(max=end_BS.shape[1] - 1)  # beyond it the discount is 0
            residual_BT = residual_BT + path.discount_BT * end_BS.detach().gather(1, index_BT)
        figures = {"q/taken_mean": taken_BT, "value/mean": value_BT, "td/absolute_error": residual_BT.abs()}
        return Result(losses.squared(residual_BT, residual_BT.new_zeros(())), figures, residual_BT.detach())
