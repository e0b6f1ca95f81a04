"""Pairs of texts from records: lines of a JSONL file, or rows of a data set through `datasets`.

Each side is a field, named as it stands (`de`) or, where it lies in another, with a dot: `translation.de` of
{"translation": {"de": "ja", "en": "yes"}}. A line break inside a text would end it, so it is read as a space, and counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dqnlm.data import hub
from dqnlm.data.pairs.files import TextPair, divided
from dqnlm.data.rows import Record, json_lines
from dqnlm.data.text.reading import read_bytes
from dqnlm.data.trajectories.files import DataSource
from dqnlm.errors import UserError

_BREAKS = re.compile(r"\s*[\r\n]+\s*")


class _Reader:
    """Reads two fields of each record and counts texts with line breaks."""

    def __init__(self, source: str, target: str) -> None:
        self.source, self.target = source, target
        self.broken = 0

    def pair(self, place: str, record: Any) -> TextPair:
        """The record's pair; a side may be empty. Raises UserError that names the place and the field."""
        if not isinstance(record, Mapping):
            raise UserError(f"{place} is no object but {json.dumps(record)[:60]}; write {_example(self)}.")
        return TextPair(self._text(place, record, "source"), self._text(place, record, "target"))

    def _text(self, place: str, record: Mapping[str, Any], side: str) -> str:
        name = self.source if side == "source" else self.target
        value = _field(record, name)
        if value is _NOTHING:
            raise UserError(
                f"{place} has no {name} (data.{side}); it has {', '.join(_names(record)) or 'nothing'}. Name a field that it "
                "has, with a dot where it lies in another"
            )
        if value is not None and not isinstance(value, str):
            raise UserError(f"{place}: {name} (data.{side}) is {json.dumps(value, default=str)[:60]}, not a text.")
        text, breaks = _BREAKS.subn(" ", (value or "").strip())
        self.broken += breaks > 0
        return text

    def notes(self) -> list[str]:
        """Notes for the user."""
        return [f"Line breaks inside {self.broken:,} texts were read as spaces."] if self.broken else []


_NOTHING = object()


def _field(record: Mapping[str, Any], name: str) -> Any:
    """The value under a name, or under a dotted path; `_NOTHING` where there is none."""
    if name in record:
        return record[name]
    head, _, rest = name.partition(".")
    inner = record.get(head)
    return _field(inner, rest) if rest and isinstance(inner, Mapping) else _NOTHING


def _names(record: Mapping[str, Any]) -> list[str]:
    """Names of all fields, nested ones with a dot."""
    found = []
    for name, value in record.items():
        found += [f"{name}.{inner}" for inner in _names(value)] if isinstance(value, Mapping) else [str(name)]
    return found


def _example(reader: _Reader) -> str:
    """An example of a correct line."""
    line: dict[str, Any] = {}
    for name, text in ((reader.source, "ein Hund"), (reader.target, "a dog")):
        *outer, last = name.split(".")
        node = line
        for part in outer:
            node = node.setdefault(part, {})
        node[last] = text
    return json.dumps(line)


def from_json_lines(
    path: str | None, source: str, target: str, heldout_fraction: float
) -> tuple[dict[str, list[TextPair]], DataSource]:
    """Reads one object per line, plain or gzip; see `pair_files.divided` for the parts.

    Args:
        path: the file.
        source: field of the prompt.
        target: field of the answer.
        heldout_fraction: share of the lines, at the end, that is never trained on.

    Raises:
        UserError: no such file; a line that is no JSON, lacks a field, or has an empty text (with file and line).
    """
    if path is None:
        raise UserError("data=translation_jsonl needs a file: add data.path=FILE.jsonl")
    file, reader = Path(path).expanduser(), _Reader(source, target)
    data = read_bytes(file, "data.path")
    pairs, told = [], list[str]()
    for place, record in json_lines(data, file, _example(reader), told):
        pair = reader.pair(place, record)
        if not all(pair):
            name = target if pair.prompt else source
            raise UserError(f"{place}: {name} is empty; give it some text, or leave the line out.")
        pairs.append(pair)
    if not pairs:
        raise UserError(f"data.path: {file} is empty: it holds no pair.")
    origin = DataSource(file.name, str(file.absolute()), hashlib.sha256(data).hexdigest(), notes=told + reader.notes())
    return divided(pairs, heldout_fraction), origin


def from_hub(
    name: str | None, config: str | None, revision: str | None, splits: dict[str, str], source: str, target: str
) -> tuple[dict[str, list[TextPair]], DataSource]:
    """Reads rows of a data set of the Hub, or of a local folder of data files; see `hub.hub`.

    Args:
        name, config, revision: as for `hub.hub`.
        splits: part -> split, also a slice such as train[:98%].
        source: field of the prompt.
        target: field of the answer.

    Raises:
        UserError: no such data set, configuration, split or field; no connection and no copy.
    """
    if name is None:
        raise UserError("data=translation_hub needs a data set: add data.name=OWNER/NAME or data.name=FOLDER.")
    reader, parts, notes, origins = _Reader(source, target), {}, list[str](), list[str]()
    for part, split in splits.items():
        rows, told, origin = hub.rows_of(
            name, config, split, revision, "use data=translation_jsonl data.path={file}, or name its folder"
        )
        records: Iterable[Record] = ((f"{name} (split {split}), row {i}", row) for i, row in enumerate(rows, 1))
        pairs = [reader.pair(place, record) for place, record in records]
        parts[part] = [pair for pair in pairs if all(pair)]
        if len(parts[part]) < len(pairs):
            told = [
                *told, f"Rows with an empty side were left out of {split}: {len(pairs) - len(parts[part]):,} of {len(pairs):,}.",
            ]  # fmt: skip
        notes += [note for note in told if note not in notes]
        origins.append(origin)
    sha256 = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return parts, DataSource(name, "; ".join(origins), sha256, notes=notes + reader.notes())
