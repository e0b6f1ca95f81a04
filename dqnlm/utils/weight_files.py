"""Files of weights that are not what their name says: a pointer of Git LFS, a download cut off, noise."""

from __future__ import annotations

import struct
from pathlib import Path

from dqnlm.errors import UserError
from dqnlm.utils.parsing import json_value

LFS = b"version https://git-lfs"
LONGEST_HEADER = 100_000_000  # bytes; that of the format itself


def require_readable(folder: str | Path, setting: str) -> None:
    """Looks at the first bytes of each .safetensors file of a folder; a name on the Hub is no folder, and passes.

    Raises:
        UserError: a file that cannot be one; `setting` names it, with what to do.
    """
    for path in sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []:
        problem = problem_of(path)
        if problem is not None:
            raise UserError(f"{setting}={folder}: {path.name} {problem}")


def problem_of(path: Path) -> str | None:
    """Why a .safetensors file cannot be read; None where its header fits its size.

    The format: the length of the header, 8 bytes little endian; the header, JSON; the numbers, up to the greatest of its offsets.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size == 0:
        return "is empty: download it again"
    with path.open("rb") as stream:
        begin = stream.read(len(LFS))
        if begin == LFS:
            return "is a pointer of Git LFS, not the weights themselves: fetch them with git lfs pull"
        stream.seek(0)
        length = struct.unpack("<Q", stream.read(8))[0] if size >= 8 else 0
        if not 2 <= length <= LONGEST_HEADER:
            return "is no safetensors file: download it again, or convert the model with save_pretrained"
        header = stream.read(length)
    try:
        ends = [part["data_offsets"][1] for name, part in json_value(header).items() if name != "__metadata__"]
        expected: int | None = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        expected = 8 + length if size < 8 + length else None
    if expected is None:
        return "is damaged (its header is no list of tensors): download it again"
    if size < expected:
        return f"was cut off: it has {size:,} bytes, and at least {expected:,} belong to it; download it again"
    return None
