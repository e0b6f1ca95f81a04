"""Annotations of settings that name files: what a parameter is annotated with decides how its value is treated.

    FilePath     a file or folder; a run keeps it whole (absolute), so that it can be resumed from anywhere
    PathOrName   a file or folder if there is one of that name, else a name that something else resolves (the Hub, a run)
    CodePath     FILE.py:NAME, code of the user's, kept whole; naming it for `dqnlm train` is the permission to run it
"""

from __future__ import annotations

from typing import NewType

FilePath = NewType("FilePath", str)
PathOrName = NewType("PathOrName", str)
CodePath = NewType("CodePath", str)
PATHS = (FilePath, PathOrName, CodePath)
