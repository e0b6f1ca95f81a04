"""Ring buffer of rows on the device, and the batches built from its rows.

Stored for each transition: the observation (a token of 1, 2 or 4 bytes, or F float32 numbers), the action's token where it
differs from the next observation, the reward (float32, or several), one byte of flags: on tokens at most 2 x token bytes + 5.
Discounts and masks are computed when a batch is drawn, from the flags alone: a decision is where the DECISION bit is.
Nothing here copies to the host: how many rows came in is known on the device only (episodes may end at any time).
"""

from __future__ import annotations

import math
import shutil
import tempfile

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Batch, Rows, TaskSpec, discount_from_flags
from dqnlm.utils.memory import free_bytes


class Storage:
    """A ring of `rows` rows with at most `spec.row_transitions` transitions each; the newest replace the oldest.

    Args:
        rows: how many are kept.
        spec: of the task. A token takes 1 byte where there are up to 256 ids, 2 up to 32,768, else 4.
        gamma: discount of one decision.
        device: where the ring lives.
        capacity: the setting that `rows` came from, for the message; None: the logged rows.
        more_bytes: what the buffer itself keeps for each transition.
        in_file: the ring lies in files, of which the host maps into its memory what is used; on the CPU alone.

    Attributes:
        bytes_per_transition: see above, and `more_bytes`; a row has one observation more, and two numbers of its own.

    Raises:
        UserError: the ring is larger than the memory that is free.
    """

    def __init__(
        self, rows: int, spec: TaskSpec, gamma: float, device: torch.device, capacity: int | None, more_bytes: int,
        in_file: bool = False,
    ) -> None:  # fmt: skip
        self._in_file = in_file
        self.rows, self.first, self.gamma, self.device = rows, spec.first_decision, gamma, device
        self.row_transitions, self.stores_actions = spec.row_transitions, spec.stores_actions
        row_transitions, observation_size, stores_actions = self.row_transitions, spec.observation_size, spec.stores_actions
        token = token_type(spec.num_actions if observation_size else max(spec.num_tokens, spec.num_actions))
        observation = torch.float32 if observation_size else token
        shape = (observation_size,) if observation_size else ()
        several = (len(spec.reward_names),) if spec.reward_names else ()
        rewards = math.prod(several)
        size = observation.itemsize * (observation_size or 1) + token.itemsize * stores_actions + 1 + 4 * rewards
        self.bytes_per_transition = size + more_bytes
        free = shutil.disk_usage(tempfile.gettempdir()).free if in_file else free_bytes(device)
        where = tempfile.gettempdir() if in_file else str(device)
        refuse_if_it_cannot_fit(rows, row_transitions, self.bytes_per_transition, free, where, capacity)
        self.observation_CS = self.zeros(row_transitions + 1, *shape, dtype=observation)
        self.action_CT = self.zeros(row_transitions if stores_actions else 0, dtype=token)
        self.reward_CT = self.zeros(row_transitions, *several, dtype=torch.float32)
        self.flag_CT = self.zeros(row_transitions, dtype=torch.uint8)
        self.length_C = self.zeros(dtype=torch.int64)
        self.decisions_C = self.zeros(dtype=torch.int64)
        self.added = torch.zeros((), dtype=torch.int64, device=device)  # since the start, also those overwritten

    def zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Zeros for each row, and one more row, where rows that are not kept are written.
        """
        if self._in_file and shape:
            return _zeros_in_file((self.rows + 1, *shape), dtype)
        return torch.zeros(self.rows + 1, *shape, dtype=dtype, device=self.device)

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> Tensor:
        """Appends rows (those with keep_B True), at most `rows` at a time, overwriting the oldest; returns slot_B."""
        if rows.length_B.device != self.device:  # the ring is on the host, and plays on the device
            rows = Rows(**{name: value.to(self.device) for name, value in vars(rows).items()})
            keep_B = None if keep_B is None else keep_B.to(self.device)
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
        self.decisions_C[slot_B] = decision(rows.flag_BT).sum(1)
        self.added += keep_B.sum()
        return slot_B

    def rows_of(self, state: dict[str, Tensor]) -> Rows:
        """The rows of a saved ring of any size, oldest first, where they lie."""
        rows, added = saved_rows(state), int(state["added"])
        begin = added % rows if added > rows else 0
        order_B = (begin + torch.arange(min(added, rows))) % rows
        order_B = order_B.to(state["length_C"].device)
        observation_BS = state["observation_CS"][order_B]
        action_BT = state["action_CT"][order_B] if self.stores_actions else observation_BS[:, 1:]
        return Rows(
            observation_BS, action_BT, state["reward_CT"][order_B], state["flag_CT"][order_B], state["length_C"][order_B]
        )

    def filled(self) -> Tensor:
        """Number of rows held, a scalar on the device."""
        return self.added.clamp(max=self.rows)

    def ended_C(self) -> Tensor:
        """bool: rows with a termination."""
        return ((self.flag_CT[: self.rows] & TERMINATED) != 0).any(1)

    def decision_time(self, row_B: Tensor, number_B: Tensor) -> Tensor:
        """time_B of the `number_B`-th decision (from 0) of each row."""
        count_BT = decision(self.flag_CT[row_B]).cumsum(1)
        time_B = torch.searchsorted(count_BT, number_B[:, None] + 1).squeeze(1)
        return time_B.clamp(max=self.row_transitions - 1)  # a row without such a decision, in an empty ring

    def whole(self, row_B: Tensor, copies: int) -> Batch:
        """Whole rows; the loss covers all of their decisions."""
        observation_BS = self._widened(self.observation_CS[row_B])
        action_BT = self.action_CT[row_B].long() if self.stores_actions else observation_BS[:, 1:]
        flag_BT, length_B = self.flag_CT[row_B], self.length_C[row_B]
        return Batch(
            observation_BS,
            action_BT,
            self.reward_CT[row_B],
            discount_from_flags(flag_BT, length_B, self.gamma),
            decision(flag_BT).float(),
            length_B,
            torch.ones(len(row_B), device=self.device),
            row_B,
            self.first,
            copies,
        )

    def windows(self, row_B: Tensor, time_B: Tensor, before: int, after: int | None, width: int) -> Batch:
        """A window of each row around one decision; only this decision is in the loss.

        The `before` observations in front of it are context: their steps have neither reward nor flag. Later steps are
        there for the decision's return, with reward and flag; the row's own end may be nearer.

        Args:
            row_B: rows.
            time_B: the decision's time in the row.
            before: observations before the decision's own, fewer at the row's start.
            after: steps from the decision on, its own among them; None: to the row's end.
            width: T of the batch; what a window lacks is padding.

        Returns:
            A batch whose `index_B` is row * row_transitions + time.
        """
        last = self.row_transitions
        start_B = (time_B - before).clamp(min=0)
        end_B = self.length_C[row_B]
        if after is not None:
            end_B = torch.minimum(end_B, time_B + after)
        time_BS = start_B[:, None] + torch.arange(width + 1, device=self.device)
        time_BT, row_B1 = time_BS[:, :-1], row_B[:, None]
        observation_BS = self._widened(self.observation_CS[row_B1, time_BS.clamp(max=last)])
        padding_BS = (time_BS > end_B[:, None]).view(*time_BS.shape, *[1] * (observation_BS.dim() - 2))
        observation_BS = observation_BS.masked_fill(padding_BS, 0)
        counts_BT = (time_BT >= time_B[:, None]) & (time_BT < end_B[:, None])
        at_BT = time_BT.clamp(max=last - 1)
        flag_BT = self.flag_CT[row_B1, at_BT] * counts_BT
        mask_BT = decision(flag_BT).float()
        action_BT = observation_BS[:, 1:]
        if self.stores_actions:
            action_BT = self.action_CT[row_B1, at_BT].long().masked_fill(time_BT >= end_B[:, None], 0)
        last_flag_B = self.flag_CT[row_B, (end_B - 1).clamp(min=0)]
        return Batch(
            observation_BS,
            action_BT,
            _where(counts_BT, self.reward_CT[row_B1, at_BT]),
            discount_from_flags(flag_BT, end_B - start_B, self.gamma),
            mask_BT,
            end_B - start_B,
            torch.ones(len(row_B), device=self.device),
            row_B * last + time_B,
            min(self.first, before),
            learn_BT=mask_BT * (time_BT == time_B[:, None]),
            cut_B=(last_flag_B & TRUNCATED) != 0,
        )

    def _widened(self, observation_BS: Tensor) -> Tensor:
        """Tokens as int64; vectors unchanged."""
        return observation_BS if observation_BS.dtype == torch.float32 else observation_BS.long()

    def state(self) -> dict[str, Tensor]:
        """The tensors of the ring, by name."""
        return {name: getattr(self, name) for name in _SAVED}


_SAVED = ("observation_CS", "action_CT", "reward_CT", "flag_CT", "length_C", "decisions_C", "added")


def saved_rows(state: dict[str, Tensor]) -> int:
    """Rows of the ring that a saved state is of; earlier versions saved all of them, and the spare one."""
    return int(state["rows"]) if "rows" in state else len(state["length_C"]) - 1


def decision(flag_BT: Tensor) -> Tensor:
    """bool: steps in which the agent chose the action."""
    return (flag_BT & DECISION) != 0


def _where(mask_BT: Tensor, x: Tensor) -> Tensor:
    """x, BT or with further axes, and 0 outside the mask."""
    return x.masked_fill(~mask_BT.view(*mask_BT.shape, *[1] * (x.dim() - mask_BT.dim())), 0.0)


def token_type(ids: int) -> torch.dtype:
    """The smallest integers that hold 0..ids - 1."""
    return torch.uint8 if ids <= 256 else torch.int16 if ids <= 32768 else torch.int32


def _zeros_in_file(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros in a file of the folder of temporary files, which is gone when the tensor is, however the process ends."""
    count = math.prod(shape)
    if not count:
        return torch.zeros(shape, dtype=dtype)
    with tempfile.NamedTemporaryFile(prefix="dqnlm-replay-") as file:  # removed at once; the mapping keeps its contents
        file.truncate(count * dtype.itemsize)
        return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)


def refuse_if_it_cannot_fit(
    rows: int, row_transitions: int, bytes_per_transition: int, free: int | None, where: str, capacity: int | None
) -> None:
    """Raises UserError with the arithmetic when the ring is larger than the bytes that are free."""
    needed = (rows + 1) * (row_transitions + 1) * bytes_per_transition
    if free is None:
        return
    if needed > free and capacity is None:
        raise UserError(
            f"the log needs {rows:,} rows x {row_transitions + 1} observations (all as long as the longest) x "
            f"{bytes_per_transition} bytes = {needed / 2**30:.2f} GiB, but {where} has {free / 2**30:.2f} GiB free; leave out "
            "its longest rows (data.max_tokens=N), or give fewer"
        )
    if needed > free:
        assert capacity is not None
        fitting = int(free * 0.8 / needed * capacity)
        raise UserError(
            f"buffer.capacity={capacity:,} needs {rows:,} rows x {row_transitions + 1} observations x "
            f"{bytes_per_transition} bytes = {needed / 2**30:.2f} GiB, but {where} has {free / 2**30:.2f} GiB free; "
            f"set buffer.capacity={fitting} or less, or keep it elsewhere: buffer.place=host or file"
        )
