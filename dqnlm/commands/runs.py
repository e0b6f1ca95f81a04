"""`dqnlm runs`: a table of every run below the output folder. Reads only the ends of files and does not import torch."""

from __future__ import annotations

import argparse
import difflib
import json
import math
from pathlib import Path
from typing import Any

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.errors import UserError
from dqnlm.reporting.loading import is_number, read_manifest, read_status, read_summary, read_tail
from dqnlm.reporting.names import run_name
from dqnlm.reporting.tables import duration_text, figure_text, make_console, print_table

FIGURES = ("eval/accuracy", "eval/nll", "eval/return")
BEST, BEST_METRIC = "best", "best_metric"  # the greatest (or least) value, and of which figure: evaluation.best_metric
WIDE = 150  # characters of a screen that has room for every column and its whole heading
KEYS = ("name", "experiment", "status", "step", "wall_s", *FIGURES, BEST, BEST_METRIC)


def main(argv: list[str]) -> int:
    """Prints the table, newest run last, or JSON with --json. Returns the exit code, 0.

    Raises:
        UserError: --sort names no column, or the output folder is not there.
    """
    arguments = _parser().parse_args(argv)
    _check_key(arguments.sort)
    output_dir = Path(arguments.output_dir)
    rows = _sorted([describe(path, output_dir) for path in _list(output_dir)], arguments.sort)
    if arguments.json:
        print(json.dumps([_finite(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False))
    elif not rows:
        print(f"No runs below {output_dir} yet. Make the first one with: dqnlm train +experiment=shakespeare")
    else:
        _print(rows)
    return 0


def describe(path: Path, output_dir: Path) -> dict[str, Any]:
    """Summary of one run: the keys of `KEYS` and `problem`, the reading error (None without one).

    A figure is the last one evaluated; None where there is none. `step` is in updates, `wall_s` in seconds.
    """
    row: dict[str, Any] = {key: None for key in KEYS} | {"name": run_name(path, output_dir), "problem": None}
    try:
        summary = read_summary(path)
        row["status"] = read_status(path, summary)
        manifest = read_manifest(path)
        points = read_tail(path / "metrics.jsonl", [])
    except UserError as error:
        # One damaged run must not hide the others: it is listed as damaged, with the reason below the table.
        return row | {"status": "damaged", "problem": str(error)}
    row["experiment"] = (manifest.get("choices") or {}).get("experiment")
    recorded = {**((summary or {}).get("totals") or {}), **((summary or {}).get("last") or {})}
    for key in ("step", "wall_s", *FIGURES):
        logged = next((point[key] for point in reversed(points) if is_number(point.get(key))), None)
        row[key] = recorded.get(key) if logged is None else logged
    # Without a summary the best figure would need the whole file.
    row[BEST_METRIC] = (summary or {}).get(BEST_METRIC)
    row[BEST] = ((summary or {}).get("best") or {}).get(row[BEST_METRIC])
    return row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm runs",
        description="List every run, newest last: status, progress, and its last and best metrics. "
        "Status: finished, interrupted, failed; running or unknown (killed) for a run that wrote no summary; damaged.",
        epilog=examples("dqnlm runs"), formatter_class=HelpFormatter,
    )
    parser.add_argument("--output-dir", default="outputs", metavar="DIR", help="where runs are (default: %(default)s)")
    parser.add_argument("--sort", metavar="KEY", help=f"ascending, runs without a value first: {', '.join(KEYS)}")
    parser.add_argument("--json", action="store_true", help="a JSON list instead; a value that is not finite is null")
    return parser


def _check_key(key: str | None) -> None:
    if key is None or key in KEYS:
        return
    near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"--sort {key}: no such column.{hint} There are: {', '.join(KEYS)}.")


def _list(output_dir: Path) -> list[Path]:
    from dqnlm.runs.directory import list_runs

    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output-dir {output_dir} is a file, not a folder of runs.")
    return list_runs(output_dir) if output_dir.exists() else []


def _sorted(rows: list[dict[str, Any]], key: str | None) -> list[dict[str, Any]]:
    if key is None:
        return rows

    def place(row: dict[str, Any]) -> tuple[bool, Any]:
        value = row[key]
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        return (not missing, 0 if missing else value)

    # Values and missing ones are never compared: the flag settles it.
    return [*sorted((row for row in rows if not place(row)[0]), key=lambda row: row["name"]),
            *sorted((row for row in rows if place(row)[0]), key=place)]  # fmt: skip


def _print(rows: list[dict[str, Any]]) -> None:
    console = make_console()
    # The name of a run says its experiment too; a narrow screen needs the room for figures.
    narrow = console.is_terminal and console.width < WIDE
    told = [] if narrow else ["experiment"]
    keys = [*FIGURES, BEST, *([] if narrow else [BEST_METRIC])]
    cells = [
        [str(row["name"]), *(figure_text(row[key]) for key in told), str(row["status"]), figure_text(row["step"]),
         duration_text(row["wall_s"]), *(figure_text(row[key]) for key in keys)]
        for row in rows
    ]  # fmt: skip
    headings = [key.removeprefix("eval/") if narrow else key.replace(BEST_METRIC, "of") for key in keys]
    columns = ["run", *told, "status", "updates", "wall time", *headings]
    print_table(console, columns, cells, numbers=2 + len(keys))
    for row in rows:
        if row["problem"]:
            console.print(f"note: {row['name']}: {row['problem']}", markup=False, highlight=False)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
