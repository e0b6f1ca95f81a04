"""Replay: a ring of rows on the device, drawn from with equal probability.

Stored for each transition: the observation's token, the action's token where it differs from the next observation, the
reward (float32), one byte of flags: at most 2 x token bytes + 5. Discounts and masks are made when a batch is drawn.
Nothing here copies to the host: how many rows came in is known on the device only (episodes may end at any time).
"""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.types import DECISION, Batch, Rows, discount_from_flags


class UniformBuffer:
    """Ring of `capacity` transitions in rows of `row_transitions`.

    Args:
        row_transitions: longest T of a row.
        first_decision: no row has a decision before this time.
        num_actions: decides the bytes of a token (1 up to 256 actions, 2 up to 32,768, else 4).
        stores_actions: False where the action always is the next observation (free-running text).
        gamma: discount of one decision.
        history: observations before and at a decision that the network can use (`sample=transitions` crops to them).
        copies: rows come in groups of so many with equal observations; groups are drawn whole.
        device: where the ring lives.
        generator: draws rows.
    """

    def __init__(
        self,
        row_transitions: int,
        first_decision: int,
        num_actions: int,
        stores_actions: bool,
        gamma: float,
        history: int,
        copies: int,
        device: torch.device,
        generator: torch.Generator,
        *,
        capacity: int,
        sample: Literal["rows", "transitions"],
    ) -> None:
        self.row_transitions, self.first, self.gamma, self.history = row_transitions, first_decision, gamma, history
        self.mode, self.generator, self.device = sample, generator, device
        decisions = row_transitions - first_decision
        self.copies = copies
        self.rows = capacity // (decisions * copies) * copies
        if self.rows < 1:
            raise UserError(
                f"buffer.capacity={capacity} transitions is less than {copies} rows of {decisions} decisions; "
                f"set buffer.capacity to at least {copies * decisions}"
            )
        if sample == "transitions" and copies > 1:
            raise UserError(
                "buffer.sample=transitions draws single decisions, but env.copies groups rows; set one of them back"
            )
        token = torch.uint8 if num_actions <= 256 else torch.int16 if num_actions <= 32768 else torch.int32
        self.stores_actions = stores_actions
        self.bytes_per_transition = torch.empty(0, dtype=token).element_size() * (1 + stores_actions) + 5
        refuse_if_it_cannot_fit(self.rows, row_transitions, self.bytes_per_transition, device, capacity)

        def ring(length: int, dtype: torch.dtype) -> Tensor:
            # One row more than the capacity: rows that are not kept are written there, so that no write depends on
            # how many there are.
            return torch.zeros(self.rows + 1, length, dtype=dtype, device=device)

        self.observation_CS = ring(row_transitions + 1, token)
        self.action_CT = ring(row_transitions if stores_actions else 0, token)
        self.reward_CT = ring(row_transitions, torch.float32)
        self.flag_CT = ring(row_transitions, torch.uint8)
        self.length_C = torch.zeros(self.rows + 1, dtype=torch.int64, device=device)
        self.added = torch.zeros((), dtype=torch.int64, device=device)  # rows since the start, also those overwritten

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        """Appends rows (those with keep_B True), overwriting the oldest."""
        count = rows.length_B.shape[0]
        keep_B = torch.ones(count, dtype=torch.bool, device=self.device) if keep_B is None else keep_B
        slot_B = (self.added + keep_B.cumsum(0) - 1) % self.rows
        slot_B = torch.where(keep_B, slot_B, self.rows)
        self.observation_CS[slot_B] = rows.observation_BS.to(self.observation_CS.dtype)
        if self.stores_actions:
            self.action_CT[slot_B] = rows.action_BT.to(self.action_CT.dtype)
        self.reward_CT[slot_B] = rows.reward_BT
        self.flag_CT[slot_B] = rows.flag_BT
        self.length_C[slot_B] = rows.length_B
        self.added += keep_B.sum()

    @property
    def width(self) -> int:
        """Transitions in a row of a batch."""
        return self.row_transitions if self.mode == "rows" else min(self.history, self.row_transitions)

    def transitions(self) -> Tensor:
        """Decisions held, a scalar on the device."""
        return self._decisions_C().sum()

    def _decisions_C(self) -> Tensor:
        return (self.length_C[: self.rows] - self.first).clamp(min=0)

    def sample(self, batch_size: int) -> Batch:
        """`batch_size` rows, or windows around single decisions, drawn with replacement.

        `rows`: each row alike. `transitions`: each decision alike; the row of the batch is the `history` observations up
        to the decision, and the observation after it.
        """
        if self.mode == "transitions":
            return self._sample_transitions(batch_size)
        filled = self.added.clamp(max=self.rows)
        groups = batch_size // self.copies
        draw_G = torch.rand(groups, device=self.device, generator=self.generator, dtype=torch.float64)
        member_K = torch.arange(self.copies, device=self.device)
        index_B = ((draw_G * (filled // self.copies)).long()[:, None] * self.copies + member_K).flatten()
        observation_BS = self.observation_CS[index_B].long()
        action_BT = self.action_CT[index_B].long() if self.stores_actions else observation_BS[:, 1:]
        return self._batch(
            index_B,
            observation_BS,
            action_BT,
            self.reward_CT[index_B],
            self.flag_CT[index_B],
            self.length_C[index_B],
            self.first,
        )

    def _sample_transitions(self, batch_size: int) -> Batch:
        end_C = self._decisions_C().cumsum(0)
        draw_B = torch.rand(batch_size, device=self.device, generator=self.generator, dtype=torch.float64)
        place_B = (draw_B * end_C[-1]).long()
        index_B = torch.searchsorted(end_C, place_B, right=True)
        time_B = self.first + place_B - (end_C[index_B] - self._decisions_C()[index_B])
        width = self.width
        start_B = (time_B - (width - 1)).clamp(min=0)
        window_BT = start_B[:, None] + torch.arange(width, device=self.device)
        window_BS = torch.cat([window_BT, window_BT[:, -1:] + 1], 1)
        observation_BS = self.observation_CS[index_B[:, None], window_BS].long()
        source_BT = self.action_CT if self.stores_actions else self.observation_CS[:, 1:]
        here_BT = window_BT == time_B[:, None]
        # Earlier decisions of the window are context only: without the flag they are no decision.
        flag_BT = self.flag_CT[index_B[:, None], window_BT] * here_BT
        return self._batch(
            index_B,
            observation_BS,
            source_BT[index_B[:, None], window_BT].long(),
            self.reward_CT[index_B[:, None], window_BT] * here_BT,
            flag_BT,
            time_B - start_B + 1,
            min(self.first, width - 1),
        )

    def _batch(
        self,
        index_B: Tensor,
        observation_BS: Tensor,
        action_BT: Tensor,
        reward_BT: Tensor,
        flag_BT: Tensor,
        length_B: Tensor,
        first: int,
    ) -> Batch:
        return Batch(
            observation_BS,
            action_BT,
            reward_BT,
            discount_from_flags(flag_BT, length_B, self.gamma),
            ((flag_BT & DECISION) != 0).float(),
            torch.ones(len(index_B), device=self.device),
            index_B,
            first,
            self.copies,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors, with the generator's state."""
        return {name: getattr(self, name) for name in _SAVED} | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _SAVED:
            getattr(self, name).copy_(state[name])
        self.generator.set_state(state["generator"].cpu())  # also when it was loaded to a GPU


_SAVED = ("observation_CS", "action_CT", "reward_CT", "flag_CT", "length_C", "added")


def refuse_if_it_cannot_fit(
    rows: int, row_transitions: int, bytes_per_transition: int, device: torch.device, capacity: int
) -> None:
    """Raises UserError with the arithmetic when the ring is larger than the memory that is free."""
    needed = (rows + 1) * (row_transitions + 1) * bytes_per_transition
    free = free_memory(device)
    if needed > free:
        fitting = int(free * 0.8 / needed * capacity)
        raise UserError(
            f"buffer.capacity={capacity:,} needs {rows:,} rows x {row_transitions + 1} observations x "
            f"{bytes_per_transition} bytes = {needed / 2**30:.2f} GiB, but {device} has {free / 2**30:.2f} GiB free; "
            f"set buffer.capacity={fitting} or less"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as stream:
            return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: what the machine has
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
