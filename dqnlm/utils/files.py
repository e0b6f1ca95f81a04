"""Atomic writes: a temporary file beside the target, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from dqnlm.errors import UserError


def require_place(target: Path, example: str) -> None:
    """Raises UserError where a file cannot be written: `target` is a folder, or its folder does not exist."""
    if target.is_dir():
        raise UserError(f"{target} is a folder. Name a file in it, for example {target / example}.")
    if not target.parent.is_dir():
        raise UserError(f"{target} cannot be written: there is no folder {target.parent}. Make it, or name another.")


def require_regular(path: Path) -> None:
    """Raises UserError where a pipe or a device lies in the place of a file: reading it, or opening it, may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is no regular file but a pipe or a device: move it away, and put the file in its place")


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`, or leaves the old file; no reader ever sees a partial file.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the temporary file is removed.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """As `write_bytes_atomic`, UTF-8."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path, value: Any) -> None:
    """As `write_bytes_atomic`, indented JSON with a final line break."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes. Raises UserError where it is no regular file."""
    require_regular(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_place(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, or of the names and bytes of all files of a folder that are not hidden."""
    if not path.is_dir():
        return sha256_of_file(path)
    files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    shown = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    listed = "".join(f"{file.as_posix()}\0{sha256_of_file(path / file)}\n" for file in shown)
    return hashlib.sha256(listed.encode()).hexdigest()


def fsync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
