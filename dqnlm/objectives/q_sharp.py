"""Q#: the distribution of returns under a fixed reference policy pi_ref (Zhou et al. 2025, arXiv 2502.20548).

    Z(s, a)      return from s on, after action a and with pi_ref afterwards; what its own completions have
    Q(s, a)      = eta log E exp(Z(s, a) / eta)        (head.temperature = eta)
    pi(a | s)   ~= pi_ref(a | s) exp(Q(s, a) / eta)    (policy.kind=reweighted, policy.beta = 1 / eta)

pi maximises the return less eta KL(pi | pi_ref), exactly, where Z is known and an action leads to one next state, as in text.
Z is learned as a distribution, by maximum likelihood from observed returns: no bootstrap, no target network. The returns must be
those of pi_ref, so this is the paper's first round, on a log of the reference policy's own completions.
"""

from __future__ import annotations

import math
from typing import cast

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.heads.distributional import DistributionalHead
from dqnlm.objectives.base import LossOutput, Outputs, Requirements
from dqnlm.objectives.bootstrap import Bootstrap
from dqnlm.objectives.reading import raw_of_taken
from dqnlm.objectives.returns import MonteCarlo
from dqnlm.objectives.td import DistributionalTD
from dqnlm.types import Decisions
from dqnlm.utils.context import RunContext


class QSharp(DistributionalTD):
    """The head's loss of the distribution of the action taken against the return observed to the end of the episode.

    It requires the output `policy`, pi_ref, and trains q alone.

    Args:
        head: with a temperature, eta.
        bootstrap: not used, as rows are whole episodes.
        weight: factor of this loss in the sum.

    Raises:
        UserError: a head that predicts no distribution, or whose Q is its mean.
    """

    learns_all_actions = uses_bootstrap = False
    loss_of_taken_alone = True

    def __init__(self, head: Head, bootstrap: Bootstrap, *, weight: float) -> None:
        if not isinstance(head, DistributionalHead) or head.temperature is None:
            raise UserError(
                "objective q_sharp learns the distribution of returns, of which Q is eta log E exp(Z / eta), and "
                f"{type(head).__name__} {'has no temperature' if head.is_distributional else 'predicts no distribution'}: set "
                "head=categorical head.temperature=0.25 or so (algorithm=q_sharp does)"
            )
        super().__init__(head, bootstrap, MonteCarlo(), False, False, weight, False)
        self.requires = Requirements(outputs=("policy",), whole_episodes=True, lookahead=None)
        self.eta = head.temperature

    def check(self, context: RunContext) -> None:
        """See `Objective.check`.

        Raises:
            UserError: another policy than pi_ref exp(Q / eta), a pi_ref that learns, returns of another policy, or discounts.
        """
        if context.policy != "reweighted":
            raise UserError(
                f"objective q_sharp is for the policy pi_ref exp(Q / eta), and policy.kind={context.policy}: set "
                f"policy.kind=reweighted policy.beta={1 / self.eta:g}"
            )
        if context.beta is None or not math.isclose(context.beta * self.eta, 1.0, rel_tol=1e-3):
            raise UserError(
                f"objective q_sharp acts by pi_ref exp(Q / eta), so policy.beta must be 1 / head.temperature: policy.beta is "
                f"{context.beta} and head.temperature {self.eta}; set policy.beta={1 / self.eta:g}"
            )
        if not context.has_fixed_policy:
            raise UserError(
                f"objective q_sharp needs a reference policy that does not change, and with network={context.option('network')} "
                "as it is set the output `policy` learns: set network=pretrained network.lora_rank=0 (and "
                "network.train_output_layer=null)"
            )
        if context.rollouts:
            raise UserError(
                "objective q_sharp learns the returns of the reference policy, and rollouts would be played by the policy that "
                "is learned: set trainer.rollouts=0, and learn from a log of the reference policy's own completions"
            )
        if context.gamma != 1:
            raise UserError(f"objective q_sharp has no discount, and gamma is {context.gamma}: set gamma=1")

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT from online q (times 0..T-1) and the rewards to the end of the row."""
        head = cast(DistributionalHead, self.head)
        z_BTM, p_BTM = self._target_atoms(head, online, None, batch)
        raw_BTXN, place_BT = raw_of_taken(online, "q", batch)
        loss_BT = head.loss_atoms(raw_BTXN, place_BT, z_BTM, p_BTM)
        return self._output([loss_BT], online, (z_BTM * p_BTM).sum(-1), batch)
