"""A log of texts with rewards as token rows for training and for evaluation; target of `data=logged`.

The tokenizer is a pretrained model's own, or built from the training part. With `end_token` each of the agent's parts (a
completion, a turn of a dialogue) ends in an end token, so that texts may contain line breaks. A new end token occurs in no
text; that of a pretrained model is also produced by a text that spells it out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dqnlm.data.parts import Part
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.tokenizers.factory import TokenizerName
from dqnlm.data.tokenizers.making import make_tokenizer
from dqnlm.data.trajectories import split
from dqnlm.data.trajectories.columns import reward_columns, scaled, scales_of, scaling_notes
from dqnlm.data.trajectories.dataset import read_log
from dqnlm.data.trajectories.files import DataSource, read_file
from dqnlm.data.trajectories.forms import AssistantTurns, FormSettings, form_settings
from dqnlm.data.trajectories.records import Trajectory, content_sha256
from dqnlm.data.trajectories.rewards import RewardScaling, episodes, keep_best
from dqnlm.data.trajectories.rows import TokenRow, token_rows
from dqnlm.data.trajectories.split import HeldoutBy
from dqnlm.errors import UserError
from dqnlm.types import DECISION
from dqnlm.utils.paths import FilePath, PathOrName


@dataclass(frozen=True)
class LogPart:
    """Trajectories, and the token row of each."""

    items: list[Trajectory]
    rows: list[TokenRow]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Log:
    """A log in three parts (`dqnlm.data.parts`).

    Attributes:
        train: the training part, filtered and scaled by the settings.
        heldout: the validation part, in the units of `train`.
        test: the test part, in the same units; may be empty.
        left_out: rows of each part that are too long, or of an episode with such a row.
        tokenizer: of all.
        source: origin of the log, with notes about the processing.
        reward_names: columns of several rewards, each learned by a Q of its own; empty: one reward.
    """

    task: ClassVar[str] = "log"
    train: LogPart
    heldout: LogPart
    test: LogPart
    left_out: dict[Part, int]
    tokenizer: Tokenizer
    source: DataSource
    reward_names: tuple[str, ...] = ()

    def part(self, name: Part) -> LogPart:
        """One of the three parts."""
        return {"train": self.train, "validation": self.heldout, "test": self.test}[name]

    @property
    def all_rows(self) -> list[TokenRow]:
        """The rows of all parts."""
        return [*self.train.rows, *self.heldout.rows, *self.test.rows]

    @property
    def longest(self) -> int:
        """Transitions of the longest row."""
        return max(row.transitions for row in self.all_rows)

    @property
    def longest_completion(self) -> int:
        """Most decisions in a row of the training part."""
        return max(row.decisions for row in self.train.rows)

    @property
    def train_ids(self) -> Tensor:
        """All decisions of the training part, end to end, 1-D: the training text of a language model."""
        said = [row.ids[1:][(row.flag_T & DECISION) != 0] for row in self.train.rows]
        return torch.from_numpy(np.concatenate(said)).to(self.tokenizer.dtype)

    def fingerprint(self) -> str:
        """sha256 (hex) of all parts and of the tokenizer."""
        parts = [content_sha256(self.train.items), content_sha256(self.heldout.items), self.tokenizer.state()]
        if len(self.test):  # runs without a test part keep the fingerprint that they were saved with
            parts.append(content_sha256(self.test.items))
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def logged(
    *,
    path: FilePath | None,
    name: PathOrName | None,
    config: str | None,
    split: str,
    revision: str | None,
    limit: int | None,
    heldout_path: FilePath | None,
    heldout_fraction: float,
    test_path: FilePath | None,
    test_fraction: float,
    heldout_by: HeldoutBy,
    keep_best: float | None,
    reward_scaling: RewardScaling,
    tokenizer: TokenizerName | None,
    vocabulary_size: int | None,
    max_tokens: int | None,
    end_token: bool,
    pair_rewards: list[float],
    ratings: dict[str | bool | float, float] | None,
    assistant_turns: AssistantTurns,
    rewards: list[str] | None,
    reward_weights: dict[str, float] | None,
) -> Log:
    """Target of `data=logged`; see `forms` for what is read.

    Raises:
        UserError: a file or a line that is wrong, no prompt left to be held out, texts that the tokenizer does not know, or
            settings that do not go together.
    """
    columns = reward_columns(rewards, reward_weights)
    names = () if columns is None or columns.weights is not None else columns.names
    _refuse_best_of_several(names, keep_best)
    forms = form_settings(tokenizer, pair_rewards, ratings, assistant_turns, columns)
    items, source = read_log(path, name, config, split, revision, "logged", forms, limit)
    train, heldout, notes = _parts(items, heldout_path, heldout_fraction, heldout_by, source.name, forms)
    train, heldout, test, more = _with_test(train, heldout, test_path, test_fraction, heldout_by, forms)
    notes += more
    texts = [text for item in train for text in (item.prompt, item.completion, item.next)]
    made = make_tokenizer(tokenizer, vocabulary_size, texts, end_token)
    before: dict[Part, list[Trajectory]] = {"train": train, "validation": heldout, "test": test}
    kept_parts = before if max_tokens is None else _short(before, made, max_tokens)
    left_out: dict[Part, int] = {name: len(before[name]) - len(part) for name, part in kept_parts.items()}
    train, heldout, test = kept_parts["train"], kept_parts["validation"], kept_parts["test"]
    if any(left_out.values()):
        notes.append(
            f"{sum(left_out.values()):,} logged rows of more than {max_tokens} tokens (data.max_tokens), or of their episodes, "
            "are left out."
        )
    every, (train, kept) = train, _best(train, keep_best)
    scales = scales_of(train, every, reward_scaling, names)
    train, heldout, test = (scaled(part, scales) for part in (train, heldout, test))
    notes += [*([] if kept is None else [kept]), *scaling_notes(scales, names)]
    unknown = sum(made.count_unknown(item.prompt + item.completion) for item in heldout + test)
    if unknown:
        notes.append(
            f"{unknown:,} held-out characters do not occur in the training part (unknown token); they are not scored."
        )
    parts = (
        LogPart(train, token_rows(train, made, made.eos_id)),
        LogPart(heldout, token_rows(heldout, made, made.eos_id, strict=False)),
        LogPart(test, token_rows(test, made, made.eos_id, strict=False)),
    )
    return Log(*parts, left_out, made, replace(source, notes=[*source.notes, *notes]), names)


def _parts(
    items: list[Trajectory], heldout_path: str | None, fraction: float, by: HeldoutBy, whole: str, forms: FormSettings
) -> tuple[list[Trajectory], list[Trajectory], list[str]]:
    """Training part, held-out part, and notes: from one log, or the second from a file of its own."""
    if heldout_path is None:
        train, heldout, note = split.split(items, fraction, by, whole)
        return train, heldout, [note]
    try:
        heldout, source = read_file(heldout_path, forms.anew())
    except UserError as error:
        raise UserError(str(error).replace("data.path:", "data.heldout_path:")) from error
    train, dropped = split.without(items, heldout, by)
    if not train:
        raise UserError(
            f"data.heldout_path={heldout_path} holds every {by} of {whole}, so nothing is left to learn from: give another file"
            + (", or set data.heldout_by=row" if by == "prompt" else "")
        )
    said = f"Held out {len(heldout):,} rows of {heldout_path} (data.heldout_path) beside {len(train):,} to learn from."
    read = [f"{note} (data.heldout_path)" for note in source.notes]
    return train, heldout, [said, *([dropped] if dropped else []), *read]


def _with_test(
    train: list[Trajectory], heldout: list[Trajectory], path: str | None, fraction: float, by: HeldoutBy, forms: FormSettings
) -> tuple[list[Trajectory], list[Trajectory], list[Trajectory], list[str]]:
    """Training, validation and test part, and notes: the last from a file of its own, or from the held-out rows."""
    if path is None:
        validation, test, note = split.divided(heldout, fraction, by)
        return train, validation, test, [note]
    try:
        test, source = read_file(path, forms.anew())
    except UserError as error:
        raise UserError(str(error).replace("data.path:", "data.test_path:")) from error
    (train, dropped), (validation, more) = (split.without(part, test, by, "data.test_path") for part in (train, heldout))
    if not (train and validation):
        raise UserError(f"data.test_path={path} holds every {by} of the training or the validation part: give another file")
    notes = [f"{len(test):,} rows of {path} are the test part (data.test_path).", dropped, more]
    return train, validation, test, [*(note for note in notes if note), *(f"{note} (data.test_path)" for note in source.notes)]


def _short(
    parts: dict[Part, list[Trajectory]], tokenizer: Tokenizer, max_tokens: int
) -> dict[Part, list[Trajectory]]:
    """Each part without the episodes that have a row of more tokens."""
    kept: dict[Part, list[Trajectory]] = {}
    for name, part in parts.items():
        rows = token_rows(part, tokenizer, tokenizer.eos_id, strict=name == "train")
        short = [places for places in episodes(part) if all(len(rows[i].ids) <= max_tokens for i in places)]
        kept[name] = [part[i] for i in sorted(i for places in short for i in places)]
        if part and not kept[name]:
            least, called = min(len(row.ids) for row in rows), {"train": "training"}.get(name, name)
            raise UserError(
                f"data.max_tokens={max_tokens} leaves no row of the {called} part; its shortest has {least} tokens: raise it"
            )
    return kept


def _refuse_best_of_several(names: tuple[str, ...], keep_best: float | None) -> None:
    if names and keep_best is not None:
        weights = ", ".join(f"{name}: 1" for name in names)
        raise UserError(
            f"data.keep_best={keep_best:g} keeps the best rows by one reward, and data.rewards names {len(names)}: give the "
            f"weights of their sum instead, data.rewards=null 'data.reward_weights={{{weights}}}'"
        )


def _best(train: list[Trajectory], share: float | None) -> tuple[list[Trajectory], str | None]:
    return (train, None) if share is None else keep_best(train, share)
