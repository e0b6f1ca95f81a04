"""The JSON and CSV files of a data set of the Hub, or of a folder, without the types that `datasets` would guess.

`datasets` says which files belong to which split. It would then choose a type for each column from its rows: depending on its
version one `true` among texts turns each `yes` into `"yes"` with quotation marks, texts that look like dates become dates, and
a CSV column of digits becomes numbers. `dqnlm.data.rows` reads each value as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqnlm.data.rows import kind_of, rows_of_file
from dqnlm.data.text.reading import read_bytes
from dqnlm.errors import UserError

Row = dict[str, Any]
_EXAMPLE = '{"text": "one"}'
_UNTYPED = ("json", "json lines", "csv", "tsv")  # kinds of files that say nothing about the types of columns
# Settings that the card of a data set may give for its files -> what `rows_of_file` reads.
_READ_HERE: dict[str, tuple[Any, ...]] = {
    "field": (None,), "sep": (",", ";", "\t", "|"), "delimiter": (None, ",", ";", "\t", "|"), "header": ("infer", 0),
    "names": (None,), "column_names": (None,), "skiprows": (None, 0), "quotechar": ('"',), "usecols": (None,),
}  # fmt: skip


def untyped_rows(builder: Any, split: str, notes: list[str]) -> list[Row] | None:
    """The rows of a split, each with every column, None where it has no value.

    Args:
        builder: a `datasets.DatasetBuilder`.
        split: "train", "train[:10%]", "train+test", ...
        notes: for the user; what was done to read the files is added.

    Returns:
        None where the files have types of their own (parquet), are of another kind, or the card says how to read them.

    Raises:
        UserError: a file cannot be read.
    """
    import datasets

    files = {str(name): [str(file) for file in found] for name, found in (builder.config.data_files or {}).items()}
    names = [part.split("[")[0].strip() for part in split.split("+")]
    if any(name not in files for name in names) or not _are_read_here(builder.config, [f for n in names for f in files[n]]):
        return None
    rows = {name: _rows_of(files[name], notes) for name in dict.fromkeys(names)}
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(found) for name, found in rows.items()})
    return _with_all_columns([row for part in parts for row in rows[part.splitname][part.from_ : part.to]])


def _are_read_here(config: Any, files: Sequence[str]) -> bool:
    plain = all(getattr(config, name, values[0]) in values for name, values in _READ_HERE.items())
    return plain and bool(files) and all(kind_of(Path(file)) in _UNTYPED for file in files)


def _rows_of(files: Sequence[str], notes: list[str]) -> list[Row]:
    import datasets

    found: list[Row] = []
    for name, place in zip(files, datasets.DownloadManager().download(list(files)), strict=True):
        # On the Hub the name of what was downloaded may not tell the kind of the file.
        file = Path(place) if kind_of(Path(place)) == kind_of(Path(name)) else Path(Path(name).name)
        try:
            for where, row in rows_of_file(read_bytes(Path(place), "data.name"), file, _EXAMPLE, notes):
                if not isinstance(row, dict):
                    raise UserError(f"{where} is no object; write rows such as {_EXAMPLE}")
                found.append(row)
        except UserError as error:
            raise UserError(str(error).replace("data.path:", "data.name:", 1)) from error
    return found


def _with_all_columns(rows: list[Row]) -> list[Row]:
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]
