"""Reads logged trajectories (prompt, completion, rewards) from a file or a data set."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dqnlm.data import hub
from dqnlm.data.text.reading import missing_file
from dqnlm.data.trajectories.records import Trajectory, content_sha256, trajectory_of
from dqnlm.errors import UserError

Record = tuple[str, Any]  # where it stands ("FILE, line 3"), and what stands there
_EXAMPLE = '{"prompt": "a", "completion": "bc", "reward": 1.0}'
FORMATS = {".jsonl": "json lines", ".jsonl.gz": "json lines", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True)
class DataSource:
    """Origin of a data set; like `reading.TextSource`, without a text.

    Attributes:
        name: label in tables.
        origin: its file, address or settings.
        sha256: hex; of the file's bytes, else of what was read or generated.
        bundled: always False: a missing log has no fallback.
        notes: for the user, one sentence each.
    """

    name: str
    origin: str
    sha256: str
    bundled: bool = False
    notes: list[str] = field(default_factory=list)


def read_file(path: str) -> tuple[list[Trajectory], DataSource]:
    """Reads all trajectories of a .jsonl, .jsonl.gz, .json, .parquet or .csv file.

    Raises:
        UserError: no such file, another kind of file, or a line that is wrong (with file, line and what is wrong).
    """
    file = Path(path).expanduser()
    kind = next((kind for ending, kind in FORMATS.items() if file.name.lower().endswith(ending)), None)
    if file.is_dir():
        raise UserError(f"data.path: {file} is a folder. Name a file in it, or read the folder with data.name={file}.")
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise missing_file(file, "data.path") from error
    except OSError as error:
        raise UserError(f"data.path: {file} cannot be read: {error.strerror}.") from error
    if kind is None:
        raise UserError(f"data.path: {file} is of no known kind; its name must end in {', '.join(FORMATS)}.")
    if not data.strip():
        raise _empty(str(file))
    records = records_of_file(data, file, _EXAMPLE)
    source = DataSource(file.name, str(file.absolute()), hashlib.sha256(data).hexdigest())
    return _checked(records, str(file)), source


def records_of_file(data: bytes, file: Path, example: str) -> Iterator[Record]:
    """The rows of a file of one of `FORMATS`, with their places.

    Args:
        data: of the file.
        file: its name says what it is.
        example: a whole line, for messages.

    Raises:
        UserError: it cannot be read so.
    """
    kind = next(kind for ending, kind in FORMATS.items() if file.name.lower().endswith(ending))
    return json_lines(data, file, example) if kind == "json lines" else _table(data, file, kind)


def read_hub(*, name: str, config: str | None, split: str, revision: str | None) -> tuple[list[Trajectory], DataSource]:
    """Reads all trajectories of a data set of the Hub, or of a local folder of data files; see `hub.hub`.

    Raises:
        UserError: no such data set, configuration or split; no connection and no copy; a row that is wrong.
    """
    rows, notes, origin = hub.rows_of(name, config, split, revision, "name it with data.path={file}")
    records = ((f"{name} (split {split}), row {number}", row) for number, row in enumerate(rows, 1))
    found = _checked(records, f"{name} (split {split})")
    return found, DataSource(name, origin, content_sha256(found), notes=notes)


def json_lines(data: bytes, file: Path, example: str) -> Iterator[Record]:
    """Reads one object per line; blank lines are skipped.

    Args:
        data: of the file, packed where its name says so.
        file: for messages.
        example: a whole line, for messages.

    Raises:
        UserError: a line that is no JSON or no UTF-8, or a broken gzip file.
    """
    if file.name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, ValueError) as error:
            raise UserError(f"data.path: {file} is no complete gzip file: {error}.") from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            place = f"{file}, line {number}"
            try:
                yield place, json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(f"{place}: byte {error.start + 1} of the line is no UTF-8: {error.reason}.") from error
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{place} is no JSON: {error.msg} at column {error.colno}. Every line must be one whole object, such "
                    f"as {example}."
                ) from error
            except (ValueError, RecursionError) as error:
                raise UserError(f"{place} cannot be read as JSON: {error}.") from error


def _table(data: bytes, file: Path, kind: str) -> Iterator[Record]:
    """Rows of a JSON, parquet or CSV file, read by `datasets` from a copy (see `reading._document`)."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="dqnlm-") as folder:
        copy = Path(folder) / f"table.{kind}"
        copy.write_bytes(data)
        try:
            options = _csv_options(data) if kind == "csv" else {}
            rows = datasets.load_dataset(
                kind, data_files=str(copy), split="train", streaming=True, cache_dir=folder, **options
            )
            for number, row in enumerate(rows, 1):
                yield f"{file}, row {number}", _from_csv(row) if kind == "csv" else row
        except MemoryError:
            raise
        except Exception as error:  # as in hub._load: a dozen unrelated classes, all of them about this file
            causes = [str(e).strip() for e in (error, error.__cause__) if e is not None and str(e).strip()]
            raise UserError(f"data.path: {file} cannot be read as {kind}: {' / '.join(causes)}") from error


def _csv_options(data: bytes) -> dict[str, Any]:
    """Reads every column as text: a completion `12` stays a text, and `NA` is no missing value."""
    from datasets import Features, Value

    header = next(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    return {"features": Features({name: Value("string") for name in header}), "keep_default_na": False}


def _from_csv(row: Mapping[str, Any]) -> dict[str, Any]:
    """Converts numeric cells to numbers; an empty numeric cell is a missing value."""
    cells = dict(row)
    for name in ("reward", "rewards", "episode"):
        cell = cells.get(name)
        if isinstance(cell, str):
            with contextlib.suppress(ValueError):  # `trajectory_of` will say what is wrong with the text
                cells[name] = json.loads(cell) if cell.strip() else None
    return cells


def _checked(records: Iterable[Record], whole: str) -> list[Trajectory]:
    found = [trajectory_of(place, record) for place, record in records]
    if not found:
        raise _empty(whole)
    return found


def _empty(whole: str) -> UserError:
    return UserError(f"{whole} is empty: it holds no trajectory. Name a file with at least one.")
