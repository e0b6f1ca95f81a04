"""Where the documents are: they are installed with the package, so that what messages name can be read without a checkout."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

PREFIX = "docs/"  # as files of configuration name them


def documents_folder() -> Path | None:
    """The folder of the documents and examples: of an installed package, or of a checkout; None where there is none."""
    package = Path(str(importlib.resources.files("dqnlm")))
    places = (package / "docs", package.parent / "docs")
    return next((folder for folder in places if (folder / "tutorial.md").is_file()), None)


def named_in(text: str) -> str | None:
    """A line that says where the documents are that a text names; None where it names none, or they are not installed."""
    folder = documents_folder() if PREFIX in text else None
    return None if folder is None else f"{PREFIX} is {folder}"
