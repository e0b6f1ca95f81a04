"""Path consistency: along any path, the soft value of its start equals rewards, entropy and the value of its end.

    residual_t = -V(s_t) + sum_{i<n} gamma^i (r_{t+i} - T log pi(a_{t+i} | s_{t+i})) + gamma^n Vbar(s_{t+n})
    loss_t     = residual_t^2 / 2        V(s) = T logsumexp_a Q(s, a) / T        T log pi(a | s) = Q(s, a) - V(s)

with n counted in decisions (Nachum et al. 2017, in its unified form where one Q gives policy and value; on text, Guo et al.
2021). n = 1 is r + gamma Vbar(s') - Q(s, a): soft Q-learning. n = null goes to the row's end, so that a reward there
reaches every token at once. With n above 1 the residual is 0 at the soft optimum only in a deterministic task: else the
policy at later states answers for the luck between them (n = 1 averages over it by the target network).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import LossOutput, Objective, Outputs, Requirements
from dqnlm.objectives.soft_policy import reference_advantage, soft_advantage
from dqnlm.ops import losses
from dqnlm.ops.bootstrap import soft_value
from dqnlm.ops.returns import AffineReturn, n_step
from dqnlm.types import Decisions


class PathConsistency(Objective):
    """The module's loss. Rows cut by truncation, and paths shorter than the row, end in the target network's value.

    Args:
        head: meaning of the raw q.
        last_has_value: rows may be truncated, so the value of their last observation is needed.
        weight: factor of this loss in the sum.
        temperature: T, in return units.
        n: decisions in a path; null: to the row's end.
        reference: `start` replaces T log pi by T log (pi / pi_ref), pi_ref the initial policy of the run (after
            pretraining); `none` has no reference.

    Raises:
        UserError: a temperature that is not above 0, or n below 1.
    """

    learns_returns = adds_entropy = True

    def __init__(
        self, head: Head, last_has_value: bool, *, weight: float, temperature: float, n: int | None,
        reference: Literal["none", "start"],
    ) -> None:  # fmt: skip
        super().__init__(weight)
        if temperature <= 0:
            raise UserError(f"objective.path_consistency.temperature must be above 0, not {temperature}")
        if n is not None and n < 1:
            raise UserError(f"objective.path_consistency.n counts decisions and must be at least 1 (or null), not {n}")
        self.head, self.temperature, self.n = head, temperature, n
        self.assumes_determinism = n != 1
        self.reads_in_full = n is not None or last_has_value  # the target's values, of all times
        self.requires = Requirements(
            target=n is not None or last_has_value,
            last_observation=last_has_value,
            reference=reference == "start",
            lookahead=n,
        )

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from online q (times 0..T-1), target q (0..T-1, and T where rows may be cut), reference q (0..T-1)."""
        advantage_BT, value_BT, taken_BT = soft_advantage(self.head, online, batch, self.temperature)
        prior_BT = reference_advantage(self.head, reference, batch, self.temperature)
        reward_BT = batch.reward_BT - (advantage_BT - prior_BT) * batch.mask_BT  # entropy at decisions alone
        path = n_step(reward_BT, batch.discount_BT, batch.mask_BT, batch.carry_BT, self.n)
        residual_BT = path.reward_BT - value_BT
        if target is not None:
            residual_BT = residual_BT + self._end_value(path, target, batch)
        metrics = {"q/taken_mean": taken_BT, "value/mean": value_BT, "td/absolute_error": residual_BT.abs()}
        if reference is not None:
            metrics["policy/log_ratio"] = (advantage_BT.detach() - prior_BT) / self.temperature
        return LossOutput(losses.squared(residual_BT, residual_BT.new_zeros(())), metrics, residual_BT.detach())

    def _end_value(self, path: AffineReturn, target: Outputs, batch: Decisions) -> Tensor:
        """gamma^n Vbar(s_{t+n}), BT, without gradient."""
        q_BSA = self.head.value(target["q"])
        value_BS = soft_value(q_BSA, batch.legal_at(q_BSA.shape[1]), self.temperature)
        index_BT = path.index_BT.clamp(max=value_BS.shape[1] - 1)  # beyond it the discount is 0
        return path.discount_BT * value_BS.detach().gather(1, index_BT)
