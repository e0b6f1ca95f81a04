"""Rows of tables in files: JSON lines, JSON, CSV, TSV and parquet. A text is read as the text that stands there.

No column is given a type: a completion `12` in CSV is a text, `"2024-05-01"` in JSON too, and `true` among texts stays `true`, so
that who reads the rows can say that it is none. Only parquet has types of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from dqnlm.data.csv_rows import csv_rows, refuse_twice
from dqnlm.errors import UserError
from dqnlm.utils.encoding import PARQUET, text_of, unpacked

Record = tuple[str, Any]  # where it stands ("FILE, line 3"), and what stands there
FORMATS = {".jsonl": "json lines", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv"}  # each also with .gz
ENDINGS = ", ".join(FORMATS)  # in messages
_LISTS = ("data", "rows", "examples", "instances", "train")  # fields under which a JSON file may have its rows
_DIGITS = 4300  # of an integer; Python reads no more, and would advise to change Python
_LINE = re.compile(r"\r\n|\r|\n")  # JSON texts hold none of these unescaped


def kind_of(file: Path) -> str | None:
    """The kind of a file by the end of its name; None for no known one."""
    name = file.name.lower().removesuffix(".gz")
    return next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)


def rows_of_file(data: bytes, file: Path, example: str, notes: list[str]) -> Iterator[Record]:
    """The rows of a file of one of `FORMATS`, with their places.

    Args:
        data: of the file.
        file: its name says what it is; a parquet table is recognised under any.
        example: a whole line, for messages.
        notes: for the user; what was done to read it is added.

    Raises:
        UserError: it cannot be read so.
    """
    kind = kind_of(file)
    assert kind is not None, "the caller has asked"
    content, told = unpacked(data, file, "data.path")
    if kind == "parquet" or content.startswith(PARQUET):
        notes += told if kind == "parquet" else [*told, f"{file}: it is a parquet table, though its name says {kind}."]
        return _parquet(content, file)
    if kind == "json lines":
        return json_lines(data, file, example, notes)
    text = _text(data, file, notes)
    return _json(text, file, example, notes) if kind == "json" else csv_rows(text, file, "\t" if kind == "tsv" else ",", notes)


def json_lines(data: bytes, file: Path, example: str, notes: list[str]) -> Iterator[Record]:
    """Reads one object per line; blank lines are skipped. Arguments as of `rows_of_file`.

    Raises:
        UserError: a line that is no JSON, or a file that is no text.
    """
    for number, line in enumerate(_LINE.split(_text(data, file, notes)), 1):
        if line.strip():
            yield f"{file}, line {number}", _value(line, f"{file}, line {number}", example)


def _text(data: bytes, file: Path, notes: list[str]) -> str:
    text, told = text_of(data, file, "data.path")
    notes += told
    return text


def _value(text: str, place: str, example: str) -> Any:
    """One JSON value. Raises UserError with the place."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place} is no JSON: {error.msg} at column {error.colno}. Every line must be one whole object, such as {example}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} cannot be read as JSON: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} is there {names.count(twice)} times; keep one of them")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"the number {digits[:10]}... has {len(digits):,} digits; write at most {_DIGITS:,}")
    return int(digits)


def _json(text: str, file: Path, example: str, notes: list[str]) -> Iterator[Record]:
    """Rows of a JSON file: a list of objects, one of `_LISTS` that holds it, columns, one object, or one object a line."""
    try:
        whole = json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):  # a second object follows: one a line
            yield from ((f"{file}, row {i}", _value(line, f"{file}, line {n}", example)) for i, (n, line) in _lines(text))
            return
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"data.path: {file} cannot be read as json: {error.msg} at {where}. The file may be cut.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"data.path: {file} cannot be read as json: {error}.") from error
    for number, row in enumerate(_rows_in(whole, file, notes), 1):
        yield f"{file}, row {number}", row


def _lines(text: str) -> Iterator[tuple[int, tuple[int, str]]]:
    return enumerate(((n, line) for n, line in enumerate(_LINE.split(text), 1) if line.strip()), 1)


def _rows_in(whole: Any, file: Path, notes: list[str]) -> list[Any]:
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, Mapping) or not whole:
        return [whole]
    (first, *others) = whole
    if not others and first in _LISTS and isinstance(whole[first], list):
        return list(whole[first])
    tables = [name for name, value in whole.items() if _is_table(value)]
    if any(name in _LISTS for name in tables):
        return _rows_beside(whole, tables, file, notes)
    columns = list(whole.values())
    if all(isinstance(column, Mapping) for column in columns) and len({tuple(column) for column in columns}) == 1:
        columns = [list(column.values()) for column in columns]  # as pandas writes a table: row number -> cell
    flat = all(isinstance(c, list) and not any(isinstance(cell, Mapping | list) for cell in c) for c in columns)
    if flat and len({len(column) for column in columns}) == 1:
        return [dict(zip(whole, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return [whole]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _rows_beside(whole: Mapping[str, Any], tables: list[str], file: Path, notes: list[str]) -> list[Any]:
    """The one list of objects among other fields, which are named in a note. Raises UserError where there are several."""
    if len(tables) > 1:
        raise UserError(
            f"data.path: {file} has lists of objects under {' and '.join(tables)}: which one is meant? Write it to a file of "
            "its own."
        )
    (name,) = tables
    others = ", ".join(other for other in whole if other != name)
    notes.append(f"{file}: its rows are those under {name}; what stands beside them was not read: {others}.")
    return list(whole[name])


def _parquet(data: bytes, file: Path) -> Iterator[Record]:
    """Rows of a parquet file, read by `datasets` from a copy (see `reading._document`); decimal numbers as floats."""
    import datasets
    from pyarrow import parquet

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="dqnlm-") as folder, errors_only_raised():
        copy = Path(folder) / "table.parquet"
        copy.write_bytes(data)
        try:
            table = parquet.ParquetFile(copy)
            refuse_twice(table.schema_arrow.names, file)
            if table.metadata.num_rows == 0:
                return
            rows = datasets.load_dataset("parquet", data_files=str(copy), split="train", streaming=True, cache_dir=folder)
            for number, row in enumerate(rows, 1):
                yield f"{file}, row {number}", plain_numbers(row)
        except (MemoryError, UserError):
            raise
        except Exception as error:  # as in hub._load: a dozen unrelated classes, all of them about this file
            texts = [" ".join(str(e).split()) for e in (error, error.__cause__) if e is not None]
            why = " / ".join(text for text in texts if text).replace(str(copy), str(file)).rstrip(".")
            raise UserError(f"data.path: {file} cannot be read as parquet: {why}. Fetch or copy it again.") from error


@contextlib.contextmanager
def errors_only_raised() -> Iterator[None]:
    """Keeps `datasets` from printing what it raises."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)


def plain_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with decimal numbers as floats."""
    return {name: float(cell) if isinstance(cell, Decimal) else cell for name, cell in row.items()}
