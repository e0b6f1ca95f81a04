"""`dqnlm report SWEEP`: the page about a sweep, and its tables on the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dqnlm.commands import train_sweep
from dqnlm.errors import UserError
from dqnlm.reporting.compare import check_figure, group_runs, main_figure
from dqnlm.reporting.curves import chart_png
from dqnlm.reporting.loading import RunData
from dqnlm.reporting.names import run_name
from dqnlm.reporting.sweep import SweepData, is_sweep
from dqnlm.reporting.sweep_page import build_sweep_page, shown_runs
from dqnlm.reporting.sweep_table import sentences
from dqnlm.utils.files import require_place, write_bytes_atomic, write_text_atomic


def find(names: Sequence[str], output_dir: Path) -> Path | None:
    """The sweep that the only name means: a folder, or one below the output folder; None where it means no sweep.

    Raises:
        UserError: a sweep among other names.
    """
    folders = [next((path for path in (Path(name), output_dir / name) if path.is_dir()), None) for name in names]
    sweeps = [path for path in folders if path is not None and is_sweep(path)]
    if sweeps and len(names) > 1:
        raise UserError(
            f"{sweeps[0]} is a sweep, which has a page of its own: dqnlm report {sweeps[0]}\n"
            f"  to compare some of its jobs with other runs, name the jobs' folders"
        )
    return sweeps[0] if sweeps else None


def main(folder: Path, arguments: argparse.Namespace) -> int:
    """Writes the page, by default `report.html` in the sweep's folder, and prints the tables. Returns the exit code, 0.

    Raises:
        UserError: no job has begun, an unknown metric, a damaged file, no place to write.
    """
    output = Path(arguments.output) if arguments.output else folder / "report.html"
    for target in [output, *([Path(arguments.png)] if arguments.png else [])]:
        require_place(target, "report.html")
    sweep = train_sweep.load(folder)
    if not sweep.jobs:
        raise UserError(f"{folder}: no job of this sweep has begun")
    runs = [run for run in shown_runs(sweep) if run.metric_names()]
    figure = _figure(sweep, runs, arguments.metric)
    train_sweep.print_jobs(sweep)
    print(*sentences(sweep), sep="\n", end="\n" if sweep.compared else "")
    best = sweep.best()
    if best is not None and best.command():
        print(f"best: {best.name}\n{best.command()}")
    try:
        write_text_atomic(output, build_sweep_page(sweep, run_name(folder, Path(arguments.output_dir)), figure))
        print(f"wrote {output}")
        if arguments.png and figure is not None:
            write_bytes_atomic(Path(arguments.png), chart_png(group_runs(runs), figure, arguments.axis))
            print(f"wrote {arguments.png}")
    except OSError as error:
        raise UserError(f"{error.filename or output} cannot be written: {error.strerror}. Choose --output.") from error
    return 0


def _figure(sweep: SweepData, runs: list[RunData], asked: str | None) -> str | None:
    """The metric of the curves: that which was asked for, else the objective; None where nothing was logged yet."""
    if asked is not None:
        check_figure(asked, runs)
        return asked
    return (sweep.objective or main_figure(runs)) if runs else None
