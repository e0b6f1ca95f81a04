"""Loads a text from the Hugging Face Hub, or from a local folder of data files.

`datasets` finds the files of a split, and reads those that have types of their own; JSON and CSV are read by `hub_files`.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dqnlm.data.hub_files import untyped_rows
from dqnlm.data.rows import errors_only_raised
from dqnlm.data.text.reading import TextSource, sha256_of
from dqnlm.errors import UserError
from dqnlm.utils import hub as the_hub

Rows = Sequence[Mapping[str, Any]]  # a list, or a `datasets.Dataset`

_SHOWN = 60  # characters of a value, in messages


def hub(*, name: str | None, config: str | None, split: str, text_column: str, revision: str | None) -> TextSource:
    """Loads the rows of one text column, in order, joined by a blank line.

    An existing folder is read from the disk, without a cache. Any other name is looked up on the Hub; where
    the Hub does not answer within 3 s, or HF_HUB_OFFLINE or DQNLM_OFFLINE is set, only a copy that `datasets` kept
    from an earlier run is used, and the notes say so.

    Args:
        name: OWNER/NAME on the Hub, or a folder.
        config: the data set's configuration; None: its only one.
        split: "train", "train[:10%]", ...
        text_column: a column of strings; rows without a value are left out and counted in the notes.
        revision: branch, tag or commit; None: the newest.

    Raises:
        UserError: no such data set, configuration, split or column; no connection and no copy; no text in it.
    """
    if name is None:
        raise UserError("data=hub needs a data set: add data.name=OWNER/NAME or data.name=FOLDER.")
    rows, notes, origin = rows_of(
        name, config, split, revision, "use data=text_file data.path={file}, or name its folder"
    )
    text = _joined(rows, name, text_column, notes)
    return TextSource(
        text=text, name=name, origin=f"{origin}, column {text_column}", sha256=sha256_of(text), notes=notes
    )


def rows_of(
    name: str, config: str | None, split: str, revision: str | None, for_a_file: str
) -> tuple[Rows, list[str], str]:
    """All rows of a split, notes for the user, and the origin. `name` is resolved as by `hub`.

    Args:
        name, config, split, revision: as for `hub`.
        for_a_file: message for a user who names a file; `{file}` stands for it.

    Raises:
        UserError: no such data set, configuration or split; no connection and no copy.
    """
    folder = Path(name).expanduser()
    notes: list[str] = []
    if folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="dqnlm-") as cache:
            options = {"cache_dir": cache, "keep_in_memory": True}
            rows = load(str(folder.absolute()), config, split, None, options, notes)
    elif name.startswith((".", "/", "~")):
        raise _missing_folder(folder, for_a_file)
    else:
        rows = load_from_hub(name, config, split, revision, notes)
    parts = [str(folder.absolute()) if folder.is_dir() else f"Hugging Face Hub {name}"]
    parts += [f"{key} {value}" for key, value in (("config", config), ("revision", revision)) if value is not None]
    return rows, notes, ", ".join([*parts, f"split {split}"])


def load_from_hub(name: str, config: str | None, split: str, revision: str | None, notes: list[str]) -> Rows:
    """Loads a data set of the Hub, or its local copy where the Hub cannot be reached, which is added to the notes.

    Raises:
        UserError: it cannot be read, or the Hub is out of reach and there is no copy.
    """
    reason = the_hub.why_not("HF_DATASETS_OFFLINE")
    if reason is None:
        return load(name, config, split, revision, {}, notes)
    try:
        with the_hub.local_copies():
            rows = _load_copy(name, config, split, revision, notes)
    except UserError as error:
        if not isinstance(error.__cause__, ConnectionError):
            raise  # there is a copy, and something else is wrong, such as the name of the split
        raise UserError(
            f"data.name: {name} cannot be fetched: {reason}, and this machine has no copy of it. Connect to the "
            "network, or name a local folder or file (data=text_file data.path=FILE)."
        ) from error
    notes.append(f"{name} was read from this machine's copy: {reason}.")
    return rows


def _load_copy(name: str, config: str | None, split: str, revision: str | None, notes: list[str]) -> Rows:
    """The files that were downloaded before; where there are none, or not all, the table that `datasets` made of them."""
    kept = _kept(name, revision)
    if kept is not None:
        with contextlib.suppress(UserError):
            return load(kept, config, split, None, {}, notes)
    return load(name, config, split, revision, {}, notes)


def _kept(name: str, revision: str | None) -> str | None:
    """The folder with the files of a data set of the Hub that were downloaded before; None where there is none."""
    import huggingface_hub

    try:
        return huggingface_hub.snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
    except (OSError, ValueError):  # no such copy, or no name of a data set
        return None


def load(
    name: str, config: str | None, split: str, revision: str | None, options: dict[str, Any], notes: list[str]
) -> Rows:
    """The rows of a split; errors of `datasets` as one message.

    Raises:
        UserError: the data set cannot be read.
    """
    import datasets  # 0.8 s and more, so only where a text is read

    datasets.disable_progress_bars()
    try:
        with errors_only_raised():
            builder = datasets.load_dataset_builder(name, config, revision=revision, cache_dir=options.get("cache_dir"))
            rows = untyped_rows(builder, split, notes)
            return datasets.load_dataset(name, config, split=split, revision=revision, **options) if rows is None else rows
    except (MemoryError, UserError):
        raise
    except Exception as error:  # `datasets` raises a dozen unrelated classes, all of them about this data set
        cause = f" ({' '.join(str(error.__cause__).split())})" if error.__cause__ is not None else ""
        raise UserError(
            f"data set {name} (data.config={config}, split {split}, data.revision={revision}) cannot be read: "
            f"{' '.join(str(error).split())}{cause}"
        ) from error


def _columns(rows: Rows) -> list[str]:
    if isinstance(rows, list):
        return list(rows[0]) if rows else []
    return list(rows.column_names)  # type: ignore[attr-defined]


def _joined(rows: Rows, name: str, text_column: str, notes: list[str]) -> str:
    """The text of a column; appends to `notes` the changes and omissions."""
    columns = _columns(rows)
    if text_column not in columns:
        near = difflib.get_close_matches(text_column, columns, n=1)
        hint = f" Did you mean data.text_column={near[0]}?" if near else ""
        raise UserError(f"data.text_column: {name} has no column {text_column!r}; it has {', '.join(columns)}.{hint}")
    values = [row[text_column] for row in rows]
    texts = [value for value in values if isinstance(value, str)]
    empty = sum(value is None for value in values)
    if len(texts) + empty < len(values):
        row, value = next((i, v) for i, v in enumerate(values, 1) if not isinstance(v, str | None))
        shown = json.dumps(value, default=str, ensure_ascii=False)[:_SHOWN]
        raise UserError(
            f"data.text_column: column {text_column!r} of {name} is no text: row {row} has {shown}. Put it in quotation marks, "
            "or leave the row out."
        )
    text = "\n\n".join(texts)
    if not text.strip():
        raise UserError(f"data set {name} has no text: {len(values):,} rows in column {text_column!r}.")
    if empty:
        notes.append(f"Rows without a value were left out: {empty:,} of {len(values):,}.")
    if "\r" in text:
        notes.append("Carriage returns were read as line breaks.")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _missing_folder(folder: Path, for_a_file: str) -> UserError:
    siblings = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    hint = f" Did you mean {folder.parent / near[0]}?" if near else ""
    if folder.is_file():
        hint = f" It is a file: {for_a_file.format(file=folder)}."
    return UserError(f"data.name: there is no folder {folder}.{hint}")
