"""Reads a text with a policy in windows: Q after every token but the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.evaluation import positions
from dqnlm.evaluation.positions import LogitSource

HELD_NUMBERS = 2**28  # of all positions together: 1 GiB of float32; of more the text is read anew at every pass
SCORED_AT_ONCE = 64  # windows in one forward, fewer where they have more numbers than a block

Read = Callable[[dict[str, Tensor]], Tensor]  # raw outputs -> float32 (..., A)


class TextPositions(LogitSource):
    """Positions of a text that are recomputed with the network at each pass.

    Args:
        policy: gives the network.
        ids: the text, L tokens; position i is after token i.
        read: raw outputs -> the required numbers, such as `policy.q`.
        place_N: positions, int64, increasing; None: all L - 1.
    """

    def __init__(self, policy: Policy, ids: Tensor, read: Read, place_N: Tensor | None = None) -> None:
        self.policy, self.ids, self.read = policy, ids, read
        self.place_N = torch.arange(len(ids) - 1, device=policy.device) if place_N is None else place_N
        self.target_N = ids[1:].long().to(policy.device)[self.place_N]
        self.num_actions = policy.tokenizer.vocabulary_size

    def where(self, index_M: Tensor) -> TextPositions:
        return TextPositions(self.policy, self.ids, self.read, self.place_N[index_M])

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        network = self.policy.network
        numbers = (network.context + network.left_context) * self.num_actions * self.policy.head.num_parameters
        at_once = min(max(positions.BLOCK_NUMBERS // numbers, 1), SCORED_AT_ONCE)
        begin = 0
        for block_BS, first in windows(self.ids[:-1], network.context, network.left_context, at_once):
            end = begin + block_BS.shape[0] * (block_BS.shape[1] - first)
            low, high = torch.searchsorted(
                self.place_N, torch.tensor([begin, end], device=self.place_N.device)
            ).tolist()
            if low < high:
                q_MA = self.read(network(block_BS.long().to(self.policy.device), first)).flatten(0, 1)
                yield q_MA[self.place_N[low:high] - begin], self.target_N[low:high]
            begin = end


def text_positions(policy: Policy, ids: Tensor, read: Read) -> LogitSource:
    """All positions: in memory where they fit into `HELD_NUMBERS`, else recomputed at each pass."""
    found = TextPositions(policy, ids, read)
    return found.held() if len(found) * found.num_actions <= HELD_NUMBERS else found


def windows(inputs: Tensor, context: int, left_context: int, at_once: int = SCORED_AT_ONCE) -> Iterator[tuple[Tensor, int]]:
    """Non-overlapping windows of `context` tokens to score, each after the `left_context` tokens before it, in order.

    Yields:
        (observation_BS, first time that is scored), B at most `at_once`.
    """
    head = -(-left_context // context) * context  # tokens at the beginning that have less than a left_context before them
    if head > 0:
        yield inputs[:head][None], 0
    width = left_context + context
    count = max(len(inputs) - head, 0) // context
    if count:
        for block_BS in inputs[head - left_context :].unfold(0, width, context)[:count].split(at_once):
            yield block_BS, left_context
    done = head + count * context
    if done < len(inputs):
        yield inputs[done - left_context :][None], left_context
