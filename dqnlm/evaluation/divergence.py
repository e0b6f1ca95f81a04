"""How far a reweighted policy is from the policy that it reweighs (a pretrained model as it is, or a clone)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dqnlm.agent.policy import Policy
from dqnlm.metrics import Metric
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import DECISION, Rows

KL = Metric("eval/kl", "KL", "KL divergence of the policy from pi_b, the model or clone that it reweighs", "nats a token")
_NUMBERS = 2**25  # outputs at once, 128 MiB in float32


@torch.no_grad()
def divergence(policy: Policy, rows: Sequence[Rows]) -> float:
    """Mean over the decisions of rows that pi played of sum_a pi(a | s) log(pi(a | s) / pi_b(a | s)), nats a decision.

    pi = softmax(log pi_b + beta Q) over the legal actions. The sum is over all actions: only the states are sampled. The mean
    times the length is the divergence of whole completions (chain rule).
    """
    total, count = 0.0, 0
    at_once = max(1, _NUMBERS // (policy.spec.num_actions * policy.head.num_parameters * len(policy.network.projections)))
    for part in rows:
        decision_BT = (part.flag_BT & DECISION) != 0
        for h_XD in policy.network.features(part.observation_BS[:, :-1])[decision_BT].split(at_once):
            output = policy.network.project(h_XD)
            log_b_XA = masked_q(output["policy"].squeeze(-1).float(), policy.legal_A).log_softmax(-1)
            log_XA = policy.q(output).float().log_softmax(-1)
            # an illegal action has probability 0, and 0 (-inf - -inf) is no number
            ratio_XA = torch.where(log_XA.isfinite(), log_XA - log_b_XA, 0.0)
            total, count = total + float((log_XA.exp() * ratio_XA).sum()), count + len(h_XD)
    return total / max(count, 1)
