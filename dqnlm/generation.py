"""Free-running text: the chosen token is read next. The network's state (KV cache) is carried from token to token."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dqnlm.networks.base import QNetwork, State

Choose = Callable[[dict[str, Tensor]], Tensor]  # raw outputs {"q": raw_EAN} -> token_E


def generate(network: QNetwork, prompt_ES: Tensor, choose: Choose, max_tokens: int) -> Iterator[Tensor]:
    """Yields token_E, `max_tokens` times.

    A network with a longest row (transformer) forgets: when its cache is full it reads the last half of its context anew.

    Args:
        prompt_ES: int64, at least one token; only the last `context` of a long one are read.
        choose: from the raw outputs after the last token to the next one.
    """
    network.eval()
    limit = network.max_observations
    recent_ES = prompt_ES if limit is None else prompt_ES[:, -(limit - 1) :]
    output, state = _read(network, recent_ES)
    for _ in range(max_tokens):
        token_E = choose(output)
        yield token_E
        recent_ES = torch.cat([recent_ES, token_E[:, None]], 1)
        if limit is not None and recent_ES.shape[1] >= limit:
            recent_ES = recent_ES[:, -(limit // 2) :]
            output, state = _read(network, recent_ES)
        else:
            output, state = network.step(token_E, state)
            if limit is None:
                recent_ES = recent_ES[:, -1:]


def _read(network: QNetwork, observation_ES: Tensor) -> tuple[dict[str, Tensor], State]:
    state = network.initial_state(observation_ES.shape[0], observation_ES.device)
    output, state = network.prefill(observation_ES, state)
    return {name: raw[:, -1] for name, raw in output.items()}, state
