"""Pairs of texts from files: parallel sentences, one per line, or dialogues in DailyDialog's format."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from dqnlm.data.text.reading import missing_file, read_bytes
from dqnlm.data.trajectories.files import DataSource
from dqnlm.errors import UserError
from dqnlm.utils.encoding import text_of, unpacked

Item = TypeVar("Item")
TURN = "__eou__"  # ends each turn of a DailyDialog line
_ENDINGS = ("", ".gz", ".txt", ".txt.gz")


class TextPair(NamedTuple):
    """A prompt and its reference answer."""

    prompt: str
    answer: str


def parallel(
    path: str | None, names: dict[str, str], source: str, target: str
) -> tuple[dict[str, list[TextPair]], DataSource]:
    """Parallel sentences from FOLDER/NAME.LANGUAGE files, plain or gzip.

    Args:
        path: the folder; None: $DQNLM_DATA_DIR/multi30k.
        names: part -> NAME.
        source: language of the prompts, the ending of their files.
        target: language of the answers.

    Raises:
        UserError: a file is not there, is no UTF-8, or two files have different numbers of lines.
    """
    folder = _folder(path, "multi30k", "data.path=FOLDER with files such as train.de and train.en", "data.path")
    digest, parts, notes = hashlib.sha256(), {}, list[str]()
    for part, name in names.items():
        files = [_find(folder, f"{name}.{language}") for language in (source, target)]
        sides = []
        for file in files:
            lines, data, told = _lines(file, "data.path")
            digest.update(data)
            sides.append(lines)
            notes += told
        if len(sides[0]) != len(sides[1]):
            raise UserError(
                f"{files[0]} has {len(sides[0]):,} lines and {files[1]} has {len(sides[1]):,}: parallel files "
                "have as many lines, line by line the same sentence"
            )
        parts[part] = [TextPair(*pair) for pair in zip(*sides, strict=True) if all(pair)]
        if len(parts[part]) < len(sides[0]):
            empty = len(sides[0]) - len(parts[part])
            notes.append(f"Lines with an empty side were left out of {name}: {empty:,} of {len(sides[0]):,}.")
    label = f"{folder.name} {source}-{target}"
    return parts, DataSource(
        label, f"{folder.absolute()}: {', '.join(names.values())}", digest.hexdigest(), notes=notes
    )


def dialogues(
    path: str | None, context_turns: int, heldout_fraction: float
) -> tuple[dict[str, list[TextPair]], DataSource]:
    """Pairs of each turn after a dialogue's first, with the turns before it, from a file with one dialogue per line.

    Whole dialogues are held out, see `divided`; of these, one that shares a turn and its context with the training
    part is left out, because collections contain duplicates, and memorised dialogues would bias the evaluation.

    Args:
        path: the file; None: $DQNLM_DATA_DIR/dailydialog/dialogues_1k_en.txt.
        context_turns: maximum number of turns in a prompt, the newest ones.
        heldout_fraction: share of the dialogues that is never trained on.

    Raises:
        UserError: no such file, a line without a finished turn, numbers out of range.
    """
    if context_turns < 1:
        raise UserError(f"data.context_turns must be at least 1, not {context_turns}")
    spoken, source = read_dialogues(path, "data.path")
    parts = divided([_turns(turns, context_turns) for turns in spoken], heldout_fraction)
    known = {pair for dialogue in parts["train"] for pair in dialogue}
    kept = {name: [d for d in part if name == "train" or known.isdisjoint(d)] for name, part in parts.items()}
    if left_out := len(spoken) - sum(map(len, kept.values())):
        note = f"{left_out:,} held-out dialogues that share a turn and its context with the training part are left out"
        source = replace(source, notes=[*source.notes, note])
    return {name: [pair for dialogue in part for pair in dialogue] for name, part in kept.items()}, source


def read_dialogues(path: str | None, setting: str) -> tuple[list[list[str]], DataSource]:
    """The turns of each dialogue of a file in DailyDialog's format.

    Args:
        path: the file; None: $DQNLM_DATA_DIR/dailydialog/dialogues_1k_en.txt.
        setting: the key that named it, for messages.

    Raises:
        UserError: no such file, or a line without a finished turn.
    """
    if path is None:
        folder = _folder(None, "dailydialog", f"{setting}=FILE with a dialogue a line, turns ended by {TURN}", setting)
        file = folder / "dialogues_1k_en.txt"
    else:
        file = Path(path).expanduser()
    lines, data, notes = _lines(file, setting)
    spoken = []
    for number, line in enumerate(lines, 1):
        turns = [turn.strip() for turn in line.split(TURN) if turn.strip()]
        if line and TURN not in line:
            raise UserError(f"{file}, line {number} has no {TURN}, which ends each turn of a dialogue")
        spoken.append(turns)
    return spoken, DataSource(file.name, str(file.absolute()), hashlib.sha256(data).hexdigest(), notes=notes)


def divided(items: list[Item], heldout_fraction: float) -> dict[str, list[Item]]:
    """Splits off the last dialogues: their first half is `heldout`, for evaluations during training, the second `test`.

    Raises:
        UserError: a fraction outside (0, 1).
    """
    if not 0 < heldout_fraction < 1:
        raise UserError(f"data.heldout_fraction is {heldout_fraction}; it must lie between 0 and 1 (both excluded)")
    cut = int(len(items) * (1 - heldout_fraction))
    middle = (cut + len(items) + 1) // 2
    return {"train": items[:cut], "heldout": items[cut:middle], "test": items[middle:]}


def _turns(turns: list[str], context: int) -> list[TextPair]:
    return [TextPair(" | ".join(turns[max(0, i - context) : i]), turns[i]) for i in range(1, len(turns))]


def _folder(path: str | None, name: str, otherwise: str, setting: str) -> Path:
    if path is not None:
        return Path(path).expanduser()
    root = os.environ.get("DQNLM_DATA_DIR")
    if root is None or not (Path(root) / name).is_dir():
        where = "DQNLM_DATA_DIR is not set" if root is None else f"there is no folder {name} in DQNLM_DATA_DIR={root}"
        raise UserError(f"{setting} is null, and {where}: set {otherwise}")
    return Path(root) / name


def _find(folder: Path, name: str) -> Path:
    for ending in _ENDINGS:
        if (folder / f"{name}{ending}").is_file():
            return folder / f"{name}{ending}"
    raise missing_file(folder / name, "data.path")


def _lines(file: Path, setting: str) -> tuple[list[str], bytes, list[str]]:
    """Lines without surrounding white space, the bytes of the file (unpacked where its name says so), and notes."""
    data = read_bytes(file, setting)
    text, notes = text_of(data, file, setting)
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    content, _ = unpacked(data, file, setting)
    return [line.strip() for line in lines], content, notes
