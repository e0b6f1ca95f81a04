"""Temporal difference: y = r + d v(s'), and Q(s, a) moves towards y.

feedback taken        only the action taken learns, from its own reward
feedback all_actions  every action learns, from a reward known for all of them (teacher-forced exact match)
bootstrap max         v(s') = max_a Qbar(s', a)                       (Mnih et al. 2015)
bootstrap double      v(s') = Qbar(s', argmax_a Q(s', a))             (van Hasselt et al. 2016)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from dqnlm.heads.base import Head
from dqnlm.objectives.base import Objective, Result
from dqnlm.ops import bootstrap as value_of
from dqnlm.ops import returns
from dqnlm.types import Batch

Legal = Callable[[Tensor], Tensor | None]


class TemporalDifference(Objective):
    """See the module's text.

    Args:
        head: meaning of the raw outputs.
        legal: observation_BS -> mask of legal actions, or None.
        reward_all: observation_BS -> reward_BTA for feedback all_actions, else None.
        bootstraps: False when every discount is 0 (gamma 0), so that no target network need be run.
        last_has_value: rows may be cut by truncation, so the value of their last observation counts.
        interleaved: steps without a decision may lie between decisions, so values are carried over them.
    """

    def __init__(
        self,
        head: Head,
        legal: Legal,
        reward_all: Callable[[Tensor], Tensor] | None,
        bootstraps: bool,
        last_has_value: bool,
        interleaved: bool,
        *,
        weight: float,
        bootstrap: Literal["max", "double"],
    ) -> None:
        super().__init__(weight)
        self.head, self.legal, self.reward_all = head, legal, reward_all
        self.bootstrap, self.interleaved = bootstrap, interleaved
        self.needs_target = bootstraps
        self.needs_last = bootstraps and last_has_value

    def __call__(self, online: dict[str, Tensor], target: dict[str, Tensor] | None, batch: Batch) -> Result:
        raw_BTAN = online["q"][:, : batch.action_BT.shape[1] - batch.first]
        reward_BT, discount_BT, action_BT = (
            x[:, batch.first :] for x in (batch.reward_BT, batch.discount_BT, batch.action_BT)
        )
        value_BS = self._value(online, target, batch)
        target_BT = returns.one_step_target(reward_BT, discount_BT, value_BS)
        q_BTA = self.head.value(raw_BTAN.detach())
        taken_BT = q_BTA.gather(-1, action_BT[..., None]).squeeze(-1)
        figures = {
            "q/taken_mean": taken_BT,
            "q/max_mean": value_of.max_value(q_BTA, self._legal(batch, q_BTA.shape[1])),
            "target/mean": target_BT,
            "target/clamped_share": self.head.clamped(target_BT),
            "td/absolute_error": (target_BT - taken_BT).abs(),
        }
        if self.reward_all is None:
            return Result(self.head.loss_taken(raw_BTAN, action_BT, target_BT), figures)
        reward_BTA = self.reward_all(batch.observation_BS)[:, batch.first :]
        target_BTA = reward_BTA + (discount_BT * value_BS[:, 1:])[..., None]
        return Result(self.head.loss_all(raw_BTAN, target_BTA), figures)

    @torch.no_grad()
    def _value(self, online: dict[str, Tensor], target: dict[str, Tensor] | None, batch: Batch) -> Tensor:
        """value_BS for times first..T; 0 for the last observation where no row can be cut there."""
        rows, times = batch.action_BT.shape[0], batch.action_BT.shape[1] - batch.first
        if target is None:
            return batch.reward_BT.new_zeros(rows, times + 1)
        qbar_BSA = self.head.value(target["q"])
        legal = self._legal(batch, qbar_BSA.shape[1])
        if self.bootstrap == "max":
            value_BS = value_of.max_value(qbar_BSA, legal)
        else:
            value_BS = value_of.double_value(self.head.value(online["q"]), qbar_BSA, legal)
        if value_BS.shape[1] == times:
            value_BS = torch.cat([value_BS, value_BS.new_zeros(rows, 1)], 1)
        if self.interleaved:
            fields = (x[:, batch.first :] for x in (batch.reward_BT, batch.discount_BT, batch.mask_BT))
            value_BS = returns.carried_value(value_BS, *fields)
        return value_BS

    def _legal(self, batch: Batch, times: int) -> Tensor | None:
        mask = self.legal(batch.observation_BS)
        if mask is None or mask.dim() < 3 or mask.shape[1] == 1:
            return mask
        return mask[:, batch.first : batch.first + times]
