"""Temporal difference: Q(s, a) moves towards rewards plus the value of a later state.

bootstrap (group)   what that state is worth: max, double, soft, munchausen, value
returns (group)     how far the rewards reach: one step, n steps, a mixture of all (lambda), to the end (Monte-Carlo)
feedback            taken: only the action taken learns, from its own reward; all_actions: every action learns, from a
                    reward known for all of them (teacher-forced exact match)

A scalar Q is a distribution of one atom, and one-step and n-step targets are affine in the next state's return,
y = R + G z(s'); so the same code serves DQN, C51, QR-DQN and IQN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dqnlm.heads.base import Head
from dqnlm.heads.distributional import DistributionalHead
from dqnlm.objectives.base import Legal, Objective, Outputs, Result, legal_from, present
from dqnlm.objectives.bootstrap import Bootstrap, StateValues
from dqnlm.objectives.returns import Returns
from dqnlm.ops import bootstrap as value_of
from dqnlm.types import Batch


class TemporalDifference(Objective):
    """See the module's text.

    Args:
        head: meaning of the raw outputs.
        bootstrap: value of a state.
        returns: reach of the rewards.
        legal: observation_BS -> mask of legal actions, or None.
        reward_all: observation_BS -> reward_BTA for feedback all_actions, else None.
        values_matter: False when every discount is 0 (gamma 0), so that no target network need be run.
        last_has_value: rows may be cut, so the value of their last observation counts.
        interleaved: steps without a decision may follow a decision in the same row, so values are carried over them.
        weight: factor of this loss in the sum.
        twin: a second output q2 learns the same; states are worth the smaller of both (clipped double, Fujimoto 2018).
    """

    learns_returns = learns_all_actions = uses_bootstrap = True

    def __init__(
        self,
        head: Head,
        bootstrap: Bootstrap,
        returns: Returns,
        legal: Legal,
        reward_all: Callable[[Tensor], Tensor] | None,
        values_matter: bool,
        last_has_value: bool,
        interleaved: bool,
        *,
        weight: float,
        twin: bool,
    ) -> None:
        super().__init__(weight)
        self.head, self.bootstrap, self.returns, self.legal = head, bootstrap, returns, legal
        self.reward_all, self.twin, self.interleaved = reward_all, twin, interleaved
        self.values_matter = values_matter and (returns.bootstraps_inside or last_has_value)
        self.needs_target = self.values_matter or bootstrap.adds_bonus
        self.needs_last = self.values_matter and last_has_value
        self.needs_last_online = self.needs_last and bootstrap.asks_online
        self.lookahead = returns.lookahead
        self.learns_outputs = ("q", "q2") if twin else ("q",)
        self.needs_outputs = (*bootstrap.needs_outputs, *(("q2",) if twin else ()))

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        fields = present(batch, self.interleaved)
        raws = {name: online[name][:, : fields.action_BT.shape[1]] for name in ("q", "q2") if name in online}
        raws = raws if self.twin else {"q": raws["q"]}
        if isinstance(self.head, DistributionalHead):
            z_BTM, p_BTM = self._target_atoms(self.head, online, target, batch)
            loss_BT = sum(self.head.loss_atoms(raw, fields.action_BT, z_BTM, p_BTM) for raw in raws.values())
            target_BT = (z_BTM * p_BTM).sum(-1)
        elif self.reward_all is not None:
            reward_BTA = self.reward_all(batch.observation_BS)[:, batch.first :]
            value_BS = self._value(online, target, batch)
            target_BTA = reward_BTA + (fields.discount_BT * value_BS[:, 1:])[..., None]
            loss_BT = sum(self.head.loss_all(raw, target_BTA) for raw in raws.values())
            target_BT = target_BTA.gather(-1, fields.action_BT[..., None]).squeeze(-1)
        else:
            reward_BT = fields.reward_BT + self._bonus(target, batch)
            value_BS = self._value(online, target, batch)
            target_BT = self.returns.target(reward_BT, fields.discount_BT, fields.mask_BT, fields.carry_BT, value_BS)
            loss_BT = sum(self.head.loss_taken(raw, fields.action_BT, target_BT) for raw in raws.values())
        assert isinstance(loss_BT, Tensor)
        return self._result(loss_BT, raws["q"], target_BT, batch)

    def _result(self, loss_BT: Tensor, raw_BTAN: Tensor, target_BT: Tensor, batch: Batch) -> Result:
        q_BTA = self.head.value(raw_BTAN.detach())
        taken_BT = q_BTA.gather(-1, batch.action_BT[:, batch.first :, None]).squeeze(-1)
        figures = {
            "q/taken_mean": taken_BT,
            "q/max_mean": value_of.max_value(q_BTA, self._legal(batch, q_BTA.shape[1])),
            "target/mean": target_BT,
            "target/clamped_share": self.head.clamped(target_BT),
            "td/absolute_error": (target_BT - taken_BT).abs(),
        }
        return Result(loss_BT, figures, target_BT - taken_BT)

    @torch.no_grad()
    def _value(self, online: Outputs, target: Outputs | None, batch: Batch) -> Tensor:
        """value_BS for times first..T; 0 for the last observation where no row can be cut there."""
        rows, times = batch.action_BT.shape[0], batch.action_BT.shape[1] - batch.first
        if target is None or not self.values_matter:
            return batch.reward_BT.new_zeros(rows, times + 1)
        own, other = self._state_values(online), self._state_values(target)
        value_BS = self.bootstrap.value(own, other, self._legal(batch, other.q_BSA.shape[1]))
        return _one_more(value_BS, times)

    def _state_values(self, output: Outputs) -> StateValues:
        q_BSA = self.head.value(output["q"])
        if self.twin:
            q_BSA = torch.minimum(q_BSA, self.head.value(output["q2"]))
        return StateValues(q_BSA, output["v"].flatten(2).squeeze(-1).float() if "v" in output else None)

    @torch.no_grad()
    def _bonus(self, target: Outputs | None, batch: Batch) -> Tensor | float:
        """What the bootstrap adds to each decision's reward (Munchausen), 0 elsewhere."""
        if target is None or not self.bootstrap.adds_bonus:
            return 0.0
        fields = present(batch, self.interleaved)
        times = fields.action_BT.shape[1]
        q_BTA = self._state_values(target).q_BSA[:, :times]
        bonus_BT = self.bootstrap.bonus(q_BTA, fields.action_BT, self._legal(batch, times))
        assert bonus_BT is not None
        return bonus_BT * fields.mask_BT

    @torch.no_grad()
    def _target_atoms(
        self, head: DistributionalHead, online: Outputs, target: Outputs | None, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Values R + G z and probabilities of the target distribution, BTM each."""
        fields = present(batch, self.interleaved)
        affine = self.returns.affine(fields.reward_BT, fields.discount_BT, fields.mask_BT, fields.carry_BT)
        if target is None or not self.values_matter:
            z_BTM = affine.reward_BT[..., None]
            return z_BTM, torch.ones_like(z_BTM)
        own, other = self._state_values(online), self._state_values(target)
        action_BS = self.bootstrap.action(own, other, self._legal(batch, other.q_BSA.shape[1]))
        raw_BSAN = target["q"]
        index = action_BS[..., None, None].expand(*action_BS.shape, 1, raw_BSAN.shape[-1])
        z_BSM, p_BSM = head.atoms(raw_BSAN.gather(2, index).squeeze(2))
        last = action_BS.shape[1] - 1  # where no row can be cut, the last observation has no output, and weighs nothing
        index_BTM = affine.index_BT.clamp(max=last)[..., None].expand(*affine.index_BT.shape, z_BSM.shape[-1])
        z_BTM, p_BTM = z_BSM.gather(1, index_BTM), p_BSM.gather(1, index_BTM)
        return affine.reward_BT[..., None] + affine.discount_BT[..., None] * z_BTM, p_BTM

    def _legal(self, batch: Batch, times: int) -> Tensor | None:
        return legal_from(self.legal, batch, times)


def _one_more(value_BS: Tensor, times: int) -> Tensor:
    """A zero for the last observation, where the network was not asked about it."""
    if value_BS.shape[1] > times:
        return value_BS
    return torch.cat([value_BS, value_BS.new_zeros(value_BS.shape[0], 1)], 1)
