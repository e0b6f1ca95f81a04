"""Prompts with a reference answer: parallel sentences, or turns of dialogues; targets of the config group `data`.

The token ids of a pair are: the prompt, a line break, which separates it from the answer, the answer, and a line break,
which ends it. The texts contain no line breaks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from dqnlm.data.pairs import files, records
from dqnlm.data.pairs.files import TextPair
from dqnlm.data.parts import Part
from dqnlm.data.tokenizers import factory
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.tokenizers.bpe import train_bpe
from dqnlm.data.trajectories.files import DataSource
from dqnlm.errors import UserError
from dqnlm.utils.paths import FilePath, PathOrName

PairTokenizer = Literal["bpe", "character", "byte"]
STOP = "\n"


class Ragged(NamedTuple):
    """Sequences of ids of different lengths, end to end.

    Attributes:
        ids: 1-D int64.
        start_K: where each begins in `ids`, and where the last ends.
    """

    ids: Tensor
    start_K: Tensor

    def __len__(self) -> int:  # type: ignore[override]  # of the runs, not of the tuple
        return self.start_K.shape[0] - 1

    def longest(self) -> int:
        """Ids of the longest run."""
        return int((self.start_K[1:] - self.start_K[:-1]).max())


def ragged(runs: Sequence[Tensor]) -> Ragged:
    """Concatenates sequences into one `Ragged`."""
    length = torch.tensor([0, *(len(run) for run in runs)])
    return Ragged(torch.cat([run.long() for run in runs]), length.cumsum(0))


@dataclass(frozen=True)
class TokenPairs:
    """Pairs as ids: prompts end in the stop token, references do not have it. `texts` are the original texts."""

    prompts: Ragged
    references: Ragged
    texts: list[TextPair]


@dataclass(frozen=True)
class Pairs:
    """Prompts and answers in three parts.

    Attributes:
        train, heldout, test: for training, for evaluations during training, and for the final evaluation.
        tokenizer: made from `train` alone.
        eos_id: of the line break.
        source: origin of the pairs.
        left_out: pairs of each part that are empty or too long on a side, and are neither learned from nor scored.
    """

    task: ClassVar[str] = "answers"
    train: TokenPairs
    heldout: TokenPairs
    test: TokenPairs
    tokenizer: Tokenizer
    eos_id: int
    source: DataSource
    left_out: dict[Part, int]

    def part(self, name: Part) -> TokenPairs:
        """One of the three parts."""
        return {"train": self.train, "validation": self.heldout, "test": self.test}[name]

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of all parts, its line break included."""
        return max(part.prompts.longest() for part in (self.train, self.heldout, self.test))

    @property
    def train_ids(self) -> Tensor:
        """All answers of the training part, end to end, each with its line break: the text for a language model.
        """
        answers = self.train.references
        length_K = answers.start_K[1:] - answers.start_K[:-1]
        place = torch.arange(len(answers.ids)) + torch.repeat_interleave(torch.arange(len(answers)), length_K)
        ids = torch.full((len(answers.ids) + len(answers),), self.eos_id)
        ids[place] = answers.ids
        return ids.to(self.tokenizer.dtype)

    def fingerprint(self) -> str:
        """sha256 (hex) of all texts that are kept and of the tokenizer: equal exactly if the ids are equal."""
        parts = [self.train.texts, self.heldout.texts, self.test.texts, self.tokenizer.state()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def build_pairs(
    parts: dict[str, list[TextPair]],
    source: DataSource,
    kind: PairTokenizer,
    vocabulary_size: int | None,
    max_tokens: int,
    limit: int | None = None,
) -> Pairs:
    """Builds the tokenizer and the ids of all parts.

    Args:
        parts: `train`, `heldout` and `test`.
        kind: of the tokenizer; `vocabulary_size` belongs to bpe alone.
        max_tokens: longest prompt, and longest answer, that is kept; longer ones are left out and counted in the notes.
        limit: number of training pairs, from the first, also for the tokenizer; None for all.

    Raises:
        UserError: a part that is empty, settings that do not go together.
    """
    if (vocabulary_size is None) == (kind == "bpe"):
        raise UserError(
            "data.tokenizer=bpe needs data.vocabulary_size (such as 2000), and the other tokenizers take "
            f"data.vocabulary_size=null; it is {vocabulary_size}"
        )
    if limit is not None and limit < 1:
        raise UserError(f"data.limit counts training pairs and must be at least 1 (or null for all), not {limit}")
    parts = parts | {"train": parts["train"][:limit]}
    sides = [side for pair in parts["train"] for side in (pair.prompt, pair.answer)]
    if vocabulary_size is not None:
        tokenizer: Tokenizer = train_bpe(sides, vocabulary_size)
    else:
        tokenizer = factory.build("character" if kind == "character" else "byte", STOP + "".join(sides))
    stop = tokenizer.encode(STOP)
    assert len(stop) == 1, "the line break is one token of every tokenizer here"
    found, dropped = {}, {}
    for name, texts in parts.items():
        found[name], dropped[name] = _as_ids(texts, tokenizer, stop, max_tokens, name)
    left_out: dict[Part, int] = {"train": dropped["train"], "validation": dropped["heldout"], "test": dropped["test"]}
    counts = ", ".join(f"{count:,} of {name}" for name, count in left_out.items())
    said = f"{sum(left_out.values()):,} pairs with no token, or more than {max_tokens}, on a side are left out ({counts})"
    notes = [said] if any(left_out.values()) else []
    source = DataSource(source.name, source.origin, source.sha256, notes=[*source.notes, *notes])
    return Pairs(found["train"], found["heldout"], found["test"], tokenizer, int(stop[0]), source, left_out)


def _as_ids(
    texts: list[TextPair], tokenizer: Tokenizer, stop: Tensor, max_tokens: int, name: str
) -> tuple[TokenPairs, int]:
    kept, prompts, references = [], [], []
    for pair in texts:
        prompt, answer = tokenizer.encode(pair.prompt), tokenizer.encode(pair.answer)
        if 0 < len(prompt) <= max_tokens and 0 < len(answer) <= max_tokens:
            kept.append(pair)
            prompts.append(torch.cat([prompt, stop]))
            references.append(answer)
    if not texts:
        raise UserError(f"the {name} part is empty; hold out another share, or give other files or splits")
    if not kept:
        raise UserError(
            f"the {name} part has no pair with 1 to {max_tokens} tokens on each side; raise data.max_tokens, or give other files"
        )
    return TokenPairs(ragged(prompts), ragged(references), kept), len(texts) - len(kept)


def translation(
    *,
    path: FilePath | None,
    source: str,
    target: str,
    train: str,
    heldout: str,
    test: str,
    limit: int | None,
    tokenizer: Literal["bpe", "character", "byte"],
    vocabulary_size: int | None,
    max_tokens: int,
) -> Pairs:
    """Target of `data=translation`; see `files.parallel`."""
    names = {"train": train, "heldout": heldout, "test": test}
    parts, origin = files.parallel(path, names, source, target)
    return build_pairs(parts, origin, tokenizer, vocabulary_size, max_tokens, limit)


def translation_jsonl(
    *,
    path: FilePath | None,
    source: str,
    target: str,
    heldout_fraction: float,
    limit: int | None,
    tokenizer: Literal["bpe", "character", "byte"],
    vocabulary_size: int | None,
    max_tokens: int,
) -> Pairs:
    """Target of `data=translation_jsonl`; see `records.from_json_lines`."""
    parts, origin = records.from_json_lines(path, source, target, heldout_fraction)
    return build_pairs(parts, origin, tokenizer, vocabulary_size, max_tokens, limit)


def translation_hub(
    *,
    name: PathOrName | None,
    config: str | None,
    revision: str | None,
    source: str,
    target: str,
    train: str,
    heldout: str,
    test: str,
    limit: int | None,
    tokenizer: Literal["bpe", "character", "byte"],
    vocabulary_size: int | None,
    max_tokens: int,
) -> Pairs:
    """Target of `data=translation_hub`; see `records.from_hub`."""
    splits = {"train": train, "heldout": heldout, "test": test}
    parts, origin = records.from_hub(name, config, revision, splits, source, target)
    return build_pairs(parts, origin, tokenizer, vocabulary_size, max_tokens, limit)


def replies(
    *,
    path: FilePath | None,
    context_turns: int,
    heldout_fraction: float,
    limit: int | None,
    tokenizer: Literal["bpe", "character", "byte"],
    vocabulary_size: int | None,
    max_tokens: int,
) -> Pairs:
    """Target of `data=replies`; see `files.dialogues`."""
    parts, origin = files.dialogues(path, context_turns, heldout_fraction)
    return build_pairs(parts, origin, tokenizer, vocabulary_size, max_tokens, limit)
