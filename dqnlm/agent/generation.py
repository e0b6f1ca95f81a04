"""Autoregressive generation: each chosen token is the next input. The network's state (KV cache) is carried over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dqnlm.networks.base import QNetwork, State

_ASK_EVERY = 4  # steps between two looks at whether all answers are finished
Choose = Callable[[dict[str, Tensor]], Tensor]  # raw outputs {"q": raw_EAN} -> token_E


def generate(network: QNetwork, prompt_ES: Tensor, choose: Choose, max_tokens: int) -> Iterator[Tensor]:
    """Yields token_E, `max_tokens` times.

    When the cache of a network with limited context (transformer) is full, the last half of its context is read again.

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


def answers(
    network: QNetwork, prompt_EP: Tensor, length_E: Tensor, choose: Choose, eos_id: int | None, max_new_tokens: int
) -> tuple[Tensor, Tensor]:
    """Answers to all prompts in parallel; a device sync now and then tests whether all are finished.

    Args:
        prompt_EP: int64, right-padded.
        length_E: tokens of each prompt, at least 1.
        choose: from the raw outputs after the last token to the next one.
        eos_id: the token that ends an answer; None for none.
        max_new_tokens: decisions at most.

    Returns:
        action_EH, int64, H = most, 0 behind each answer's end; and how many decisions each has, the stop token included.
    """
    network.eval()
    E, device = len(length_E), prompt_EP.device
    prompt_EP = prompt_EP[:, : int(length_E.max())]
    output, state = network.prefill_apart(prompt_EP, length_E, network.initial_state(E, device))
    action_EH = torch.zeros(E, max_new_tokens, dtype=torch.int64, device=device)
    completion_length_E = torch.zeros(E, dtype=torch.int64, device=device)
    episode_end_E = torch.zeros(E, dtype=torch.bool, device=device)
    for time in range(max_new_tokens):
        token_E = choose(output).masked_fill(episode_end_E, 0)
        action_EH[:, time] = token_E
        completion_length_E += ~episode_end_E
        episode_end_E |= token_E == (-1 if eos_id is None else eos_id)
        if time + 1 == max_new_tokens or (time % _ASK_EVERY == 0 and bool(episode_end_E.all())):
            break
        output, state = network.step(token_E, state)
    return action_EH, completion_length_E
