"""Answers of a trained policy to many prompts at once: greedy, sampled, or by beam search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from dqnlm.agent.generation import Choose, answers
from dqnlm.agent.policy import Policy, is_temperature
from dqnlm.errors import UserError

_AT_ONCE = 64  # prompts in one forward
STOP = "\n"


class Decoding(NamedTuple):
    """Settings of decoding.

    Attributes:
        beam: hypotheses of a beam search over softmax(Q / T of the run's policy); 1 is greedy.
        temperature: instead, each token is drawn from softmax(Q / temperature), in return units; None for the best one.
        seed: of the draws.
    """

    beam: int = 1
    temperature: float | None = None
    seed: int = 0

    def __str__(self) -> str:
        if self.temperature is not None:
            return f"drawn at temperature {self.temperature:g}, seed {self.seed}"
        return "greedy" if self.beam == 1 else f"beam {self.beam}"


GREEDY = Decoding()


def answer(
    policy: Policy, prompts: Sequence[str], max_new_tokens: int, decoding: Decoding = GREEDY, progress: bool = False
) -> list[str]:
    """Answers as text, without the line break that ends them; see `answer_ids`."""
    stop = int(policy.tokenizer.encode(STOP)[0])
    completions = answer_ids(policy, prompts, max_new_tokens, decoding, progress)
    return [policy.tokenizer.decode([i for i in tokens if i != stop]) for tokens in completions]


@torch.no_grad()
def answer_ids(
    policy: Policy, prompts: Sequence[str], max_new_tokens: int, decoding: Decoding = GREEDY, progress: bool = False
) -> list[list[int]]:
    """The token ids of each answer, the line break that ended it included.

    Args:
        policy: of a run that answers prompts.
        prompts: each without a line break; one is appended, which separates prompt and answer.
        max_new_tokens: tokens of an answer at most, its line break included.
        decoding: greedy, beam search or drawn.
        progress: whether to show a progress bar.

    Raises:
        UserError: a beam below 1, or with a temperature; a temperature that is not above 0; an empty prompt, one with
            characters that the run does not know, or with more tokens than the network reads.
    """
    beam, temperature, seed = decoding
    if beam < 1:
        raise UserError(f"--beam counts hypotheses and must be at least 1, not {beam}")
    if beam > 1 and temperature is not None:
        raise UserError("--beam searches and --temperature draws; give one of them")
    if temperature is not None and not is_temperature(temperature):
        raise UserError(f"--temperature must be above 0 and finite, not {temperature:g}; for the best token leave it out")
    stop = int(policy.tokenizer.encode(STOP)[0])
    ids = [_prompt_ids(policy, text, stop, max_new_tokens) for text in prompts]
    generator = torch.Generator(policy.device).manual_seed(seed)
    choose = policy.chooser("greedy" if temperature is None else "boltzmann", temperature, None, generator)
    policy.network.eval()
    bar: Iterable[int] = range(0, len(ids), _AT_ONCE if beam == 1 else 1)
    completions: list[list[int]] = []
    for begin in tqdm(bar, desc="answers", disable=not progress):
        if beam == 1:
            completions += _together(policy, ids[begin : begin + _AT_ONCE], choose, stop, max_new_tokens)
        else:
            completions.append(beam_search(policy, ids[begin], stop, max_new_tokens, beam))
    return completions


def _prompt_ids(policy: Policy, text: str, stop: int, max_new_tokens: int) -> Tensor:
    ids = torch.cat([policy.tokenizer.encode_strict(text).long(), torch.tensor([stop])])
    room = policy.network.max_observations
    if len(ids) == 1:
        raise UserError("a prompt is empty; give at least one character")
    if room is not None and len(ids) + max_new_tokens - 1 > room:
        raise UserError(
            f"the prompt {text[:40]!r} has {len(ids)} tokens; with {max_new_tokens} for the answer that is more than the {room} "
            "that this run's network reads"
        )
    return ids


def _together(policy: Policy, ids: list[Tensor], choose: Choose, stop: int, max_new_tokens: int) -> list[list[int]]:
    length_E = torch.tensor([len(tokens) for tokens in ids], device=policy.device)
    prompt_EP = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(policy.device)
    action_EH, completion_length_E = answers(policy.network, prompt_EP, length_E, choose, stop, max_new_tokens)
    return [row[:count].tolist() for row, count in zip(action_EH, completion_length_E.tolist(), strict=True)]


@torch.no_grad()
def beam_search(policy: Policy, prompt_P: Tensor, stop: int, max_new_tokens: int, width: int) -> list[int]:
    """The finished hypothesis of greatest mean log-probability per token, with `width` hypotheses per step.

    A beam that is full of finished hypotheses ends the search; each prefix is read anew, without a cache.
    """
    beam_WS, score_W = prompt_P.to(policy.device)[None], torch.zeros(1, device=policy.device)
    finished: list[tuple[float, list[int]]] = []
    given = len(prompt_P)
    for length in range(1, max_new_tokens + 1):
        output = {name: raw[:, -1] for name, raw in policy.network(beam_WS, beam_WS.shape[1] - 1).items()}
        total_WA = score_W[:, None] + policy.logits(output, policy.default, None).float().log_softmax(-1)
        size = total_WA.shape[1]
        score_W, place_W = total_WA.flatten().topk(min(width, total_WA.numel()))
        beam_WS = torch.cat([beam_WS[place_W // size], (place_W % size)[:, None]], 1)
        over_W = beam_WS[:, -1] == stop
        ends = over_W if length < max_new_tokens else torch.ones_like(over_W)
        for row, score in zip(beam_WS[ends].tolist(), score_W[ends].tolist(), strict=True):
            finished.append((score / length, row[given:]))
        beam_WS, score_W = beam_WS[~over_W], score_W[~over_W]
        if len(score_W) == 0 or len(finished) >= width:
            break
    return max(finished)[1]
