"""Temporal difference: Q(s_t, a_t) is regressed on rewards plus the value of a later state.

TD                  y_t    = R_t + G_t v(s_i)                 and l(Q(s_t, a_t), y_t)      (Watkins 1989; Mnih et al. 2015)
DistributionalTD    Y_t    = R_t + G_t Z(s_i, a*_i)           and l(Z(s_t, a_t), Y_t)      (Bellemare et al. 2017)
AllActionsTD        y_t(a) = r_t(a) + d_t v(s_{t+1})          and sum_a l(Q(s_t, a), y_t(a))

R_t  rewards from t to i, discounted; G_t the product of their discounts; i the observation bootstrapped from (config group
     `returns`: after one decision, after n, at the row's end, or a mixture of all)
v    state value of the target network (config group `bootstrap`: max, double, soft, munchausen, value); a* its greedy action
Z    the distribution of returns that a distributional head predicts (C51, QR-DQN, IQN)
l    the head's loss (`heads`)

`td` chooses among the three: by the head, and by whether rewards of all actions are known (feedback=all_actions).
With `twin` a second output q2 learns the same targets, and state values are the smaller of both (Fujimoto et al. 2018).
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable
from functools import reduce
from typing import cast

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.heads.distributional import DistributionalHead
from dqnlm.objectives.base import LossOutput, Objective, Outputs, Requirements, value_taken
from dqnlm.objectives.bootstrap import Bootstrap, StateValues
from dqnlm.objectives.reading import is_deferred, q_taken, raw_of_taken
from dqnlm.objectives.returns import Returns
from dqnlm.ops.bootstrap import max_value
from dqnlm.types import Decisions
from dqnlm.utils.shapes import full_name, require_shape

RewardAll = Callable[[Tensor], Tensor]  # observation_BS of whole rows -> reward_BTA of every action at every time


def td(
    head: Head, bootstrap: Bootstrap, returns: Returns, reward_all: RewardAll | None, values_matter: bool,
    last_has_value: bool, *, weight: float, twin: bool,
) -> TD | DistributionalTD | AllActionsTD:  # fmt: skip
    """The temporal-difference objective for this head and this feedback.

    Args:
        head: meaning of the raw outputs.
        bootstrap: value of a state.
        returns: number of rewards in a target.
        reward_all: rewards of all actions, for feedback=all_actions; None: only the action taken is trained.
        values_matter: False when every discount is 0 (gamma 0), so that no target network is needed.
        last_has_value: rows may be truncated, so the value of their last observation is needed.
        weight: factor of this loss in the sum.
        twin: a second output q2 learns the same.

    Raises:
        UserError: rewards of all actions with a distributional head.
    """
    if reward_all is not None:
        if head.is_distributional:
            raise UserError(
                f"objective td: {type(head).__name__} predicts a distribution of returns, and its loss is that of the action "
                "taken alone; set feedback=taken, or head=scalar or head=normalised"
            )
        return AllActionsTD(head, bootstrap, returns, values_matter, last_has_value, weight, twin, reward_all)
    if head.is_distributional:
        return DistributionalTD(head, bootstrap, returns, values_matter, last_has_value, weight, twin)
    return TD(head, bootstrap, returns, values_matter, last_has_value, weight, twin)


class TDObjective(Objective, ABC):
    """Base class of the three variants: the values of states, and the metrics. Arguments as of `td`."""

    learns_returns = learns_all_actions = uses_bootstrap = True
    loss_of_taken_alone = False  # whether the loss is computed from the raw numbers of the action taken, without the others

    def __init__(
        self, head: Head, bootstrap: Bootstrap, returns: Returns, values_matter: bool, last_has_value: bool,
        weight: float, twin: bool,
    ) -> None:  # fmt: skip
        super().__init__(weight)
        self.head, self.bootstrap, self.returns, self.twin = head, bootstrap, returns, twin
        self.values_matter = values_matter and (returns.bootstraps_inside or last_has_value)
        last = self.values_matter and last_has_value
        self.requires = Requirements(
            target=self.values_matter or bootstrap.adds_bonus,
            last_observation=last,
            last_observation_online=last and bootstrap.asks_online,
            outputs=(*bootstrap.needs_outputs, *(("q2",) if twin else ())),
            lookahead=returns.lookahead,
        )
        self.learns_outputs = ("q", "q2") if twin else ("q",)
        reads_q_of_states = bootstrap.adds_bonus or (self.values_matter and "v" not in bootstrap.needs_outputs)
        self.reads_in_full = head.needs_all_actions or reads_q_of_states or not self.loss_of_taken_alone

    def _q_outputs(self, outputs: Outputs) -> dict[str, Tensor]:
        """Raw q, and q2 with `twin`."""
        return {name: outputs[name] for name in self._names}

    @property
    def _names(self) -> tuple[str, ...]:
        return ("q", "q2") if self.twin else ("q",)

    def _predictions(self, online: Outputs, batch: Decisions) -> list[Tensor]:
        """Raw q (and q2) at times 0..T-1, BTAN each."""
        return [batch.at_decisions(raw) for raw in self._q_outputs(online).values()]

    def _state_values(self, outputs: Outputs) -> StateValues:
        v_BS = outputs["v"].flatten(2).squeeze(-1).float() if "v" in outputs else None
        return StateValues(lambda: self.head.q(self._q_outputs(outputs)), v_BS)

    @torch.no_grad()
    def _value(self, online: Outputs, target: Outputs | None, batch: Decisions) -> Tensor:
        """v(s), times 0..T: value_BS; 0 at T where no row can be cut there, and everywhere where no value is needed."""
        rows, times = batch.action_BT.shape
        if target is None or not self.values_matter:
            return batch.reward_BT.new_zeros(rows, times + 1)
        own, other = self._state_values(online), self._state_values(target)
        shape = target["v"].shape[:2] if "v" in target else other.q_BSA.shape[:2]
        value_BS = self.bootstrap.value(own, other, batch.legal_at(shape[1]))
        require_shape(value_BS, shape, f"{full_name(self.bootstrap)}: value_BS (rows, observations) of value")
        return value_BS if value_BS.shape[1] > times else torch.cat([value_BS, value_BS.new_zeros(rows, 1)], 1)

    def _output(self, losses: Iterable[Tensor], online: Outputs, target_BT: Tensor, batch: Decisions) -> LossOutput:
        """The sum of the losses of q and q2, with the metrics and the TD error y_t - Q(s_t, a_t) of q."""
        loss_BT = reduce(torch.add, losses)
        require_shape(loss_BT, target_BT.shape, f"{full_name(self.head)}: loss_BT (rows, transitions)")
        taken_BT, metrics = self._q_metrics(online, batch)
        metrics |= {
            "target/mean": target_BT,
            "target/clamped_share": self.head.clamped(target_BT),
            "td/absolute_error": (target_BT - taken_BT).abs(),
        }
        return LossOutput(loss_BT, metrics, target_BT - taken_BT)


    @torch.no_grad()
    def _q_metrics(self, online: Outputs, batch: Decisions) -> tuple[Tensor, dict[str, Tensor]]:
        """Q(s_t, a_t), BT, and metrics of Q; the greatest Q only where all actions are computed anyway."""
        if is_deferred(online):
            taken_BT = q_taken(self.head, online, batch, ("q",))
            return taken_BT, {"q/taken_mean": taken_BT}
        q_BTA = self.head.value(batch.at_decisions(online["q"].detach()))
        taken_BT = value_taken(q_BTA, batch.action_BT)
        return taken_BT, {"q/taken_mean": taken_BT, "q/max_mean": max_value(q_BTA, batch.legal_BTA)}


class TD(TDObjective):
    """A scalar Q of the action taken against y_t = R_t + G_t v(s_i).

    With a bootstrap that adds a bonus, r_t + alpha clip(T log pibar(a_t | s_t), clip_low, 0) stands in the place of r_t
    (Munchausen: Vieillard et al. 2020).
    """

    loss_of_taken_alone = True

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from online q (times 0..T-1; 0..T where it chooses the action) and target q or v (0..T, or 0..T-1)."""
        reward_BT = batch.reward_BT + self._bonus(target, batch)
        value_BS = self._value(online, target, batch)
        target_BT = self.returns.target(reward_BT, batch.discount_BT, batch.mask_BT, batch.carry_BT, value_BS)
        require_shape(target_BT, reward_BT.shape, f"{full_name(self.returns)}: target_BT (rows, transitions) of target")
        losses = []
        for name in self._names:
            raw_BTXN, place_BT = (
                (batch.at_decisions(online[name]), batch.action_BT)
                if self.head.needs_all_actions
                else raw_of_taken(online, name, batch)
            )
            losses.append(self.head.loss_taken(raw_BTXN, place_BT, target_BT))
        return self._output(losses, online, target_BT, batch)

    @torch.no_grad()
    def _bonus(self, target: Outputs | None, batch: Decisions) -> Tensor | float:
        """The bootstrap's addition to each decision's reward, times 0..T-1."""
        if target is None or not self.bootstrap.adds_bonus:
            return 0.0
        q_BTA = batch.at_decisions(self._state_values(target).q_BSA)
        bonus_BT = self.bootstrap.bonus(q_BTA, batch.action_BT, batch.legal_BTA)
        assert bonus_BT is not None, "it adds one"
        return bonus_BT * batch.mask_BT


