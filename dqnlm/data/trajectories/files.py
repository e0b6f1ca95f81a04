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
from dqnlm.data.text.reading import read_bytes
from dqnlm.data.trajectories.forms import REWARDS, FormSettings, records_of
from dqnlm.data.trajectories.records import Trajectory, content_sha256, trajectory_of
from dqnlm.errors import UserError

Record = tuple[str, Any]  # where it stands ("FILE, line 3"), and what stands there
_EXAMPLE = '{"prompt": "a", "completion": "bc", "reward": 1.0}'
FORMATS = {".jsonl": "json lines", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv"}  # each also with .gz
ENDINGS = ", ".join(FORMATS)  # in messages
_JSON_CELLS = ("reward", "rewards", "episode", "messages", "conversations", "turns")  # of CSV
_MAY_BE_MESSAGES = ("prompt", "completion", "chosen", "rejected")  # texts, or messages as JSON


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


def read_file(path: str, forms: FormSettings | None = None) -> tuple[list[Trajectory], DataSource]:
    """Reads all trajectories of a file, or of all files of these kinds in a folder, in the order of their names.

    Args:
        path: of the file or folder; kinds are told by the ends of names (`FORMATS`, each also with .gz).
        forms: how other forms than the log's own are read (`forms`); what was found is noted there.

    Raises:
        UserError: no such file, another kind of file, or a line that is wrong (with file, line and what is wrong).
    """
    whole = Path(path).expanduser()
    forms = FormSettings() if forms is None else forms
    files = _files_of(whole)
    found, digest = list[Trajectory](), hashlib.sha256()
    for file in files:
        data = read_bytes(file, "data.path")
        if kind_of(file) is None:
            raise UserError(f"data.path: {file} is of no known kind; its name must end in {ENDINGS} (or these and .gz).")
        if not data.strip():
            raise _empty(str(file))
        digest.update(data)
        found += _checked(records_of_file(data, file, _EXAMPLE), str(file), forms)
    _refuse_nothing(found, str(whole), forms)
    notes = [f"{len(files):,} files of {whole.name}: {', '.join(file.name for file in files[:5])}"] if whole.is_dir() else []
    return found, DataSource(whole.name, str(whole.absolute()), digest.hexdigest(), notes=[*notes, *forms.notes()])


def _files_of(whole: Path) -> list[Path]:
    if not whole.is_dir():
        return [whole]
    files = sorted(file for file in whole.iterdir() if file.is_file() and kind_of(file) is not None)
    if not files:
        there = ", ".join(sorted(file.name for file in whole.iterdir())[:5]) or "nothing"
        raise UserError(f"data.path: the folder {whole} has no file that ends in {ENDINGS} (or these and .gz); it holds {there}.")
    return files


def kind_of(file: Path) -> str | None:
    """The kind of a file by the end of its name; None for no known one."""
    name = file.name.lower().removesuffix(".gz")
    return next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)


def records_of_file(data: bytes, file: Path, example: str) -> Iterator[Record]:
    """The rows of a file of one of `FORMATS`, with their places.

    Args:
        data: of the file.
        file: its name says what it is.
        example: a whole line, for messages.

    Raises:
        UserError: it cannot be read so.
    """
    kind = kind_of(file)
    assert kind is not None, "the caller has asked"
    if kind == "json lines":
        return json_lines(data, file, example)
    return _table(_unpacked(data, file) if file.name.lower().endswith(".gz") else data, file, kind)


def _unpacked(data: bytes, file: Path) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"data.path: {file} is no complete gzip file: {error}.") from error


def read_hub(
    *, name: str, config: str | None, split: str, revision: str | None, forms: FormSettings | None = None
) -> tuple[list[Trajectory], DataSource]:
    """Reads all trajectories of a data set of the Hub, or of a local folder of data files; see `hub.hub`.

    Raises:
        UserError: no such data set, configuration or split; no connection and no copy; a row that is wrong.
    """
    rows, notes, origin = hub.rows_of(name, config, split, revision, "name it with data.path={file}")
    records = ((f"{name} (split {split}), row {number}", row) for number, row in enumerate(rows, 1))
    forms = FormSettings() if forms is None else forms
    found = _checked(records, f"{name} (split {split})", forms)
    _refuse_nothing(found, f"{name} (split {split})", forms)
    return found, DataSource(name, origin, content_sha256(found), notes=[*notes, *forms.notes()])


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
        data = _unpacked(data, file)
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
            is_csv = kind in ("csv", "tsv")
            options = _csv_options(data, "\t" if kind == "tsv" else ",") if is_csv else {}
            rows = datasets.load_dataset(
                "csv" if is_csv else kind, data_files=str(copy), split="train", streaming=True, cache_dir=folder, **options
            )
            for number, row in enumerate(rows, 1):
                yield f"{file}, row {number}", _from_csv(row) if is_csv else row
        except MemoryError:
            raise
        except Exception as error:  # as in hub._load: a dozen unrelated classes, all of them about this file
            causes = [str(e).strip() for e in (error, error.__cause__) if e is not None and str(e).strip()]
            raise UserError(f"data.path: {file} cannot be read as {kind}: {' / '.join(causes)}") from error


def _csv_options(data: bytes, separator: str) -> dict[str, Any]:
    """Reads every column as text: a completion `12` stays a text, and `NA` is no missing value."""
    from datasets import Features, Value

    header = next(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=separator))
    return {"features": Features({name: Value("string") for name in header}), "keep_default_na": False, "sep": separator}


def _from_csv(row: Mapping[str, Any]) -> dict[str, Any]:
    """Converts numeric cells to numbers and JSON cells to lists; empty ones of these, and of ratings, are missing values."""
    cells = dict(row)
    for name, cell in row.items():
        if not isinstance(cell, str):
            continue
        if not cell.strip() and name in (*_JSON_CELLS, *REWARDS, "label", "input"):
            cells[name] = None
            continue
        messages = name in _MAY_BE_MESSAGES and cell.lstrip().startswith("[{")
        with contextlib.suppress(ValueError):  # `trajectory_of` will say what is wrong with the text
            read = json.loads(cell) if name in _JSON_CELLS or messages else cell
            whole = not messages or all(isinstance(turn, dict) and "role" in turn for turn in read)
            cells[name] = read if whole else cell
    return cells


def _checked(records: Iterable[Record], whole: str, forms: FormSettings) -> list[Trajectory]:
    found, rows = list[Trajectory](), 0
    for place, row in records:
        rows += 1
        found += [trajectory_of(place, record) for record in records_of(row, place, forms)]
    if not rows:
        raise _empty(whole)
    return found


def _refuse_nothing(found: list[Trajectory], whole: str, forms: FormSettings) -> None:
    """Raises UserError where rewards are unknown words, or where every row was left out."""
    forms.refuse_words()
    if not found:
        raise UserError(f"{whole}: no row can be used. {'; '.join(forms.notes())}.")


def _empty(whole: str) -> UserError:
    return UserError(f"{whole} is empty: it holds no trajectory. Name a file with at least one.")
