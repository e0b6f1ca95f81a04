"""Prompts to be answered, from a file or a data set: one text, or the messages of a conversation, and further columns.

`prompt` (or `messages`, or a line of a text file) is what the model reads. A reference answer, where there is one, stands in
`reference`. All other columns go to the reward as they are.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dqnlm.data import hub
from dqnlm.data.rows import ENDINGS, Record, kind_of, rows_of_file
from dqnlm.data.text.reading import read_bytes
from dqnlm.data.trajectories.files import DataSource
from dqnlm.errors import UserError
from dqnlm.utils.encoding import text_of

PROMPT, MESSAGES, REFERENCE = "prompt", "messages", "reference"
_TEXT = (".txt", ".text")
_EXAMPLE = '{"prompt": "Write a short poem about rain."}'


class Prompt(NamedTuple):
    """One prompt.

    Attributes:
        text: what is read; "" until the chat template has written `messages`.
        messages: turns of a conversation; None where the prompt is a text.
        reference: an answer; "" where there is none.
        columns: the other fields, for the reward.
        place: file and line, for messages.
    """

    text: str
    messages: list[dict[str, Any]] | None
    reference: str
    columns: dict[str, Any]
    place: str


def read(
    path: str | None, name: str | None, config: str | None, split: str, revision: str | None
) -> tuple[list[Prompt], DataSource]:
    """Reads prompts from a file, or from a data set of the Hub.

    Raises:
        UserError: neither is given, or both; no such file; a row without a prompt (with file and line).
    """
    if (path is None) == (name is None):
        raise UserError(
            "data=prompts needs a file (data.path=FILE.jsonl, .json, .csv, .parquet, or .txt with a prompt a line) or a data set "
            "(data.name=OWNER/NAME)" + ("" if path is None else ", and not both")
        )
    if path is not None:
        return _from_file(Path(path).expanduser())
    assert name is not None
    rows, notes, origin = hub.rows_of(name, config, split, revision, "name it with data.path={file}")
    found = _checked(((f"{name} (split {split}), row {i}", row) for i, row in enumerate(rows, 1)), name)
    digest = hashlib.sha256(json.dumps([prompt[:4] for prompt in found], default=str).encode()).hexdigest()
    return found, DataSource(name, origin, digest, notes=notes)


def _from_file(file: Path) -> tuple[list[Prompt], DataSource]:
    data = read_bytes(file, "data.path")
    notes = list[str]()
    source = DataSource(file.name, str(file.absolute()), hashlib.sha256(data).hexdigest(), notes=notes)
    if file.name.lower().removesuffix(".gz").endswith(_TEXT):
        return _checked(_lines(data, file, notes), str(file)), source
    if kind_of(file) is None:
        known = f"{ENDINGS} (or these and .gz), or {_TEXT[0]}"
        raise UserError(f"data.path: {file} is of no known kind; its name must end in {known}.")
    return _checked(rows_of_file(data, file, _EXAMPLE, notes), str(file)), source


def _lines(data: bytes, file: Path, notes: list[str]) -> Iterator[Record]:
    text, told = text_of(data, file, "data.path")
    notes += told
    return ((f"{file}, line {i}", {PROMPT: line}) for i, line in enumerate(text.splitlines(), 1) if line.strip())


def _checked(records: Iterable[Record], whole: str) -> list[Prompt]:
    found = [_prompt(place, record) for place, record in records]
    if not found:
        raise UserError(f"{whole} is empty: it holds no prompt. Name a file with at least two, one of which is held out.")
    return found


def _prompt(place: str, record: Any) -> Prompt:
    """Validates one row. Raises UserError with the place and the field."""
    if not isinstance(record, Mapping):
        raise UserError(f"{place} is no object: write {_EXAMPLE}")
    columns = {str(k): v for k, v in record.items() if k not in (PROMPT, MESSAGES, REFERENCE)}
    text, messages, reference = record.get(PROMPT), record.get(MESSAGES), record.get(REFERENCE)
    if isinstance(text, list) and messages is None:  # TRL calls the messages of a conversation `prompt` as well
        text, messages = None, text
    if reference is not None and not isinstance(reference, str):
        raise UserError(f"{place}: {REFERENCE} is {_shown(reference)}, not a text.")
    if (text is None) == (messages is None):
        raise UserError(_which(place, record, text is None))
    if messages is not None:
        return Prompt("", _messages(messages, place), reference or "", columns, place)
    if not isinstance(text, str) or not text:
        raise UserError(f"{place}: {PROMPT} is {_shown(text)}; it must be a text of at least one character.")
    return Prompt(text, None, reference or "", columns, place)


def _which(place: str, record: Mapping[str, Any], neither: bool) -> str:
    if not neither:
        return f"{place} has both {PROMPT} and {MESSAGES}; keep one of them."
    there = [str(name) for name, value in record.items() if value is not None]
    near = difflib.get_close_matches(PROMPT, there, n=1) or [n for n in there if n in ("question", "text", "input", "query")]
    hint = f" Rename {near[0]} to {PROMPT}." if near else ""
    return f"{place} has no {PROMPT} (nor {MESSAGES}); it has {', '.join(there) or 'nothing'}.{hint}"


def _messages(messages: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{place}: {MESSAGES} is {_shown(messages)}; it must be a list of turns.")
    for number, turn in enumerate(messages, 1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str):
            raise UserError(
                f'{place}, message {number} is {_shown(turn)}; write {{"role": "user", "content": "..."}}.'
            )
    if messages[-1]["role"] == "assistant":
        raise UserError(
            f"{place}: the last message is the assistant's; a prompt ends where the assistant is to answer. Drop that message "
            "(or learn from it: data=logged, with a reward)."
        )
    return [dict(turn) for turn in messages]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]} ..."
