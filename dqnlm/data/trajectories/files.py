"""Reads logged trajectories (prompt, completion, rewards) from a file or a data set."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dqnlm.data import hub
from dqnlm.data.rows import ENDINGS, Record, kind_of, rows_of_file
from dqnlm.data.text.reading import read_bytes
from dqnlm.data.trajectories.columns import trajectories_of
from dqnlm.data.trajectories.forms import FormSettings
from dqnlm.data.trajectories.records import Trajectory, content_sha256
from dqnlm.errors import UserError

_EXAMPLE = '{"prompt": "a", "completion": "bc", "reward": 1.0}'
_SHOWN = 5  # names of a folder, in messages


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


def read_file(
    path: str, forms: FormSettings | None = None, limit: int | None = None
) -> tuple[list[Trajectory], DataSource]:
    """Reads all trajectories of a file, or of all files of these kinds in a folder but hidden ones, in the order of their names.

    Args:
        path: of the file or folder; kinds are told by the ends of names (`FORMATS`, each also with .gz).
        forms: how other forms than the log's own are read (`forms`); what was found is noted there.
        limit: rows that are read, from the first; None for all.

    Raises:
        UserError: no such file, another kind of file, or a line that is wrong (with file, line and what is wrong).
    """
    whole = Path(path).expanduser()
    forms = FormSettings() if forms is None else forms
    (files, notes), left = _files_of(whole), limit
    found, digest, told = list[Trajectory](), hashlib.sha256(), list[str]()
    for file in files:
        data = read_bytes(file, "data.path")
        if kind_of(file) is None:
            raise UserError(f"data.path: {file} is of no known kind; its name must end in {ENDINGS} (or these and .gz).")
        if not data.strip():
            raise _empty(str(file))
        digest.update(data)
        more, rows = _checked(rows_of_file(data, file, _EXAMPLE, told), str(file), forms, left)
        found += more
        left = None if left is None else left - rows
        if left == 0:
            break
    _refuse_nothing(found, str(whole), forms)
    notes += [*told, *forms.notes(), *_limited(limit)]
    return found, DataSource(whole.name, str(whole.absolute()), digest.hexdigest(), notes=notes)


def _files_of(whole: Path) -> tuple[list[Path], list[str]]:
    """The files to be read, and notes about those of a folder that are not."""
    if not whole.is_dir():
        return [whole], []
    try:
        entries = sorted(whole.iterdir())
    except OSError as error:
        raise UserError(f"data.path: the folder {whole} cannot be read: {error.strerror}.") from error
    reasons = {entry: _why_not(entry) for entry in entries}
    files = [entry for entry, why in reasons.items() if why is None]
    if not files:
        there = ", ".join(entry.name for entry in entries[:_SHOWN]) or "nothing"
        raise UserError(
            f"data.path: the folder {whole} has no file that ends in {ENDINGS} (or these and .gz), hidden ones "
            f"aside; it holds {there}."
        )
    notes = [f"{len(files):,} file{'s' * (len(files) > 1)} of {whole.name}: {_names(files)}"]
    for why in dict.fromkeys(why for why in reasons.values() if why is not None):
        these = [entry for entry in entries if reasons[entry] == why]
        notes.append(f"{len(these):,} left out of {whole.name}, {why}: {_names(these)}")
    return files, notes


def _why_not(entry: Path) -> str | None:
    """Why an entry of a folder is not read; None where it is."""
    if entry.name.startswith("."):  # of editors and systems: `._a.jsonl` is what macOS adds to a.jsonl
        return "hidden"
    if entry.is_dir():
        return "a folder"
    if not entry.is_file():
        return "a link to nothing" if entry.is_symlink() else "no regular file"
    return None if kind_of(entry) is not None else "of another kind"


def _names(entries: list[Path]) -> str:
    """The first names, and how many more there are."""
    names = ", ".join(entry.name for entry in entries[:_SHOWN])
    return f"{names} and {len(entries) - _SHOWN:,} more" if len(entries) > _SHOWN else names


def read_hub(
    *, name: str, config: str | None, split: str, revision: str | None, forms: FormSettings | None = None,
    limit: int | None = None,
) -> tuple[list[Trajectory], DataSource]:
    """Reads all trajectories of a data set of the Hub, or of a local folder of data files; see `hub.hub`.

    Raises:
        UserError: no such data set, configuration or split; no connection and no copy; a row that is wrong.
    """
    rows, notes, origin = hub.rows_of(name, config, split, revision, "name it with data.path={file}")
    records = ((f"{name} (split {split}), row {number}", row) for number, row in enumerate(rows, 1))
    forms = FormSettings() if forms is None else forms
    found, _ = _checked(records, f"{name} (split {split})", forms, limit)
    _refuse_nothing(found, f"{name} (split {split})", forms)
    return found, DataSource(name, origin, content_sha256(found), notes=[*notes, *forms.notes(), *_limited(limit)])


def _limited(limit: int | None) -> list[str]:
    return [] if limit is None else [f"At most {limit:,} rows are read, from the first (data.limit)."]


def _checked(
    records: Iterable[Record], whole: str, forms: FormSettings, limit: int | None
) -> tuple[list[Trajectory], int]:
    """The trajectories of the first rows, and the number of these.

    Raises:
        UserError: none of them, or a row that is wrong.
    """
    if limit is not None and limit < 1:
        raise UserError(f"data.limit, how many rows are read, must be at least 1 (or null for all), not {limit}")
    found, rows = list[Trajectory](), 0
    for place, row in itertools.islice(records, limit):
        rows += 1
        found += trajectories_of(row, place, forms)
    if not rows:
        raise _empty(whole)
    return found, rows


def _refuse_nothing(found: list[Trajectory], whole: str, forms: FormSettings) -> None:
    """Raises UserError where rewards are unknown words, or where every row was left out."""
    forms.refuse_words()
    if not found:
        raise UserError(f"{whole}: no row can be used. {'; '.join(forms.notes())}.")


def _empty(whole: str) -> UserError:
    return UserError(f"{whole} is empty: it holds no trajectory. Name a file with at least one.")
