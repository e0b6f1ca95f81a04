"""How far an exported policy differs from the run's, where the smaller of two Q-functions acts, which no single layer can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from dqnlm.agent.acting_layer import Layer
    from dqnlm.agent.policy import Policy

ROWS, TOKENS = 16, 32


@torch.no_grad()
def agreement(policy: Policy, layer: Layer) -> str:
    """One sentence: how often the greedy tokens agree, and the mean divergence, on texts sampled from the run's policy."""
    network, device = policy.network, policy.device
    last = policy.network.context - 1
    generator = torch.Generator(device).manual_seed(0)
    kind = policy.declared
    choose = policy.chooser(kind, None, None, generator)
    begin = policy.tokenizer.eos_id
    first_E1 = torch.full((ROWS, 1), begin if begin is not None else 0, device=device)
    from dqnlm.agent.generation import generate

    columns = list(generate(network, first_E1, choose, min(TOKENS, last)))
    observation_BS = torch.cat([first_E1, torch.stack(columns, 1)], 1)[:, :-1]
    h_BSD = network.features(observation_BS)
    own = policy.logits(network.project(h_BSD), kind, None).log_softmax(-1)
    bias = 0.0 if layer.bias_A is None else layer.bias_A
    there = h_BSD @ layer.weight_AD.T + bias
    if policy.legal_A is not None:
        there = there.masked_fill(~policy.legal_A, float("-inf"))
    there = there.log_softmax(-1)
    same = float((own.argmax(-1) == there.argmax(-1)).float().mean())
    terms = torch.where(own > -torch.inf, own.exp() * (own - there), 0.0)
    return (
        f"The run acts by the smaller of two Q-functions, which no output layer can be; their mean stands for it. On {ROWS} "
        f"sampled texts of {len(columns)} tokens the most probable token agrees at {same:.1%} of the places, and the divergence "
        f"is {float(terms.sum(-1).mean()):.4f} nats a token. A run with policy.acting_q=mean or first is exported exactly."
    )
