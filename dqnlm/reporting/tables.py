"""Tables for the terminal: boxed and coloured on a screen, bare aligned columns when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dqnlm.reporting.compare import ABSENT

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MAX_CELL = 40  # characters of a cell on a screen; longer names and settings fold
PIPED_WIDTH = 10_000  # a pipe has no edge: nothing is wrapped or cut
STATUS_COLOURS = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "damaged": "red"}


def make_console() -> Console:
    """A console on standard output that neither colours nor wraps when piped."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH, no_color=True, highlight=False)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> None:
    """Prints rows of plain text. A screen too narrow gets fewer columns, the last ones left out and named below.

    Args:
        columns: headings.
        rows: cells as text, never markup.
        numbers: how many of the last columns hold numbers and stand to the right.
    """
    from rich.measure import Measurement

    left = len(columns) - numbers
    unlimited = console.options.update(width=PIPED_WIDTH)  # what the table would need, were there room
    shown = len(columns)
    table = _table(console, columns[:shown], rows, left)
    while console.is_terminal and shown > 2 and Measurement.get(console, unlimited, table).maximum > console.width:
        shown -= 1
        table = _table(console, columns[:shown], rows, left)
    console.print(table)
    if shown < len(columns):
        hidden = ", ".join(columns[shown:])
        console.print(f"No room for: {hidden}. A wider window shows them, and so does a pipe.", markup=False)


def _table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen = console.is_terminal
    table = Table(box=box.SIMPLE_HEAD if screen else None, show_edge=False, pad_edge=False, header_style="bold",
                  padding=(0, 1 if screen else 2, 0, 0))  # fmt: skip
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if index < left else "right", overflow="fold", no_wrap=not screen,
                         max_width=MAX_CELL if screen else None)  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell, style=STATUS_COLOURS.get(cell, "")) for cell in row[: len(columns)]))
    return table


def figure_text(value: Any) -> str:
    """Formats a metric: 4 decimals, fewer for large numbers; a dash where there is none."""
    if value is None:
        return ABSENT
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int) or (value == value and abs(value) < 1e15 and value == int(value) and abs(value) >= 1000):
        return f"{int(value):,}"
    if value != value or abs(value) >= 1e15 or 0 < abs(value) < 0.01:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def duration_text(seconds: float | None) -> str:
    """Formats a duration as h:min:s."""
    if seconds is None:
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
