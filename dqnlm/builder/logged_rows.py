"""What a run on a log alone is made of: the shape of its rows, whether they fit the network, and their way to the buffer."""

from __future__ import annotations

import math

import numpy as np
import torch

from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.data.trajectories.log import Log
from dqnlm.data.trajectories.rewards import episodes
from dqnlm.data.trajectories.rows import TokenRow, padded
from dqnlm.envs.logged import LogShape
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TRUNCATED, Bounds

_AT_ONCE = 4096  # rows that are padded together on their way to the buffer


def shape_of(log: Log) -> LogShape:
    """See `LogShape`.

    Raises:
        UserError: texts that follow (`next`) of different lengths: the value after such a row is read from what the
            episode's next row begins with, and how much that is must be one number.
    """
    paid = np.concatenate([row.reward_T[(row.flag_T & DECISION) != 0] for row in log.train.rows])
    cut = [_follows(row) for row in log.all_rows if row.flag_T[-1] & TRUNCATED]
    if len(set(cut)) > 1:
        raise UserError(
            f"{len(cut):,} rows of the log have a `next` text, of {min(cut)} to {max(cut)} tokens; here all must have equally "
            "many. Write each episode as one row: a dialogue with `turns`"
        )
    alone = len(episodes(log.train.items)) == len(log.train)
    at_end = all(not row.reward_T[:-1].any() for row in log.train.rows)
    return LogShape(
        row_transitions=log.longest,
        longest_completion=log.longest_completion,
        first_decision=min(row.prompt for row in log.all_rows) - 1,
        interleaved=any(_is_interleaved(row) for row in log.all_rows),
        cut=bool(cut),
        restart=max(cut, default=0),
        rewards=Bounds(float(paid.min()), float(paid.max())),
        paid_at_end=alone and at_end and not cut,
    )


def _follows(row: TokenRow) -> int:
    """Tokens after the last decision."""
    return row.transitions - 1 - int(np.flatnonzero(row.flag_T & DECISION)[-1])


def _is_interleaved(row: TokenRow) -> bool:
    return not bool((row.flag_T[row.prompt - 1 :] & DECISION).all())


def require_fit(log: Log, policy: Policy) -> None:
    """Raises UserError where the network cannot read the longest rows: how many, where the longest is, and what to do."""
    network = policy.network
    if network.max_observations is None or log.longest <= network.context:
        return
    items, rows = [*log.train.items, *log.heldout.items], log.all_rows
    long = [place for place, row in enumerate(rows) if row.transitions > network.context]
    worst = max(long, key=lambda place: rows[place].transitions)
    raise UserError(
        f"{len(long):,} of {len(rows):,} logged rows are longer than network.context={network.context} reads; the longest, "
        f"{items[worst].place}, has {log.longest:,} transitions ({log.longest + 1:,} tokens): set network.context={log.longest}, "
        f"or leave such rows out with data.max_tokens={network.context + 1}"
    )


def add_rows(log: Log, buffer: Buffer, policy: Policy) -> int:
    """Puts the training part into the buffer; returns how many rows.

    Raises:
        UserError: the buffer is smaller than the log, or a row earns what the head cannot say.
    """
    rows = log.train.rows
    earned_B = torch.tensor([math.fsum(row.reward_T) for row in rows], device=policy.device)
    outside = int(policy.head.clamped(earned_B).sum())
    if outside:
        raise UserError(
            f"{outside:,} of {len(rows):,} logged rows earn more or less than the bounds of the return that the head is scaled "
            f"by, {float(policy.head.low):g} to {float(policy.head.high):g}: set a head without bounds (head=scalar "
            "head.loss=squared), or head.low and head.high of head=categorical"
        )
    if len(rows) > buffer.rows:
        raise UserError(
            f"{len(rows):,} logged rows do not fit the buffer's {buffer.rows:,}; set buffer.capacity=null, which holds them all"
        )
    for begin in range(0, len(rows), _AT_ONCE):
        block = rows[begin : begin + _AT_ONCE]
        buffer.add(padded(block, buffer.storage.row_transitions, log.tokenizer.dtype, policy.device))
    return len(rows)
