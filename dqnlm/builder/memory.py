"""Estimates an update's memory and refuses a run that cannot fit."""

from __future__ import annotations

from typing import Any

import torch

from dqnlm.builder.q_semantics import reads_reference
from dqnlm.errors import UserError
from dqnlm.networks.deferred import MANY_ACTIONS
from dqnlm.types import TaskSpec
from dqnlm.utils.memory import free_bytes
from dqnlm.utils.output_names import all_outputs, how_many

# Each output lives as raw numbers, as their gradient, and once more in the target network or in a log-softmax; a reference
# policy has one more.
COPIES = 3
GIB = 2**30


def output_bytes(
    rows: int, observations: int, num_actions: int, outputs: tuple[str, ...], num_parameters: int, copies: int = COPIES
) -> int:
    """Estimated bytes of an update's outputs over the vocabulary: float32 [B, S, A, N], times their number of copies.

    Args:
        rows: B in one forward.
        observations: S of the longest row.
        num_actions: A.
        outputs: named outputs beside q.
        num_parameters: N of q and q2.
    """
    one = rows * observations * num_actions * 4
    return copies * one * (how_many(outputs, "q", "q2") * num_parameters + ("policy" in outputs))


def check_outputs(
    config: dict[str, Any], spec: TaskSpec, outputs: tuple[str, ...], num_parameters: int, device: torch.device, in_full: bool
) -> None:
    """Refuses a run whose outputs cannot fit; `in_full`: an objective reads those of all actions at once.

    Raises:
        UserError: they take more than is free; with the numbers and what to lower.
    """
    if not in_full and spec.num_actions >= MANY_ACTIONS and not config["learner"]["compile"]:
        return  # computed where a loss reads them
    learner, group, observations = config["learner"], spec.guesses_per_position, spec.row_transitions + 1
    batch_size: int = config["trainer"]["batch_size"]
    rows = max(min(batch_size, learner["micro_batch_size"] or batch_size) // group, 1)
    of_one = output_bytes(1, observations, spec.num_actions, outputs, num_parameters, COPIES + reads_reference(config))
    needed, there = rows * of_one, free_bytes(device)
    if there is None or needed <= there:
        return
    fitting = there // of_one * group
    names = all_outputs(outputs, spec.reward_names)
    advice = f"Set learner.micro_batch_size={fitting} (the same update, in parts), or lower" if fitting else "Lower"
    raise UserError(
        f"vocabulary too large for the memory: the outputs {', '.join(names)} of an update, each [{rows}, "
        f"{observations}, {spec.num_actions}]{f' x {num_parameters}' if num_parameters > 1 else ''} in float32, take about "
        f"{needed / GIB:.1f} GiB with gradients and targets, and {there / GIB:.1f} GiB are free on {device}. {advice} "
        f"{'trainer.batch_size, ' if fitting else ''}the length of an episode (env.horizon), or the vocabulary (data.tokenizer)"
    )


