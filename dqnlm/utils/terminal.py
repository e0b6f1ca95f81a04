"""Output that no letter can end: what the encoding of the terminal lacks is replaced."""

from __future__ import annotations

import io
import sys


def replace_unknown_letters() -> None:
    """From here on stdout and stderr write `?` in the place of letters that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
