"""A text as token ids in three parts (`dqnlm.data.parts`); the targets of the config group `data`.

The cuts are by position, training, validation, test, so that no window of one part overlaps a window of another.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from math import floor
from typing import ClassVar

import torch
from torch import Tensor

from dqnlm.data.hub import hub
from dqnlm.data.parts import Part, first_of_test
from dqnlm.data.text import sources
from dqnlm.data.text.reading import TextSource, sha256_of
from dqnlm.data.tokenizers import factory
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.tokenizers.factory import TokenizerName
from dqnlm.errors import UserError
from dqnlm.utils.paths import FilePath, PathOrName

_LEAST_TOKENS = 2  # an observation and what follows it


@dataclass(frozen=True)
class Corpus:
    """Token ids of one text.

    Attributes:
        train_ids: 1-D, uint8 where the vocabulary allows it, else int32.
        validation_ids: 1-D, the same dtype; the part of the text after `train_ids`.
        test_ids: 1-D, the same dtype; the part after that, empty with data.test_fraction=0.
        tokenizer: built from the training part, or the one that was given.
        source: origin of the text; its `text` is the whole text.
        unknown: characters of the validation part, and of the test part, that the tokenizer does not know.
        choosable_A: bool, the tokens that may be chosen, of those that the tokenizer knows; None for all.
    """

    task: ClassVar[str] = "text"
    train_ids: Tensor
    validation_ids: Tensor
    test_ids: Tensor
    tokenizer: Tokenizer
    source: TextSource
    unknown: dict[Part, int]
    choosable_A: Tensor | None = None

    def fingerprint(self) -> str:
        """sha256 (hex) of the text, the place of the cut and the tokenizer: equal exactly if the ids are equal."""
        parts = {
            "text": self.source.sha256,
            "train_tokens": self.train_ids.numel(),
            "heldout_tokens": self.validation_ids.numel(),
            "tokenizer": self.tokenizer.state(),
        }
        if len(self.test_ids):  # runs without a test part keep the fingerprint that they were saved with
            parts["test_tokens"] = self.test_ids.numel()
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def require_tokens(self, tokens: int, why: str) -> None:
        """Raises UserError where a part is shorter than one window of `tokens` tokens; `why` names the settings."""
        for part, ids in (
            ("training", self.train_ids),
            ("validation", self.validation_ids),
            ("test", self.test_ids),
        ):
            if 0 < ids.numel() < tokens:
                raise UserError(
                    f"the {part} part of {self.source.name} has {ids.numel():,} tokens, but {why} needs at least "
                    f"{tokens:,}. Use a longer text, a shorter window, or another data.heldout_fraction or data.test_fraction."
                )


def build_corpus(
    source: TextSource,
    tokenizer_kind: str,
    heldout_fraction: float,
    test_fraction: float = 0.0,
    tokenizer: Tokenizer | None = None,
    unseen_bytes: bool = True,
) -> Corpus:
    """Splits a text and encodes it.

    Args:
        source: the text.
        tokenizer_kind: "character", "byte", or the folder of a pretrained model; not read where `tokenizer` is given.
        heldout_fraction: share of the text's characters, at its end, that is never trained on; in (0, 1). With a
            given tokenizer also 1: the whole text is held out, to evaluate a run on a text it was not made for.
        test_fraction: share of the held-out characters, at their end, that is the test part; in [0, 1), 0 for none.
        tokenizer: a run's tokenizer, instead of one built from the training part.
        unseen_bytes: with "byte", whether bytes that the training part never has may be chosen. A text has about a hundred of the
            256, and each of the others would be an action that nothing ever rewards.

    Raises:
        UserError: the fraction is outside its range, or a part is shorter than two characters.
    """
    whole = tokenizer is not None and heldout_fraction == 1
    if not (0 < heldout_fraction < 1 or whole):
        raise UserError(f"data.heldout_fraction is {heldout_fraction}; it must lie between 0 and 1 (both excluded).")
    text = source.text
    # The small term keeps a whole number whole: 10 * (1 - 0.9) is 0.99999... in floating point.
    cut = floor(len(text) * (1 - heldout_fraction) + 1e-9)
    least = len(text) - cut if whole else min(cut, len(text) - cut)
    if least < _LEAST_TOKENS:
        raise UserError(
            f"{source.name} is too short: {len(text):,} characters give {cut:,} for training and {len(text) - cut:,} "
            f"held out (data.heldout_fraction {heldout_fraction}); each part needs at least {_LEAST_TOKENS}."
        )
    train, heldout = text[:cut], text[cut:]
    place = first_of_test(len(heldout), test_fraction)
    validation, test = heldout[:place], heldout[place:]
    if test_fraction and min(len(validation), len(test)) < _LEAST_TOKENS:
        raise UserError(
            f"{source.name} is too short: of its {len(heldout):,} held-out characters {len(validation):,} are for validation and "
            f"{len(test):,} for the test (data.test_fraction {test_fraction}); each part needs at least {_LEAST_TOKENS}. Use a "
            "longer text, hold out more (data.heldout_fraction), or set data.test_fraction=0 for no test part."
        )
    known_bytes = tokenizer is None and tokenizer_kind == "byte" and not unseen_bytes
    tokenizer = tokenizer or factory.build(tokenizer_kind, train)
    train_ids = tokenizer.encode(train)
    return Corpus(
        train_ids=train_ids,
        validation_ids=tokenizer.encode(validation),
        test_ids=tokenizer.encode(test),
        tokenizer=tokenizer,
        source=source,
        unknown={"validation": tokenizer.count_unknown(validation), "test": tokenizer.count_unknown(test)},
        choosable_A=torch.bincount(train_ids.long(), minlength=tokenizer.vocabulary_size) > 0 if known_bytes else None,
    )


def beginning(source: TextSource, characters: int | None) -> TextSource:
    """The first characters of a text; None for all.

    Raises:
        UserError: none of them.
    """
    if characters is None:
        return source
    if characters < 1:
        raise UserError(f"data.characters, how many are read, must be at least 1 (or null for all), not {characters}")
    text, whole = source.text[:characters], len(source.text)
    if len(text) == whole:
        return source
    note = f"Only the first {characters:,} of {whole:,} characters are read (data.characters)."
    return replace(source, text=text, sha256=sha256_of(text), notes=[*source.notes, note])


def build_tiny_shakespeare(
    *,
    path: FilePath | None,
    characters: int | None,
    bundled_fallback: bool,
    bundled_characters: int,
    bundled_seed: int,
    tokenizer: TokenizerName,
    heldout_fraction: float,
    test_fraction: float,
    unseen_bytes: bool,
) -> Corpus:
    """Target of `data=tiny_shakespeare`; see `sources.tiny_shakespeare`."""
    source = sources.tiny_shakespeare(
        path=path,
        bundled_fallback=bundled_fallback,
        bundled_characters=bundled_characters,
        bundled_seed=bundled_seed,
    )
    return build_corpus(beginning(source, characters), tokenizer, heldout_fraction, test_fraction, unseen_bytes=unseen_bytes)


def build_text_file(
    *,
    path: FilePath | None,
    characters: int | None,
    tokenizer: TokenizerName,
    heldout_fraction: float,
    test_fraction: float,
    unseen_bytes: bool,
) -> Corpus:
    """Target of `data=text_file`; see `sources.text_file`."""
    source = beginning(sources.text_file(path=path), characters)
    return build_corpus(source, tokenizer, heldout_fraction, test_fraction, unseen_bytes=unseen_bytes)


def build_bundled(
    *, characters: int, seed: int, tokenizer: TokenizerName, heldout_fraction: float, test_fraction: float, unseen_bytes: bool
) -> Corpus:
    """Target of `data=bundled`; see `sources.bundled`."""
    source = sources.bundled(characters=characters, seed=seed)
    return build_corpus(source, tokenizer, heldout_fraction, test_fraction, unseen_bytes=unseen_bytes)


def build_hub(
    *,
    name: PathOrName | None,
    config: str | None,
    split: str,
    text_column: str,
    revision: str | None,
    characters: int | None,
    tokenizer: TokenizerName,
    heldout_fraction: float,
    test_fraction: float,
    unseen_bytes: bool,
) -> Corpus:
    """Target of `data=hub`; see `hub.hub`."""
    source = hub(name=name, config=config, split=split, text_column=text_column, revision=revision)
    return build_corpus(beginning(source, characters), tokenizer, heldout_fraction, test_fraction, unseen_bytes=unseen_bytes)
