"""Similarity to a reference: BLEU, chrF (both of sacrebleu), ROUGE-L and edit distance. All from 0 to 1.

Papineni et al. 2002 (BLEU), Popovic 2015 (chrF), Lin 2004 (ROUGE-L), Levenshtein 1966.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from dqnlm.errors import UserError
from dqnlm.rewards.text import Decoder, TextReward

if TYPE_CHECKING:
    from types import ModuleType

Unit = Literal["word", "character"]


class Bleu(TextReward):
    """Sentence BLEU: precision of word n-grams, times the brevity penalty.

    Orders longer than the text are left out ("effective order"), so that they do not make a short text's score 0.

    Args:
        max_order: longest n-gram.
        smoothing: what an order without a match counts as, sacrebleu's smooth_method.
        tokenize: how text is split into words, sacrebleu's name; `char` for characters.
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: sacrebleu is not installed, or max_order below 1.
    """

    needs_reference = True

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, *,
        max_order: int, smoothing: Literal["exp", "floor", "add-k", "none"], tokenize: Literal["13a", "intl", "char", "none"],
        scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        _at_least("max_order", max_order, 1)
        self._metric = _sacrebleu("bleu").BLEU(
            max_ngram_order=max_order, smooth_method=smoothing, tokenize=tokenize, effective_order=True
        )

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        return _sentence_scores(self._metric, completions, references)


class Chrf(TextReward):
    """Sentence chrF: F2 of character n-grams (and of word n-grams: chrF++ with word_order 2), spaces left out.

    Args:
        char_order: longest n-gram of characters.
        word_order: longest n-gram of words; 0 for none.
        scale, clip, increments: see `TextReward`.

    Raises:
        UserError: sacrebleu is not installed, char_order below 1, or word_order below 0.
    """

    needs_reference = True

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, *,
        char_order: int, word_order: int, scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        _at_least("char_order", char_order, 1)
        _at_least("word_order", word_order, 0)
        self._metric = _sacrebleu("chrf").CHRF(char_order=char_order, word_order=word_order)

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        return _sentence_scores(self._metric, completions, references)


class Likeness(TextReward):
    """Base class: a similarity of two sequences of words or characters.

    Args:
        unit: `word` (separated by white space) or `character`.
        scale, clip, increments: see `TextReward`.
    """

    needs_reference = True

    def __init__(
        self, num_actions: int, tokenizer: Decoder, eos_id: int | None, *,
        unit: Literal["word", "character"], scale: float, clip: float | None, increments: bool,
    ) -> None:  # fmt: skip
        super().__init__(num_actions, tokenizer, eos_id, scale=scale, clip=clip, increments=increments)
        self.unit: Unit = unit

    def score(self, prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
        pairs = zip(completions, references, strict=True)
        return [self.likeness(units(a, self.unit), units(b, self.unit)) for a, b in pairs]

    @abstractmethod
    def likeness(self, a: Sequence[str], b: Sequence[str]) -> float:
        """Similarity of the completion and its reference, in [0, 1]."""


class RougeL(Likeness):
    """F1 of the longest common subsequence: 2 L / (units of the text + units of the reference)."""

    def likeness(self, a: Sequence[str], b: Sequence[str]) -> float:
        return 2 * common_subsequence(a, b) / max(len(a) + len(b), 1)


class EditDistance(Likeness):
    """1 - Levenshtein distance / length of the longer text, of texts of any length."""

    def likeness(self, a: Sequence[str], b: Sequence[str]) -> float:
        return 1 - edit_distance(a, b) / max(len(a), len(b), 1)


def units(text: str, unit: Unit) -> Sequence[str]:
    """The words or the characters of a text."""
    return text.split() if unit == "word" else text


def _masks(text: Sequence[str]) -> dict[str, int]:
    """For each unit of the text, an integer whose bit i is set if the unit is at position i."""
    mask: dict[str, int] = {}
    for place, unit in enumerate(text):
        mask[unit] = mask.get(unit, 0) | 1 << place
    return mask


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; bit-parallel, one row of the table per step, as an integer.

    Bit i of `row` is 0 where the table grows at place i of `a` (Crochemore et al. 2001).
    """
    mask, full = _masks(a), (1 << len(a)) - 1
    row = full
    for unit in b:
        match = row & mask.get(unit, 0)
        row = ((row + match) | (row - match)) & full
    return len(a) - row.bit_count()


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance; bit-parallel, one column of the table per step, as two integers (Myers 1999, Hyyro 2003).

    Bit i of `up` (`down`) says that the table rises (falls) by one from place i to place i + 1 of `a`.
    """
    if not a:
        return len(b)
    mask, full, top = _masks(a), (1 << len(a)) - 1, 1 << len(a) - 1
    up, down, distance = full, 0, len(a)
    for unit in b:
        match = mask.get(unit, 0)
        diagonal = (((match & up) + up) ^ up) | match | down  # no step costs anything here
        rise = (down | ~(diagonal | up)) & full
        fall = up & diagonal
        distance += bool(rise & top) - bool(fall & top)
        rise, fall = (rise << 1 | 1) & full, fall << 1 & full
        up, down = (fall | ~(diagonal | rise)) & full, rise & diagonal
    return distance


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"reward.{name} is {value}; it must be {least} or more")


def _sentence_scores(metric: Any, completions: list[str], references: list[str]) -> list[float]:
    """sacrebleu's percentages as fractions; limited to 1, which rounding may exceed."""
    pairs = zip(completions, references, strict=True)
    return [min(metric.sentence_score(text, [reference]).score / 100, 1.0) for text, reference in pairs]


def _sacrebleu(name: str) -> ModuleType:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise UserError(
            f"reward={name} needs the package sacrebleu, which is not installed: pip install 'dqnlm[text]'"
        ) from error
    return metrics
