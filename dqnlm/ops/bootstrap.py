"""State values from Q-values: max, double, soft, Munchausen.

Illegal actions never enter a maximum or a softmax: they are -inf before it (a masked action left in the maximum is a
known bug of value-based libraries). `legal` is bool, broadcastable to BSA, or None when every action is legal.
Temperatures are in return units: they divide Q.
"""

from __future__ import annotations

from torch import Tensor


def masked_q(q_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """Q with illegal actions at -inf; `legal_BSA` is bool, broadcastable, or None when every action is legal."""
    return q_BSA if legal_BSA is None else q_BSA.masked_fill(~legal_BSA, float("-inf"))


def max_action(q_target_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """argmax_a Qbar(s, a) over legal actions, int64 action_BS."""
    return masked_q(q_target_BSA, legal_BSA).argmax(-1)


def max_value(q_target_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """v(s) = max_a Qbar(s, a) over legal actions (Mnih et al. 2015).

    Returns:
        value_BS, the dtype of `q_target_BSA`.
    """
    return masked_q(q_target_BSA, legal_BSA).amax(-1)


def double_action(q_online_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """argmax_a Q(s, a) of the online network over legal actions (van Hasselt et al. 2016), int64 action_BS."""
    return max_action(q_online_BSA, legal_BSA)


def double_value(q_online_BSA: Tensor, q_target_BSA: Tensor, legal_BSA: Tensor | None) -> Tensor:
    """v(s) = Qbar(s, argmax_a Q(s, a)): online selection, target evaluation (van Hasselt et al. 2016).

    Returns:
        value_BS, the dtype of `q_target_BSA`. Equal to `max_value` when both networks are the same.
    """
    chosen_BS = double_action(q_online_BSA, legal_BSA)
    return q_target_BSA.gather(-1, chosen_BS[..., None]).squeeze(-1)


def soft_value(q_BSA: Tensor, legal_BSA: Tensor | None, temperature: float) -> Tensor:
    """v(s) = T logsumexp_a Q(s, a) / T: the maximum of expected Q plus T times entropy (Haarnoja et al. 2017).

    Returns:
        value_BS, between max Q and max Q + T log A.
    """
    return temperature * (masked_q(q_BSA, legal_BSA) / temperature).logsumexp(-1)


def soft_policy_log(q_BSA: Tensor, legal_BSA: Tensor | None, temperature: float) -> Tensor:
    """log pi(a | s) of pi = softmax(Q / T): log_pi_BSA in nats, -inf at illegal actions."""
    return (masked_q(q_BSA, legal_BSA) / temperature).log_softmax(-1)


def munchausen_value(q_target_BSA: Tensor, legal_BSA: Tensor | None, temperature: float) -> Tensor:
    """v(s) = sum_a pi(a | s) (Qbar(s, a) - T log pi(a | s)), pi = softmax(Qbar / T) (Vieillard et al. 2020).

    T log pi = Qbar - `soft_value`, so every term of the mean is `soft_value`: the sum is that, without 0 times infinity.
    """
    return soft_value(q_target_BSA, legal_BSA, temperature)


def munchausen_bonus(
    q_target_BTA: Tensor,
    action_BT: Tensor,
    legal_BTA: Tensor | None,
    alpha: float,
    temperature: float,
    clip_low: float,
) -> Tensor:
    """alpha clip(T log pi(a_t | s_t), clip_low, 0), pi = softmax(Qbar / T): added to the reward (Vieillard et al. 2020).

    Args:
        q_target_BTA: Qbar of the states in which the actions were taken.
        action_BT: int64; logged data may hold an illegal action, which gets the least bonus.
        legal_BTA: as above.
        alpha: share of the bonus.
        temperature: return units.
        clip_low: least T log pi, return units, below 0.

    Returns:
        bonus_BT in [alpha clip_low, 0].
    """
    log_pi_BTA = soft_policy_log(q_target_BTA, legal_BTA, temperature)
    taken_BT = log_pi_BTA.gather(-1, action_BT[..., None]).squeeze(-1)
    return alpha * (temperature * taken_BT).clamp(min=clip_low, max=0.0)
