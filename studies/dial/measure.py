"""What a run's policy writes to the prompts of its test part: both rewards, and how many replies belong to the language.

A text that no writer of the log could have written earns what the worst reply does, of either reward: the rewards count words and
characters, and a policy could otherwise be paid for text that breaks off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from dqnlm.agent.generation import answers
from dqnlm.agent.policy import Policy
from dqnlm.builder.loading import load_policy_and_config
from dqnlm.data.tokenizers.ended import before_end
from dqnlm.tasks.base import build_data
from studies.dial.language import best, replies, reward_short, reward_warm

LONGEST = 100  # tokens of a reply


class Measure(NamedTuple):
    """Means over replies.

    Attributes:
        warm, short: the two rewards, those of the worst reply where a reply is not sound.
        sound: share of replies that a writer of the log could have written to that prompt.
        different: share of replies that are different from all before them to the same prompt.
    """

    warm: float
    short: float
    sound: float
    different: float


class Run:
    """A trained run, with the prompts of its test part.

    Args:
        folder: of the run.
        part: of its data: `test`, or `validation` to choose settings on.
    """

    def __init__(self, folder: Path, part: str = "test") -> None:
        self.policy, config = load_policy_and_config(str(folder), "last", "outputs", "cpu")
        data = build_data(config)
        items = {"test": data.test, "validation": data.heldout}[part].items
        self.prompts = list(dict.fromkeys(item.prompt for item in items))

    def measure(self, each: int, greedy: bool = False, weights: Mapping[str, float] | None = None) -> Measure:
        """Of `each` replies to every prompt, sampled from the policy, or of the greedy one; with these weights of its rewards."""
        if weights is not None:
            self.policy.weights = dict(weights)
        asked = [prompt for prompt in self.prompts for _ in range(1 if greedy else each)]
        said = written(self.policy, asked, greedy)
        rewards = [judged(prompt, text) for prompt, text in zip(asked, said, strict=True)]
        sound = [text in known(prompt) for prompt, text in zip(asked, said, strict=True)]
        return Measure(
            sum(warm for warm, _ in rewards) / len(said), sum(short for _, short in rewards) / len(said), sum(sound) / len(said),
            len(set(zip(asked, said, strict=True))) / len(said),
        )  # fmt: skip


@torch.no_grad()
def written(policy: Policy, prompts: Sequence[str], greedy: bool, seed: int = 0) -> list[str]:
    """A reply to each prompt."""
    policy.network.eval()
    ids = [policy.tokenizer.encode_strict(prompt).long() for prompt in prompts]
    length_E = torch.tensor([len(tokens) for tokens in ids])
    prompt_EP = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    generator = torch.Generator().manual_seed(seed)
    choose = policy.chooser("greedy" if greedy else policy.declared, None, None, generator)
    action_EH, count_E = answers(policy.network, prompt_EP, length_E, choose, policy.tokenizer.eos_id, LONGEST)
    rows = zip(action_EH.tolist(), count_E.tolist(), strict=True)
    return [policy.tokenizer.decode(before_end(row[:count], policy.tokenizer.eos_id)) for row, count in rows]


@cache
def known(prompt: str) -> frozenset[str]:
    """All replies of the language to a prompt."""
    return frozenset(reply.text for reply in replies(prompt))


def judged(prompt: str, text: str) -> tuple[float, float]:
    """The rewards warm and short of a reply; of the worst one where it is no reply of the language."""
    return (reward_warm(text), reward_short(text)) if text in known(prompt) else worst(prompt)


@cache
def worst(prompt: str) -> tuple[float, float]:
    """The least of each reward that a reply to a prompt can earn."""
    every = list(replies(prompt))
    return min(reply.warm for reply in every), min(reply.short for reply in every)


def optimum(prompts: Sequence[str], weight_warm: float, weight_short: float) -> tuple[float, float]:
    """Mean rewards of the best replies to these prompts."""
    found = [best(prompt, weight_warm, weight_short) for prompt in prompts]
    return sum(reply.warm for reply in found) / len(found), sum(reply.short for reply in found) / len(found)
