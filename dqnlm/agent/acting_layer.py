"""The one linear layer whose softmax is the policy that a run acts by, so that other programs can act alike.

A softmax ignores what is the same for all actions. Where Q is linear in the last features h but for such a term,

    reweighted    log pi_b(a | h) + beta (Q(h, a) - V(h))  =  (W_policy + beta W_q)[a] h + a number without a
    boltzmann     Q(h, a) / T                              =  (W_q / T)[a] h + a number without a

W_q of a learned correction of the logits, T log softmax(W h) + U V h, is T W + U V. Of two Q-functions the first, or the mean of
both, is linear; the smaller of both is not. Of several rewards Q is sum_i w_i Q_i, with the weights that the policy acts by.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dqnlm.agent.policy import ActingQ, Policy
from dqnlm.errors import UserError
from dqnlm.heads.distributional import DistributionalHead
from dqnlm.networks.pretrained_outputs import FixedLogits, LogitQ
from dqnlm.networks.projections import Dueling, Linear, LowRank
from dqnlm.utils.output_names import first_q, named


class Layer(NamedTuple):
    """weight_AD and bias_A of a linear layer, float32; no bias: zeros."""

    weight_AD: Tensor
    bias_A: Tensor | None

    def plus(self, other: Layer, factor: float = 1.0) -> Layer:
        """self + factor other."""
        biases = [bias for bias in (self.bias_A, None if other.bias_A is None else factor * other.bias_A) if bias is not None]
        return Layer(self.weight_AD + factor * other.weight_AD, sum(biases[1:], biases[0]) if biases else None)

    def times(self, factor: float) -> Layer:
        return Layer(factor * self.weight_AD, None if self.bias_A is None else factor * self.bias_A)


@torch.no_grad()
def acting_layer(policy: Policy) -> tuple[Layer, bool]:
    """The layer, and whether its softmax is the run's policy exactly; where the smaller of two Qs acts, their mean stands for it.

    Raises:
        UserError: the policy is not of this form; with what to train instead.
    """
    if isinstance(policy.head, DistributionalHead) and policy.head.temperature is not None:
        raise UserError(
            "the policy cannot be folded into an output layer: Q = eta log E exp(Z / eta) of a predicted distribution "
            "(head.temperature) is no linear function of the features. dqnlm generate acts by it; dqnlm export --behaviour "
            "writes the policy that it reweights"
        )
    if policy.declared == "probability" or not policy.head.raw_is_q:
        raise UserError(
            "the policy cannot be folded into an output layer: Q of this run is no linear function of the features (policy.kind="
            f"{policy.declared}, head {type(policy.head).__name__}); train with head=scalar head.loss=squared or huber"
        )
    projections = policy.network.projections
    first = first_q(projections)
    which: ActingQ = policy.acting_q if first.replace("q", "q2", 1) in projections else "first"
    if policy.weights:
        parts = [_q(projections, which, named("q", name)).times(weight) for name, weight in policy.weights.items()]
        q = reduce(Layer.plus, parts)
    else:
        q = _q(projections, which, first)
    if policy.declared == "reweighted":
        layer = _linear(projections["policy"], "policy").plus(q, policy.beta)
    else:
        layer = q.times(1 / policy.temperature)
    return layer, which != "min"


def _q(projections: nn.ModuleDict, which: ActingQ, name: str) -> Layer:
    """The Q-function of one reward, called `name`: the first, or the mean of both."""
    q = _linear(projections[name], name)
    if which == "first":
        return q
    second = name.replace("q", "q2", 1)
    return q.times(0.5).plus(_linear(projections[second], second), 0.5)


def behaviour_layer(policy: Policy) -> Layer:
    """The layer of the cloned behaviour, the output `policy`.

    Raises:
        UserError: the run has none.
    """
    if "policy" not in policy.network.projections:
        raise UserError(
            f"this run has no cloned behaviour: its outputs are {', '.join(policy.network.projections)}; leave --behaviour out"
        )
    return _linear(policy.network.projections["policy"], "policy")


def _linear(projection: nn.Module, name: str) -> Layer:
    """The layer of one output, up to a number that is the same for all actions."""
    if isinstance(projection, LogitQ):
        logits, beside = _linear(projection.logit, name).times(projection.temperature), projection.value
        return logits if getattr(beside, "num_actions", 1) == 1 else logits.plus(_linear(beside, name))
    if isinstance(projection, LowRank) and projection.num_parameters == 1:
        return Layer(projection.up.weight.detach().float() @ projection.down.weight.detach().float(), None)
    if isinstance(projection, Dueling) and isinstance(projection.advantage, nn.Linear) and projection.num_parameters == 1:
        return _of(projection.advantage)
    if isinstance(projection, FixedLogits | Linear) and projection.num_parameters == 1:
        return _of(projection.linear)
    raise UserError(
        f"the output {name} cannot be folded into an output layer: its {type(projection).__name__} is no linear function of the "
        "features; train with projection=low_rank, linear, or dueling with projection.hidden=0"
    )


def _of(linear: nn.Linear) -> Layer:
    bias = linear.bias
    return Layer(linear.weight.detach().float(), None if bias is None else bias.detach().float())
