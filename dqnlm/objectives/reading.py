"""How objectives read raw outputs: in full where there are few actions, else only what a loss needs (`networks.deferred`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dqnlm.heads.base import Head
from dqnlm.networks.deferred import DeferredOutputs
from dqnlm.objectives.base import Outputs, value_taken
from dqnlm.types import Decisions


def is_deferred(outputs: Outputs) -> bool:
    """Whether outputs in full are to be avoided."""
    return isinstance(outputs, DeferredOutputs)


def raw_of_taken(outputs: Outputs, name: str, batch: Decisions) -> tuple[Tensor, Tensor]:
    """Raw outputs at times 0..T-1 that hold those of the actions taken, BTXN, and the place of these among the X, int64 BT."""
    if isinstance(outputs, DeferredOutputs):
        return outputs.at_actions(name, batch.action_BT)[:, :, None], torch.zeros_like(batch.action_BT)
    return batch.at_decisions(outputs[name]), batch.action_BT


def q_taken(head: Head, outputs: Outputs, batch: Decisions, names: tuple[str, ...] = ("q", "q2")) -> Tensor:
    """Q(s_t, a_t), BT, in return units; of two Q-functions the smaller one.

    Args:
        head: meaning of the raw outputs.
        outputs: those of `names` that are not there are left out.
        batch: actions, times 0..T-1.
        names: of the outputs.
    """
    if head.needs_all_actions or not isinstance(outputs, DeferredOutputs):
        there = {name: batch.at_decisions(outputs[name]) for name in names if name in outputs}
        return value_taken(head.q(there), batch.action_BT)
    found = [head.value(raw_of_taken(outputs, name, batch)[0]).squeeze(-1) for name in names if name in outputs]
    return found[0] if len(found) == 1 else torch.minimum(*found)


def over_actions(
    outputs: Outputs, name: str, batch: Decisions, reduce: Callable[[Tensor, Tensor, Tensor | None], Tensor]
) -> Tensor:
    """`reduce(raw_XAN, action_X, legal_XA)` at decisions, K numbers each: BTK. Deferred outputs are 0 elsewhere.

    X stands for (B, T), or for the decisions of some rows.
    """
    if isinstance(outputs, DeferredOutputs):
        return outputs.at_decisions(name, batch.action_BT, batch.mask_BT, batch.legal_BTA, reduce)
    return reduce(batch.at_decisions(outputs[name]), batch.action_BT, batch.legal_BTA)
