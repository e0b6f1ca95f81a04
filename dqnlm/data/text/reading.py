"""Reading one local text file, through `datasets`, and saying exactly what is wrong with one that cannot be read."""

from __future__ import annotations

import difflib
import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from dqnlm.errors import UserError


@dataclass(frozen=True)
class TextSource:
    """A text and where it came from.

    Attributes:
        text: the whole text; line breaks are "\\n".
        name: what a table calls it.
        origin: the file, address or settings that it came from.
        sha256: of `text` in UTF-8, hex; for a file without carriage returns this is the file's own.
        bundled: whether the grammar that comes with the program wrote it.
        notes: what a user should know, one sentence each; empty where all went as expected.
    """

    text: str = field(repr=False)
    name: str
    origin: str
    sha256: str
    bundled: bool = False
    notes: list[str] = field(default_factory=list)


def sha256_of(text: str) -> str:
    """Hex sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_text(path: str | Path, setting: str) -> tuple[str, list[str]]:
    """The text of a UTF-8 file, with universal line breaks, and notes about what reading changed.

    Args:
        path: the file; `~` is the home folder.
        setting: the key that named it, for messages, such as "data.path".

    Raises:
        UserError: the file is missing, a folder, unreadable, empty, or no UTF-8 (with byte offset and line).
    """
    file = Path(path).expanduser()
    data = read_bytes(file, setting)
    if not data.strip():
        what = "is empty" if not data else "holds nothing but white space"
        raise UserError(f"{setting}: {file} {what}. Name a file with some text in it.")
    _check_utf8(data, file, setting)
    notes = []
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        notes.append(f"{file}: the byte-order mark at the start was left out.")
    if b"\r" in data:
        notes.append(f"{file}: carriage returns were read as line breaks.")
    return _document(data), notes


def missing_file(file: Path, setting: str) -> UserError:
    """The error for a file that is not there, with the nearest name in its folder."""
    folder = file.parent
    if not folder.is_dir():
        return UserError(f"{setting}: there is no file {file}: the folder {folder} does not exist.")
    near = difflib.get_close_matches(file.name, [entry.name for entry in folder.iterdir()], n=1)
    hint = f"Did you mean {folder / near[0]}?" if near else "Check the path; it is relative to where the command runs."
    return UserError(f"{setting}: there is no file {file}. {hint}")


def read_bytes(file: Path, setting: str) -> bytes:
    """A file whole. Raises UserError where it is a folder, is not there, or cannot be read."""
    if file.is_dir():
        texts = sorted(entry.name for entry in file.iterdir() if entry.suffix == ".txt")
        hint = f"such as {file / texts[0]}" if texts else "not the folder"
        raise UserError(f"{setting}: {file} is a folder. Name a file in it, {hint}.")
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise missing_file(file, setting) from error
    except OSError as error:
        raise UserError(f"{setting}: {file} cannot be read: {error.strerror}.") from error


def _check_utf8(data: bytes, file: Path, setting: str) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        packed = data[:2] == b"\x1f\x8b"
        advice = (
            f"It is packed with gzip; unpack it first (gunzip {file.name})."
            if packed
            else f"Convert it first, for example: iconv -f LATIN1 -t UTF-8 {file.name}"
        )
        raise UserError(
            f"{setting}: {file} is no UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start:,} "
            f"(line {line:,}): {error.reason}. {advice}"
        ) from error


def _document(data: bytes) -> str:
    """The text of valid UTF-8 bytes as the one row that `datasets` makes of them.

    `datasets` reads a copy under a name of ours: it takes a path for a pattern (brackets, stars, "::"), and it keeps
    what it read under the file's time stamp, so that a changed file with an old stamp would come back as it was.
    """
    import datasets  # 0.8 s and more, so only where a text is read

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix="dqnlm-") as folder:
        copy = Path(folder) / "document.txt"
        copy.write_bytes(data)
        rows = datasets.load_dataset(
            "text",
            data_files=str(copy),
            split="train",
            sample_by="document",
            streaming=True,
            cache_dir=folder,
        )
        return "".join(row["text"] for row in rows)