class DistributionalTD(TDObjective):
    """The distribution of the action taken against Y_t = R_t + G_t Z(s_i, a*_i): the atoms of Z moved, with their weights."""

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from online q (times 0..T-1; 0..T where it chooses a*) and target q (0..T, or 0..T-1)."""
        head = cast(DistributionalHead, self.head)
        z_BTM, p_BTM = self._target_atoms(head, online, target, batch)
        losses = (head.loss_atoms(raw, batch.action_BT, z_BTM, p_BTM) for raw in self._predictions(online, batch))
        return self._output(losses, online, (z_BTM * p_BTM).sum(-1), batch)

    @torch.no_grad()
    def _target_atoms(
        self, head: DistributionalHead, online: Outputs, target: Outputs | None, batch: Decisions
    ) -> tuple[Tensor, Tensor]:
        """Values R_t + G_t z of the M target atoms, and their probabilities: BTM each."""
        affine = self.returns.affine(batch.reward_BT, batch.discount_BT, batch.mask_BT, batch.carry_BT)
        what = f"{full_name(self.returns)}: reward_BT (rows, transitions) of affine"
        require_shape(affine.reward_BT, batch.reward_BT.shape, what)
        if target is None or not self.values_matter:
            z_BTM = affine.reward_BT[..., None]
            return z_BTM, torch.ones_like(z_BTM)
        own, other = self._state_values(online), self._state_values(target)
        action_BS = self.bootstrap.action(own, other, batch.legal_at(other.q_BSA.shape[1]))
        z_BSM, p_BSM = self._smaller_atoms(head, target, action_BS)
        last = action_BS.shape[1] - 1  # where no row can be cut, the last observation has no output, and G_t is 0
        index_BTM = affine.index_BT.clamp(max=last)[..., None].expand(*affine.index_BT.shape, z_BSM.shape[-1])
        z_BTM, p_BTM = z_BSM.gather(1, index_BTM), p_BSM.gather(1, index_BTM)
        return affine.reward_BT[..., None] + affine.discount_BT[..., None] * z_BTM, p_BTM


    def _smaller_atoms(self, head: DistributionalHead, target: Outputs, action_BS: Tensor) -> tuple[Tensor, Tensor]:
        """z_BSM and p_BSM of one action each; of q and q2 the distribution of the smaller mean."""
        of_each = [head.atoms(atoms_of(raw, action_BS)) for raw in self._q_outputs(target).values()]
        z_BSM, p_BSM = of_each[0]
        for other_z_BSM, other_p_BSM in of_each[1:]:
            is_less_BS1 = ((other_z_BSM * other_p_BSM).sum(-1) < (z_BSM * p_BSM).sum(-1))[..., None]
            z_BSM, p_BSM = torch.where(is_less_BS1, other_z_BSM, z_BSM), torch.where(is_less_BS1, other_p_BSM, p_BSM)
        return z_BSM, p_BSM


def atoms_of(raw_BSAN: Tensor, action_BS: Tensor) -> Tensor:
    """raw_BSN of one action each, in the outputs' dtype."""
    index_BSAN = action_BS[..., None, None].expand(*action_BS.shape, 1, raw_BSAN.shape[-1])
    return raw_BSAN.gather(2, index_BSAN).squeeze(2)


