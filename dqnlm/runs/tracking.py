"""What the loggers of services that track runs share: the run's identity there, kept in its folder, and when nothing is sent."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.reading import read_object
from dqnlm.utils.files import write_json_atomic


def identity(folder: Path, service: str) -> tuple[str, bool]:
    """The run's name at the service, and whether it had one before; a resumed run is joined to what was sent then."""
    file = RunDirectory(folder).tracking
    known = read_object(file)
    if isinstance(known.get(service), str):
        return known[service], True
    name = secrets.token_hex(4)
    write_json_atomic(file, known | {service: name})
    return name, False


def label(folder: Path) -> str:
    """`<date>/<time>-<experiment>`, for people."""
    folder = folder.absolute()
    return f"{folder.parent.name}/{folder.name}"


def stays_here() -> bool:
    """Whether DQNLM_OFFLINE forbids the network."""
    return os.environ.get("DQNLM_OFFLINE", "") not in ("", "0")
