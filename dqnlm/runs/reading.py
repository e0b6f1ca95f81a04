"""JSON files of a run that may be missing or damaged: what can be done without them is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from dqnlm.utils.parsing import json_value


def read_object(path: Path) -> dict[str, Any]:
    """The object that a file holds; empty where the file is missing, damaged, not a file, or holds something else."""
    if not path.is_file():
        return {}
    try:
        value = json_value(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def object_at(found: dict[str, Any], key: str) -> dict[str, Any]:
    """The object below a key; empty where there is none."""
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def manifest_of(run: RunDirectory) -> dict[str, Any]:
    """What manifest.json holds; empty where it cannot be read."""
    return read_object(run.manifest)


def command_line(run: RunDirectory) -> list[str]:
    """The words of the command that began the run.

    Raises:
        UserError: manifest.json does not say.
    """
    words = manifest_of(run).get("command_line")
    if not isinstance(words, list) or not words:
        raise UserError(
            f"{run.manifest} is missing or damaged, so the command that began the run is not known; put the file back from a "
            "copy of the run"
        )
    return [str(word) for word in words]
