"""Types of settings that are paths: as annotations of constructor parameters they say what a setting's text is."""

from __future__ import annotations

from typing import NewType

CodePath = NewType("CodePath", str)  # FILE.py:NAME, code of the user's; naming it on the command line permits to run it
