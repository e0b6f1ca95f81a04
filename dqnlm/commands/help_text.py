"""Examples at the end of a command's help, one a line, as they can be typed."""

from __future__ import annotations

import argparse


class HelpFormatter(argparse.HelpFormatter):
    """Wraps texts, but for the lines of examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.split("\n\n")
        wrap = super()._fill_text
        return "\n\n".join(part if part.startswith("examples:") else wrap(part, width, indent) for part in parts)


def examples(*lines: str) -> str:
    """An epilog for `HelpFormatter`."""
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])
