"""KL penalty to the initial policy of the run, as a term of each decision's reward.

    r'_t = r_t + w log pi_ref(a_t | s_t)        pi_ref = softmax(Q_ref / T_ref)

With a soft bootstrap (and policy softmax(Q / w)) at temperature w this is exactly KL-regularised control. For any policy pi

    E[sum_t r'_t + w H(pi(. | s_t))] = E[sum_t r_t + w log pi_ref(a_t | s_t) - w log pi(a_t | s_t)]
                                     = E[sum_t r_t - w KL(pi(. | s_t) || pi_ref(. | s_t))]

and soft Q-learning maximises the left side (Haarnoja et al. 2017; a prior policy as a reward: Rawlik et al. 2012; on sequences:
Jaques et al. 2017). Its fixed point is

    Q(s, a) = r + w log pi_ref(a | s) + gamma V(s')        V(s) = w logsumexp_a Q(s, a) / w

so on a deterministic task with gamma 1 the policy gives a whole episode the probability pi_ref exp(R / w) / Z: the logarithms
sum, and the values between the first and the last cancel. With a hard maximum (bootstrap=max, double) the entropy is missing: the
agent then maximises reward and likelihood, and tends to pi_ref's likeliest texts.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from dqnlm.heads.base import Head
from dqnlm.objectives.base import Outputs
from dqnlm.objectives.soft_policy import soft_advantage
from dqnlm.types import Decisions


class ReferenceReward:
    """r'_t = r_t + w log pi_ref(a_t | s_t); pi_ref is 0 for illegal actions.

    Args:
        head: meaning of the raw q.
        weight: w, return units a nat, above 0.
        temperature: T_ref, return units, above 0; 1 where Q_ref was cloned, as its raw numbers are then logits.
    """

    def __init__(self, head: Head, weight: float, temperature: float) -> None:
        self.head, self.weight, self.temperature = head, weight, temperature

    def __call__(self, reference: Outputs, batch: Decisions) -> tuple[Decisions, Tensor]:
        """The batch with rewards r' at its decisions, and log pi_ref(a_t | s_t) in nats, BT without gradient.

        Args:
            reference: raw outputs of the reference network, times 0..T-1.
            batch: actions, rewards and legal actions, times 0..T-1.
        """
        advantage_BT = soft_advantage(self.head, reference, batch, self.temperature).advantage_BT.detach()
        log_BT = advantage_BT / self.temperature
        reward_BT = batch.reward_BT + self.weight * log_BT * batch.mask_BT
        return replace(batch, reward_BT=reward_BT), log_BT
