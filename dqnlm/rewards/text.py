"""Base class of sequence-level rewards on text: decodes ids on the host and turns scores into rewards.

    increments: false   the score is the reward of the last decision; 0 before it
    increments: true    r_t = score(first t tokens) - score(first t - 1 tokens), the score of the empty text taken as 0, so
                        that the rewards of an episode sum to the score of the whole
    per token           a reward may have a number for each token by itself (`per_token`)

A score is multiplied by `scale`, then limited to [-clip, clip]; rewards are computed from the result. The stop token, the
last decision of an episode that it ended, is no part of the completion; per token its reward is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain, pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.rewards.base import Episodes, SequenceReward, discounted_length
from dqnlm.types import Bounds

Ids = list[int]


class Decoder(Protocol):
    """The methods of a tokenizer that a reward uses."""

    def decode(self, ids: Ids) -> str: ...

    def decode_prompt(self, ids: Ids) -> str: ...

    def __hash__(self) -> int: ...


class Completions(NamedTuple):
    """Token ids of finished episodes on the host, without padding and stop tokens.

    Attributes:
        prompts: ids of the prompts.
        completions: ids of the completions.
        references: ids of the references, [] where there is none.
        lengths: decisions of each episode: tokens of the completion, one more where it was stopped.
    """

    prompts: list[Ids]
    completions: list[Ids]
    references: list[Ids]
    lengths: list[int]


class TextReward(SequenceReward):
    """A reward that scores texts; subclasses define `score` (or `score_ids`, or `score_tokens`) and `score_bounds`.

    Args:
        num_actions: A.
        tokenizer: ids to text.
        eos_id: the token that ends an episode; None for none.
        scale: factor of every score.
        clip: largest absolute value of a score after scaling; None for no limit.
        increments: the reward of a token is the change of the score of the text so far, instead of the score at the end.

    Attributes:
        score_bounds: least and greatest score, unscaled; of one token where `per_token`. Infinite where unknown.
        per_token: a score is a number for each token, from `score_tokens`; to be set before `__init__`.
        needs_reference: the score compares with a reference.

    Raises:
        UserError: a scale of 0 or infinite, a clip that is not above 0, or increments of a reward per token.
    """

    score_bounds: Bounds = Bounds(0.0, 1.0)
    per_token: bool = False
    needs_reference: bool = False

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, *, scale: float, clip: float | None,
        increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions)
        if increments and self.per_token:
            raise UserError(
                "reward.increments=true is for scores of whole texts; with reward.per_token=true each token has its own number: "
                "set one of them to false"
            )
        if scale == 0 or not math.isfinite(scale):
            raise UserError(f"reward.scale is {scale}; it must be a finite number other than 0, such as 1.0")
        if clip is not None and not 0 < clip < math.inf:
            raise UserError(f"reward.clip is {clip}; it must be a number above 0, or null for no limit")
        self.tokenizer, self.eos_id = tokenizer, eos_id
        self.scale, self.clip, self.increments = scale, clip, increments

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        """One number for each completion, within `score_bounds`; all lists are equally long."""
        raise NotImplementedError(
            f"{type(self).__name__} scores no texts: write its score (or score_ids, or score_tokens)"
        )

    def score_ids(self, prompts: list[Ids], completions: list[Ids], references: list[Ids]) -> list[float]:
        """As `score`, from token ids; overridden by scores that depend on tokens."""
        decode = self.tokenizer.decode_prompt
        return self.score(self.texts(prompts, decode), self.texts(completions), self.texts(references))

    def score_tokens(self, prompts: list[Ids], completions: list[Ids], references: list[Ids]) -> list[list[float]]:
        """A score for each token of each completion, within `score_bounds`; only where `per_token`."""
        raise NotImplementedError(f"{type(self).__name__} scores whole texts")

    def texts(self, runs: list[Ids], decode: Callable[[Ids], str] | None = None) -> list[str]:
        """Decodes each sequence of ids; equal sequences, such as the prompt of many prefixes, are decoded once."""
        known: dict[tuple[int, ...], str] = {}
        decode = decode or self.tokenizer.decode
        for run in runs:
            if (key := tuple(run)) not in known:
                known[key] = decode(run)
        return [known[tuple(run)] for run in runs]

    @property
    def bounds(self) -> Bounds:
        low, high = self._limits()
        return Bounds(low - high, high - low) if self.increments else Bounds(low, high)

    def return_bounds(self, gamma: float, horizon: int, endless: bool = False) -> Bounds:
        """See `Reward.return_bounds`.

        Per token, the sum of as many rewards. A whole score gives one discounted reward between the score and 0; an
        endless episode has one every `horizon` decisions. Increments sum to a weighted mean of differences of two
        scores, by summation by parts as in `rewards.similarity`, however long the text is.
        """
        if self.per_token:
            return super().return_bounds(gamma, horizon, endless)
        low, high = self.bounds
        times = discounted_length(gamma**horizon, math.inf) if endless and not self.increments else 1.0
        return Bounds(low * times if low < 0 else low, high * times if high > 0 else high)

    def _limits(self) -> Bounds:
        """Bounds of a score after scaling and clipping, with 0, the reward of decisions without a score."""
        ends = [self._scaled(end) for end in self.score_bounds]
        return Bounds(min(*ends, 0.0), max(*ends, 0.0))

    def _scaled(self, score: float) -> float:
        value = score * self.scale
        return value if self.clip is None else min(max(value, -self.clip), self.clip)

    def judge(self, episodes: Episodes) -> Tensor:
        texts = on_host(episodes, self.eos_id)
        if self.needs_reference and not any(texts.references):
            raise UserError(
                "this reward needs a reference, and there is none here; use a reward "
                "of the text alone, such as reward=language_model or reward=function"
            )
        reward_BH = torch.zeros(episodes.action_BH.shape, dtype=torch.float32)
        for row_H, rewards in zip(reward_BH, self._decision_rewards(texts), strict=True):
            row_H[: len(rewards)] = torch.tensor(rewards, dtype=torch.float32)
        return reward_BH.to(episodes.action_BH.device)

    def _decision_rewards(self, texts: Completions) -> list[list[float]]:
        """Rewards of the decisions of each episode, in order; that of a final stop token may be left out."""
        runs = texts.prompts, texts.completions, texts.references
        if self.per_token:
            return [[self._scaled(score) for score in scores] for scores in self.score_tokens(*runs)]
        if self.increments:
            return self._increments(texts)
        scores = [self._scaled(score) for score in self.score_ids(*runs)]
        return [[0.0] * (length - 1) + [score] for length, score in zip(texts.lengths, scores, strict=True)]

    def _increments(self, texts: Completions) -> list[list[float]]:
        """Differences of the scores of all prefixes, which are scored in one call."""
        prefixes = [[text[:end] for end in range(1, len(text) + 1)] for text in texts.completions]

        def repeated(runs: list[Ids]) -> list[Ids]:
            return [run for run, own in zip(runs, prefixes, strict=True) for _ in own]

        flat = list(chain.from_iterable(prefixes))
        scores = iter(self.score_ids(repeated(texts.prompts), flat, repeated(texts.references)) if flat else [])
        rewards = [[0.0, *(self._scaled(next(scores)) for _ in own)] for own in prefixes]
        return [[after - before for before, after in pairwise(row)] for row in rewards]


def on_host(episodes: Episodes, eos_id: int | None) -> Completions:
    """Episodes as lists of ids, in one transfer."""
    prompt_BP, _, action_BH, length_B, reference_BR = episodes[:5]
    lengths_B3 = torch.stack([episodes.prompt_length_B, length_B, episodes.reference_length_B], 1)
    rows = torch.cat([lengths_B3.long(), prompt_BP, action_BH, reference_BR], 1).cpu().tolist()
    completion_at = 3 + prompt_BP.shape[1]
    reference_at = completion_at + action_BH.shape[1]
    found = Completions([], [], [], [])
    for row in rows:
        prompt, length, reference = row[:3]
        completion = row[completion_at : completion_at + length]
        found.prompts.append(row[3 : 3 + prompt])
        found.completions.append(completion[:-1] if completion[-1] == eos_id else completion)
        found.references.append(row[reference_at : reference_at + reference])
        found.lengths.append(length)
    return found
