"""Batches for tests: random ones, and ones by hand of which only what matters is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Batch, Decisions, discount_from_flags

A, T, GAMMA = 5, 6, 0.5


def make_batch(
    action_BT: Any,
    reward_BT: Any = 0.0,
    discount_BT: Any = 1.0,
    mask_BT: Any = 1.0,
    observation_BS: Any = 0,
    **fields: Any,
) -> Batch:
    """A batch by hand: lists, tensors, or one number for all places; `fields` are others of `Batch`.

    Rows are as long as the tensors, have weight 1, and stand at 0, 1, ... of a buffer, unless told.
    """
    action_BT = torch.as_tensor(action_BT)
    rows, times = action_BT.shape

    def filled(value: Any, width: int, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(value, dtype=dtype).expand(rows, width).clone()

    usual: dict[str, Any] = {
        "length_B": torch.full((rows,), times), "weight_B": torch.ones(rows), "index_B": torch.arange(rows),
    }  # fmt: skip
    given = {"reward_BT": reward_BT, "discount_BT": discount_BT, "mask_BT": mask_BT}
    return Batch(
        observation_BS=filled(observation_BS, times + 1, torch.int64),
        action_BT=action_BT,
        **{name: filled(value, times, torch.float32) for name, value in given.items()},
        **(
            usual
            | {name: torch.as_tensor(value) if isinstance(value, list) else value for name, value in fields.items()}
        ),
    )


def decisions(batch: Batch, legal_A: Tensor | None = None, multi_turn: bool = False) -> Decisions:
    """The batch as objectives read it; with the same actions legal everywhere."""
    return batch.from_first_decision(lambda observation_BS: legal_A, multi_turn)


def random_batch(
    rows: int = 4, seed: int = 0, first: int = 0, end: int = TRUNCATED, gamma: float = GAMMA, copies: int = 1
) -> Batch:
    """Rows of random tokens and rewards; decisions from `first` on, the second row ends two steps early by termination."""
    g = torch.Generator().manual_seed(seed)
    length_B = torch.full((rows,), T)
    length_B[1::3] = T - 2
    time_T = torch.arange(T)
    within_BT = time_T < length_B[:, None]
    flag_BT = ((time_T >= first) & within_BT) * DECISION
    flag_BT[torch.arange(rows), length_B - 1] |= torch.where(length_B == T, end, TERMINATED)
    flag_BT = flag_BT.to(torch.uint8)
    mask_BT = ((flag_BT & DECISION) != 0).float()
    observation_BS = torch.randint(A, (rows // copies, T + 1), generator=g).repeat_interleave(copies, 0)
    action_BT = torch.randint(A, (rows, T), generator=g)
    return make_batch(
        action_BT, torch.rand(rows, T, generator=g) * mask_BT, discount_from_flags(flag_BT, length_B, gamma), mask_BT,
        observation_BS, length_B=length_B, first=first, copies=copies,
    )  # fmt: skip
