"""Prompts as token ids in three parts (`dqnlm.data.parts`); target of `data=prompts`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dqnlm.data.pairs.dataset import Ragged, ragged
from dqnlm.data.parts import Part, first_of_test
from dqnlm.data.prompts import reading
from dqnlm.data.prompts.reading import Prompt
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.tokenizers.chat import ChatTemplate
from dqnlm.data.tokenizers.factory import TokenizerName
from dqnlm.data.tokenizers.making import make_tokenizer
from dqnlm.data.trajectories.files import DataSource
from dqnlm.errors import UserError
from dqnlm.utils.paths import FilePath, PathOrName


@dataclass(frozen=True)
class PromptPart:
    """Prompts as ids, their references (empty where there is none), and all as texts."""

    prompts: Ragged
    references: Ragged
    items: list[Prompt]

    def columns(self) -> dict[str, list[Any]]:
        """The further columns by name, a value a prompt; None where a row has none."""
        names = dict.fromkeys(name for item in self.items for name in item.columns)
        return {name: [item.columns.get(name) for item in self.items] for name in names}


@dataclass(frozen=True)
class Prompts:
    """Prompts in three parts.

    Attributes:
        train, heldout: for training, and for evaluations during training (validation).
        test: for `dqnlm eval`; None for no such part.
        left_out: prompts of each part that are empty or too long.
        tokenizer: with an end token.
        source: origin, with notes.
    """

    task: ClassVar[str] = "prompts"
    train: PromptPart
    heldout: PromptPart
    test: PromptPart | None
    left_out: dict[Part, int]
    tokenizer: Tokenizer
    source: DataSource

    @property
    def parts(self) -> dict[Part, PromptPart]:
        """The parts that there are, by name."""
        parts: dict[Part, PromptPart] = {"train": self.train, "validation": self.heldout}
        return parts if self.test is None else parts | {"test": self.test}

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of all parts."""
        return max(part.prompts.longest() for part in self.parts.values())

    @property
    def has_references(self) -> bool:
        """Whether every training prompt has a reference answer."""
        return all(item.reference for item in self.train.items)

    @property
    def train_ids(self) -> Tensor:
        """The references of the training part, else its prompts, end to end: the text of rewards that are made from one."""
        runs = self.train.references if self.has_references else self.train.prompts
        return runs.ids.to(self.tokenizer.dtype)

    def fingerprint(self) -> str:
        """sha256 (hex) of all parts and of the tokenizer."""
        parts = [[item[:4] for item in part.items] for part in self.parts.values()]
        return hashlib.sha256(json.dumps([parts, self.tokenizer.state()], sort_keys=True, default=str).encode()).hexdigest()


def prompts(
    *,
    path: FilePath | None,
    name: PathOrName | None,
    config: str | None,
    split: str,
    revision: str | None,
    heldout_path: FilePath | None,
    heldout_fraction: float,
    test_path: FilePath | None,
    test_fraction: float,
    tokenizer: TokenizerName | None,
    vocabulary_size: int | None,
    max_tokens: int | None,
    end_token: bool,
) -> Prompts:
    """Target of `data=prompts`; see `reading` for the fields.

    Raises:
        UserError: a file or a row that is wrong, nothing left to be held out, or settings that do not go together.
    """
    found, source = reading.read(path, name, config, split, revision)
    train, heldout = _parts(found, heldout_path, heldout_fraction, source.name)
    heldout, test = _with_test(heldout, test_path, test_fraction)
    template = ChatTemplate(str(tokenizer)) if any(item.messages for item in train + heldout + test) else None
    train, heldout, test = ([_written(item, template) for item in part] for part in (train, heldout, test))
    made = make_tokenizer(tokenizer, vocabulary_size, [t for item in train for t in (item.text, item.reference)], end_token)
    notes, left_out = [] if test else ["No test part: no prompt is held out for it."], dict[Part, int]()
    parts = dict[Part, PromptPart]()
    texts: dict[Part, list[Prompt]] = {"train": train, "validation": heldout}
    if test:
        texts["test"] = test
    for which, part in texts.items():
        parts[which], note = _as_ids(part, made, max_tokens, {"train": "training"}.get(which, which))
        left_out[which] = len(part) - len(parts[which].items)
        notes += note
    source = replace(source, notes=[*source.notes, *notes])
    return Prompts(parts["train"], parts["validation"], parts.get("test"), left_out, made, source)


def _parts(
    found: list[Prompt], heldout_path: str | None, fraction: float, whole: str
) -> tuple[list[Prompt], list[Prompt]]:
    """Training and held-out prompts: from a file of their own, or the last ones."""
    if heldout_path is not None:
        return found, reading.read(heldout_path, None, None, "", None)[0]
    if not 0 < fraction < 1:
        raise UserError(f"data.heldout_fraction is a share of the prompts, in (0, 1), not {fraction}")
    count = max(round(fraction * len(found)), 1)
    if count >= len(found):
        raise UserError(
            f"{whole} has {len(found)} prompts, of which data.heldout_fraction={fraction} holds out {count}: nothing is left to "
            "learn from. Give more prompts, or a file of held-out ones: data.heldout_path=FILE"
        )
    return found[:-count], found[-count:]


def _with_test(heldout: list[Prompt], path: str | None, fraction: float) -> tuple[list[Prompt], list[Prompt]]:
    """Validation and test prompts: the second from a file of their own, or the last ones of those held out."""
    if path is not None:
        return heldout, reading.read(path, None, None, "", None)[0]
    first = max(first_of_test(len(heldout), fraction), 1)
    return heldout[:first], heldout[first:]


def _written(item: Prompt, template: ChatTemplate | None) -> Prompt:
    if item.messages is None:
        return item
    assert template is not None
    return item._replace(text=template.render(item.messages, item.place, add_generation_prompt=True))


def _as_ids(part: list[Prompt], tokenizer: Tokenizer, longest: int | None, which: str) -> tuple[PromptPart, list[str]]:
    kept, prompt_ids, reference_ids = [], [], []
    for item in part:
        ids = tokenizer.encode_prompt(item.text, strict=False)
        if len(ids) and (longest is None or len(ids) <= longest):
            kept.append(item)
            prompt_ids.append(ids)
            reference_ids.append(tokenizer.encode(item.reference) if item.reference else torch.zeros(0, dtype=torch.int64))
    left_out = len(part) - len(kept)
    if not kept:
        raise UserError(f"no {which} prompt has 1 to {longest} tokens: raise data.max_tokens, or give other prompts")
    notes = [f"{left_out:,} {which} prompts with more than {longest} tokens are left out"] if left_out else []
    return PromptPart(ragged(prompt_ids), ragged(reference_ids), kept), notes
