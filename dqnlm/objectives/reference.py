"""Pay for staying near the policy that the run began with: a part of each decision's reward.

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
from dqnlm.objectives.base import Legal, Outputs, legal_from, present, reference_term
from dqnlm.types import Batch


class ReferenceReward:
    """See the module's text.

    Args:
        head: meaning of the raw q.
        legal: observation_BS -> mask of legal actions, or None; pi_ref gives the others nothing.
        weight: w, return units a nat, above 0.
        temperature: T_ref, return units, above 0; 1 where Q_ref was cloned, as its raw numbers are then logits.
    """

    def __init__(self, head: Head, legal: Legal, weight: float, temperature: float) -> None:
        self.head, self.legal, self.weight, self.temperature = head, legal, weight, temperature

    def __call__(self, reference: Outputs, batch: Batch) -> tuple[Batch, Tensor]:
        """The batch with its decisions paid so, and log pi_ref of the actions taken, in nats: BT from `batch.first` on."""
        fields = present(batch)
        legal = legal_from(self.legal, batch, fields.action_BT.shape[1])
        log_BT = reference_term(self.head, reference, fields, legal, self.temperature) / self.temperature
        reward_BT = batch.reward_BT.clone()
        reward_BT[:, batch.first :] += self.weight * log_BT * fields.mask_BT
        return replace(batch, reward_BT=reward_BT), log_BT
