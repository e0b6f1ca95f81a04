"""Scores of a text without a reference: share of known words, repetition, and length."""

from __future__ import annotations

import functools
import re
from typing import Literal

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.rewards.language_model import require_training_text
from dqnlm.rewards.text import Decoder, Ids, TextReward

WORD = re.compile(r"(?:[^\W\d_]|')+")  # a run of letters and apostrophes
_TAIL = re.compile(r"(?:[^\W\d_]|')*\Z")


class Lexicon(TextReward):
    """Share of a text's characters that stand in words of the training text; case matters.

    A word is a run of letters and apostrophes. The completion continues the prompt, so a word begun in the prompt
    is looked up whole (its characters in the prompt are not counted). The last word, if it reaches to the very end, may be
    cut: it is known if a word of the training text begins so. Spaces and punctuation are in no word, so a real text does not
    reach 1, and neither does one of spaces.

    Args:
        train_ids: 1-D, ids of the training text.
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: no training text, or one without words.
    """

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, train_ids: Tensor, *,
        scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        require_training_text(train_ids, "lexicon")
        self.words, self.beginnings = vocabulary(train_ids, tokenizer)
        if not self.words:
            raise UserError(
                "reward=lexicon looks words up in the training text, and that has no letters; use another reward"
            )

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        return [self._share(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]

    def _share(self, prompt: str, completion: str) -> float:
        tail = _TAIL.search(prompt)
        begun = tail.group() if tail else ""
        text, known = begun + completion, 0
        for word in WORD.finditer(text):
            if word.group() in (self.beginnings if word.end() == len(text) else self.words):
                known += word.end() - max(word.start(), len(begun))
        return known / max(len(completion), 1)


class Repetition(TextReward):
    """Share of a text's n-grams that occurred in it before; use a negative weight in a mixture.

    Args:
        n: tokens of an n-gram.
        with_prompt: n-grams of the prompt count as earlier occurrences, too.
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: n below 1.
    """

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, *,
        n: int, with_prompt: bool, scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        if n < 1:
            raise UserError(f"reward.n is {n}; it must be 1 or more")
        self.n, self.with_prompt = n, with_prompt

    def score_ids(self, prompts: list[Ids], completions: list[Ids], references: list[Ids]) -> list[float]:
        return [self._share(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]

    def _share(self, prompt: Ids, completion: Ids) -> float:
        """Share of repeated n-grams among those that end in the completion; 0 where there are none."""
        text = prompt + completion if self.with_prompt else completion
        first = max(len(text) - len(completion) - self.n + 1, 0)  # the first n-gram that ends in the completion begins here
        seen = {tuple(text[i : i + self.n]) for i in range(first)}
        repeated, count = 0, 0
        for i in range(first, len(text) - self.n + 1):
            gram = tuple(text[i : i + self.n])
            repeated, count = repeated + (gram in seen), count + 1
            seen.add(gram)
        return repeated / max(count, 1)


class Length(TextReward):
    """1 - |length - target| / target in tokens, at least 0: 1 at the target, 0 for nothing and from twice the target on.

    Args:
        target: tokens, the stop token not counted; `reference`: the length of the reference.
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: a target below 1.
    """

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, *,
        target: int | Literal["reference"], scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        if target != "reference" and target < 1:
            raise UserError(f"reward.target is {target}; it must be 1 or more tokens, or reference")
        self.target, self.needs_reference = target, target == "reference"

    def score_ids(self, prompts: list[Ids], completions: list[Ids], references: list[Ids]) -> list[float]:
        targets = [len(text) for text in references] if self.target == "reference" else [self.target] * len(completions)
        return [max(1 - abs(len(completion) - n) / max(n, 1), 0.0) for completion, n in zip(completions, targets, strict=True)]


@functools.lru_cache(maxsize=4)  # as in `language_model.trained`
def vocabulary(train_ids: Tensor, tokenizer: Decoder) -> tuple[frozenset[str], frozenset[str]]:
    """The words of a text, and all their prefixes (each word is also its own prefix)."""
    words = frozenset(WORD.findall(tokenizer.decode(train_ids.tolist())))
    return words, frozenset(word[:end] for word in words for end in range(1, len(word) + 1))
