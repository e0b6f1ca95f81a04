"""The policy softmax(Q / T) of a Q-function: its state value and the log-probabilities of the actions taken.

V(s) = T logsumexp_a Q(s, a) / T        T log pi(a | s) = Q(s, a) - V(s)        (Haarnoja et al. 2017)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dqnlm.heads.base import Head
from dqnlm.objectives.base import Outputs, value_taken
from dqnlm.objectives.reading import over_actions
from dqnlm.ops.bootstrap import soft_value
from dqnlm.types import Decisions


class SoftAdvantage(NamedTuple):
    """At times 0..T-1, in return units.

    Attributes:
        advantage_BT: T log pi(a_t | s_t).
        value_BT: V(s_t).
        taken_BT: Q(s_t, a_t).
    """

    advantage_BT: Tensor
    value_BT: Tensor
    taken_BT: Tensor


def soft_advantage(head: Head, outputs: Outputs, batch: Decisions, temperature: float) -> SoftAdvantage:
    """T log pi(a_t | s_t) = Q(s_t, a_t) - V(s_t), the softmax over legal actions.

    Args:
        head: meaning of the raw q.
        outputs: raw q, times 0..T-1 (one time more is not read).
        batch: actions and legal actions, times 0..T-1.
        temperature: T, return units.
    """

    def taken_and_value(raw_XAN: Tensor, action_X: Tensor, legal_XA: Tensor | None) -> Tensor:
        q_XA = head.value(raw_XAN)
        return torch.stack([value_taken(q_XA, action_X), soft_value(q_XA, legal_XA, temperature)], -1)

    taken_BT, value_BT = over_actions(outputs, "q", batch, taken_and_value).unbind(-1)
    return SoftAdvantage(taken_BT - value_BT, value_BT, taken_BT)


def reference_advantage(head: Head, reference: Outputs | None, batch: Decisions, temperature: float) -> Tensor | float:
    """T log pi_ref(a_t | s_t), BT without gradient; 0 where there is no reference."""
    if reference is None:
        return 0.0
    return soft_advantage(head, reference, batch, temperature).advantage_BT.detach()
