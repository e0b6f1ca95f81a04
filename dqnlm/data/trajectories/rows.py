"""Logged episodes as token rows, one for each trajectory, and as right-padded tensors.

A trajectory with P prompt tokens, C completion tokens and X tokens of the text after it becomes one row:

    time         0 ... P-2    P-1 ... P+C-2          P+C-1 ... P+C+X-2
    observation  the prompt   its last; completion   the completion's last; what follows but its last
    step         no decision  a decision each        no decision

The action at time t is observation t + 1. With X = 0 the episode terminates with the last decision; else the row is truncated
after its last step, and its last observation has a value. In a dialogue the partner's parts of the completion are steps
without a decision, too. With an end token, each of the agent's parts ends in one, which is a decision like the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.trajectories.records import Trajectory
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Rows

Encode = Callable[[str], list[int]]


class TokenRow(NamedTuple):
    """One row without padding, of T transitions.

    Attributes:
        ids: T + 1 token ids, int32.
        reward_T: float32.
        flag_T: uint8.
        prompt: tokens before the first decision.
    """

    ids: np.ndarray
    reward_T: np.ndarray
    flag_T: np.ndarray
    prompt: int

    @property
    def transitions(self) -> int:
        """T."""
        return len(self.flag_T)

    @property
    def decisions(self) -> int:
        """Number of the agent's decisions."""
        return int(((self.flag_T & DECISION) != 0).sum())


def token_rows(
    items: Sequence[Trajectory], tokenizer: Tokenizer, eos_id: int | None = None, strict: bool = True
) -> list[TokenRow]:
    """Builds a token row for each trajectory.

    Args:
        items: the trajectories.
        tokenizer: text to ids.
        eos_id: the token put behind each of the agent's parts; None for none.
        strict: unknown characters are refused; else they become the unknown token.

    Raises:
        UserError: a text has characters that the tokenizer does not know, or makes no token; or rewards are not one for
            each token. The message names the file and the line.
    """

    @functools.cache  # observations and commands of a log repeat
    def encode(text: str) -> list[int]:
        return (tokenizer.encode_strict(text) if strict else tokenizer.encode(text)).tolist()

    @functools.cache
    def encode_prompt(text: str) -> list[int]:
        return tokenizer.encode_prompt(text, strict).tolist()

    return [_row(encode_prompt, encode, item, eos_id) for item in items]


def padded(rows: Sequence[TokenRow], width: int, dtype: torch.dtype, device: torch.device) -> Rows:
    """Rows of at most `width` transitions as tensors, right-padded with 0; ids in `dtype`."""
    shape = (len(rows), width)
    observation_BS = torch.zeros(shape[0], width + 1, dtype=dtype)
    reward_BT, flag_BT = torch.zeros(shape), torch.zeros(shape, dtype=torch.uint8)
    for b, row in enumerate(rows):
        observation_BS[b, : len(row.ids)] = torch.from_numpy(row.ids)
        reward_BT[b, : row.transitions] = torch.from_numpy(row.reward_T)
        flag_BT[b, : row.transitions] = torch.from_numpy(row.flag_T)
    length_B = torch.tensor([row.transitions for row in rows], dtype=torch.int64)
    tensors = (tensor.to(device) for tensor in (reward_BT, flag_BT, length_B))
    observation_BS = observation_BS.to(device)
    return Rows(observation_BS, observation_BS[:, 1:], *tensors)


def _row(encode_prompt: Encode, encode: Encode, item: Trajectory, eos_id: int | None) -> TokenRow:
    prompt, after = _ids(encode_prompt, item, "prompt", item.prompt), _ids(encode, item, "next", item.next)
    completion, rewards, flags = _completion(encode, item, eos_id)
    ids = np.array([*prompt, *completion, *after], np.int32)
    begin, end = len(prompt) - 1, len(prompt) - 1 + len(completion)
    reward_T, flag_T = np.zeros(len(ids) - 1, np.float32), np.zeros(len(ids) - 1, np.uint8)
    reward_T[begin:end], flag_T[begin:end] = rewards, flags
    flag_T[-1] |= TRUNCATED if after else TERMINATED
    return TokenRow(ids, reward_T, flag_T, len(prompt))


def _completion(encode: Encode, item: Trajectory, eos_id: int | None) -> tuple[list[int], list[float], list[int]]:
    """Tokens, rewards and flags of a completion, part by part."""
    tokens, rewards, flags = list[int](), list[float](), list[int]()
    for text, paid, agent in item.parts():
        ids = _ids(encode, item, "completion", text)
        ended = agent and eos_id is not None and (not ids or ids[-1] != eos_id)
        tokens += [*ids, eos_id] if ended else ids  # type: ignore[list-item]
        rewards += _rewards(item, paid, len(ids), ended)
        flags += [DECISION if agent else 0] * (len(ids) + ended)
    return tokens, rewards, flags


def _ids(encode: Encode, item: Trajectory, name: str, text: str) -> list[int]:
    try:
        ids = encode(text)
    except UserError as error:
        raise UserError(f"{item.place}, {name}: {error}") from error
    if text and not ids:
        raise UserError(
            f"{item.place}: {name} is {text[:40]!r}, of which the tokenizer makes no token; leave the line out."
        )
    return ids


def _rewards(item: Trajectory, rewards: tuple[float, ...], tokens: int, ended: bool) -> list[float]:
    """One reward for each token, the end token included; a single reward at the end moves to the last of them."""
    if not any(rewards[:-1]):
        return [0.0] * (tokens + ended - 1) + list(rewards[-1:])
    if len(rewards) == tokens:
        return [*rewards, 0.0] if ended else list(rewards)
    raise UserError(
        f"{item.place}: there are {len(rewards)} rewards, but the completion is {tokens} tokens. Give one for each "
        "token (rewards for each character need a tokenizer of characters), or a single reward."
    )
