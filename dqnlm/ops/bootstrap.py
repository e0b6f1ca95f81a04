"""What the future is worth: one number for each observation, from the Q-values of all actions.

Illegal actions never enter a maximum: they are -inf before it (a masked action left in the maximum is a known fault of
value-based libraries).
"""

from __future__ import annotations

from torch import Tensor


def masked_q(q_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """Q with illegal actions at -inf; `legal_BSA` is bool, broadcastable, or None when every action is legal."""
    return q_BSA if legal_BSA is None else q_BSA.masked_fill(~legal_BSA, float("-inf"))


def max_value(q_target_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """v(s) = max_a Qbar(s, a) over legal actions (Mnih et al. 2015).

    Returns:
        value_BS, the dtype of `q_target_BSA`.
    """
    return masked_q(q_target_BSA, legal_BSA).amax(-1)


def double_value(q_online_BSA: Tensor, q_target_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """v(s) = Qbar(s, argmax_a Q(s, a)): the online network chooses, the target network values (van Hasselt et al. 2016).

    Returns:
        value_BS, the dtype of `q_target_BSA`. Equal to `max_value` when both networks are the same.
    """
    chosen_BS = masked_q(q_online_BSA, legal_BSA).argmax(-1, keepdim=True)
    return q_target_BSA.gather(-1, chosen_BS).squeeze(-1)
