"""Rows of CSV and TSV files, in the dialects of spreadsheets and data frames. Every cell is a text.

The separator is that of the file's kind, unless the header has none of these and has another (`;`, tab, `|`). A column without a
name is left out: data frames write their index so.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dqnlm.data.decimal_marks import Marks, marks_of, number_in
from dqnlm.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_JSON_CELLS = ("rewards", "messages", "conversations", "turns")
_NUMBERS = ("reward", "episode")  # where they can be read as such
_PAID = ("reward", "score", "rating")  # may have a decimal comma
_MISSING = (*_JSON_CELLS, *_NUMBERS, *_PAID, "label", "input")  # where the cell is empty
_MAY_BE_MESSAGES = ("prompt", "completion", "chosen", "rejected")  # texts, or messages as JSON
_BREAKS = re.compile(r"\s*[\r\n]+\s*")  # in names of columns
_BLANK = re.compile(r"(?:[ \t]*(?:\r\n|\r|\n))*")  # lines before the header
_JSON = re.compile(r"\s*(?:\[\s*)?\{\s*[\"}]|\s*\[\s*\]")


def csv_rows(text: str, file: Path, usual: str, notes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows with their places.

    Args:
        text: of the file.
        file: for messages.
        usual: the separator of its kind.
        notes: for the user; the dialect is added where it is another than usual.

    Raises:
        UserError: two columns of a name, a row with more cells than the header, quotation marks that do not fit, a comment in
            the place of the header, a number with a mark that may divide thousands, or a text that is JSON.
    """
    _refuse_json(text, file)
    csv.field_size_limit(sys.maxsize)  # the default refuses texts of 128 KiB
    said = re.match(r"sep=(.)(\r\n|\r|\n)", text)  # written for Excel
    separator, text = (said[1], text[said.end() :]) if said else (_separator(text, usual), text)
    if separator != usual:
        notes.append(f"{file}: its cells are separated by {SEPARATORS.get(separator, repr(separator))}.")
    lines = _cells(text, separator, file)
    _, header = next(((n, cells) for n, cells in lines if any(cell.strip() for cell in cells)), (1, list[str]()))
    names = [_BREAKS.sub(" ", name.strip()) for name in header]
    _refuse_comment(names[:1] if len(names) == 1 else [], file)
    refuse_twice(names, file)
    if unnamed := names.count(""):
        notes.append(f"{file}: {unnamed} columns without a name were left out (an index, as data frames write it).")
    columns, count = _Columns(text, separator, names, file), 0
    for number, cells in lines:
        if not any(cells):
            continue
        count += 1
        place = f"{file}, row {count}"
        if any(cell for cell in cells[len(names) :]):
            _refuse_comment(names, file)
            raise UserError(
                f"{place} (line {number}) has {len(cells)} cells, and the header has {len(names)}: put a text that holds "
                f"{separator!r} in quotation marks."
            )
        padded = cells + [None] * (len(names) - len(cells))
        row = {name: cell for name, cell in zip(names, padded, strict=False) if name}
        yield place, _typed(row, place, columns)


class _Columns:
    """What is known of whole columns, each read once, and only where a cell alone does not say what it is."""

    def __init__(self, text: str, separator: str, names: list[str], file: Path) -> None:
        self._table, self._names, self._marks = (text, separator, file), names, dict[str, Marks]()
        self.between_commas = separator == ","

    def marks(self, name: str) -> Marks:
        """Of a column's cells up to the first row that cannot be read."""
        if name not in self._marks:
            place, cells = self._names.index(name), list[str]()
            with contextlib.suppress(UserError):  # raised where that row is read, unless the rows are limited
                for _, row in _cells(*self._table):
                    cells += row[place : place + 1]
            self._marks[name] = marks_of(cells[1:])
        return self._marks[name]


def _separator(text: str, usual: str) -> str:
    begun = text[_BLANK.match(text).end() :]  # type: ignore[union-attr]  # it matches any text
    headers = {sign: next(csv.reader(io.StringIO(begun, newline=""), delimiter=sign), []) for sign in SEPARATORS}
    counts = {sign: len(cells) for sign, cells in headers.items()}
    return usual if counts[usual] > 1 else max(counts, key=lambda s: (counts[s], s == usual))


def _cells(text: str, separator: str, file: Path) -> Iterator[tuple[int, list[Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"data.path: {file} cannot be read as csv: the row that begins in line {begin}: {error}. A quotation mark inside "
                'a quoted cell is written twice ("").'
            ) from error
        if cells is None:
            return
        yield begin, cells


def _refuse_json(text: str, file: Path) -> None:
    """Raises UserError where the text is JSON, whatever the file's name says."""
    if _JSON.match(text) is None:
        return
    try:
        lines = isinstance(json.loads(text.strip().splitlines()[0]), dict)
    except (ValueError, RecursionError):
        lines = False
    packed = file.name[-3:] if file.name.lower().endswith(".gz") else ""
    name = f"{file.name.removesuffix(packed).rpartition('.')[0]}.{'jsonl' if lines else 'json'}{packed}"
    raise UserError(f"data.path: {file} is JSON, though its name says that it is a table of cells: rename it to {name}.")


def _refuse_comment(names: list[str], file: Path) -> None:
    """Raises UserError where the names are a comment."""
    if names and names[0].startswith("#"):
        raise UserError(
            f"data.path: {file} begins with {names[0][:60]!r}, which is read as the name of a column: a table begins with the "
            "names of its columns, so drop the lines before them."
        )


def refuse_twice(names: Sequence[str], file: Path) -> None:
    """Raises UserError where two columns have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        where = " and ".join(str(i) for i, name in enumerate(names, 1) if name == twice[0])
        raise UserError(f"data.path: {file} has {twice[0]!r} in columns {where}: which one is meant? Rename or drop the others.")


def _typed(row: Mapping[str, Any], place: str, columns: _Columns) -> dict[str, Any]:
    """Converts numeric cells to numbers and JSON cells to lists; empty ones of these, and of ratings, are missing values."""
    cells = dict(row)
    for name, cell in row.items():
        if cell is None:
            continue
        if not cell.strip() and name in _MISSING:
            cells[name] = None
            continue
        messages = name in _MAY_BE_MESSAGES and cell.lstrip().startswith("[{")
        if name in _PAID:
            marks = functools.partial(columns.marks, name)
            cells[name] = number_in(cell, f"{place}: {name}", columns.between_commas, marks)
            if cells[name] != cell:
                continue
        with contextlib.suppress(ValueError, RecursionError):  # who reads the rows will say what is wrong with the text
            if name in _NUMBERS:
                cells[name] = json.loads(cell)
            elif name in _JSON_CELLS or messages:
                read = json.loads(cell)
                whole = not messages or all(isinstance(turn, dict) and "role" in turn for turn in read)
                cells[name] = read if whole else cell
    return cells