class AllActionsTD(TDObjective):
    """A scalar Q of every action against its own y_t(a) = r_t(a) + d_t v(s_{t+1}); no action may change the next state.

    Args (beside those of `td`):
        reward_all: rewards of all actions.

    Raises:
        UserError: returns over more than one decision, or a bootstrap that adds a bonus to the reward of the action taken.
    """

    def __init__(
        self, head: Head, bootstrap: Bootstrap, returns: Returns, values_matter: bool, last_has_value: bool,
        weight: float, twin: bool, reward_all: RewardAll,
    ) -> None:  # fmt: skip
        super().__init__(head, bootstrap, returns, values_matter, last_has_value, weight, twin)
        if returns.lookahead != 1 or bootstrap.adds_bonus:
            raise UserError(
                "feedback=all_actions has one-step targets: set returns=one_step and bootstrap=max or double"
            )
        self.reward_all = reward_all

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT, summed over actions, from online q (times 0..T-1; 0..T where it chooses) and target q or v (0..T)."""
        reward_BTA = batch.from_first(self.reward_all(batch.observation_BS))
        value_BS = self._value(online, target, batch)
        target_BTA = reward_BTA + (batch.discount_BT * value_BS[:, 1:])[..., None]
        losses = (self.head.loss_all(raw, target_BTA) for raw in self._predictions(online, batch))
        return self._output(losses, online, value_taken(target_BTA, batch.action_BT), batch)
