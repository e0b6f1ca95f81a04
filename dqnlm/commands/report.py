"""`dqnlm report RUN...`: writes a page about one run, a comparison of several, or a sweep, and prints a table."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dqnlm.commands import report_sweep
from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.errors import UserError
from dqnlm.reporting.compare import (
    ABSENT,
    check_figure,
    columns_of,
    differing,
    group_runs,
    main_figure,
    run_settings,
    telling,
    value_of,
    warnings,
)
from dqnlm.reporting.curves import AXES, chart_png, require_matplotlib
from dqnlm.reporting.loading import RunData, load_run
from dqnlm.reporting.names import run_name
from dqnlm.reporting.tables import duration_text, figure_text, make_console, print_table
from dqnlm.utils.files import require_place, write_bytes_atomic, write_text_atomic

TERMINAL_SETTINGS = 3  # columns of settings that a terminal has room for; the page shows all


def main(argv: list[str]) -> int:
    """Writes report.html, and a PNG when asked, and prints the comparison. Returns the exit code, 0.

    Raises:
        UserError: a run that is not there or damaged, an unknown figure, no matplotlib, no place to write.
    """
    arguments = _parser().parse_args(argv)
    require_matplotlib()
    if arguments.watch:
        from dqnlm.commands import report_watch

        return report_watch.main(arguments.runs, arguments)
    sweep = report_sweep.find(arguments.runs, Path(arguments.output_dir))
    if sweep is not None:
        return report_sweep.main(sweep, arguments)
    paths = _find(arguments.runs, Path(arguments.output_dir))
    output = Path(arguments.output) if arguments.output else _default_output(paths, Path(arguments.output_dir))
    for target in [output, *([Path(arguments.png)] if arguments.png else [])]:
        require_place(target, "report.html")
    runs = [load_run(path, run_name(path, Path(arguments.output_dir))) for path in paths]
    metric = arguments.metric or main_figure(runs)
    check_figure(metric, runs)
    _print_comparison(runs, metric)
    _write(runs, metric, output, Path(arguments.png) if arguments.png else None, arguments.axis)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm report",
        description="Write one self-contained page about runs: metrics, curves, samples, settings. Several runs are "
        "compared by the settings in which they differ; seeds of the same settings become one curve with a band. Of a sweep: its "
        "jobs, parallel coordinates, the importance of each setting, and the best command.",
        epilog=examples("dqnlm report latest"), formatter_class=HelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a folder, `latest`, or a unique prefix of a run's name; "
                        "or the folder of a sweep")  # fmt: skip
    parser.add_argument("--output", metavar="FILE", help="path of the page (default: report.html in the run's "
                        "folder; for several runs in the output folder, or in the one that holds them all)")  # fmt: skip
    parser.add_argument(
        "--metric",
        help="the metric that comes first (default: eval/accuracy where a run has it, else eval/return, else the first that "
        "the run's evaluator declares a direction of)",
    )
    parser.add_argument(
        "--axis", choices=tuple(AXES), default="step", help="what the PNG is drawn against (default: step)"
    )
    parser.add_argument("--png", metavar="FILE", help="also write the curve of --metric as a PNG picture")
    parser.add_argument("--output-dir", default="outputs", metavar="DIR", help="where runs are (default: %(default)s)")
    live = parser.add_argument_group("a live page of one run")
    live.add_argument("--watch", action="store_true", help="serve a page to this machine that follows the run while it trains: "
                      "curves, samples, and the inspector on the newest checkpoint; Ctrl-C ends it")  # fmt: skip
    live.add_argument("--port", type=int, default=0, help="of the page (default: any that is free)")
    live.add_argument("--allow-targets", action="append", default=[], metavar="MODULE", help="permit code of the run outside "
                      "dqnlm, for the inspector")  # fmt: skip
    live.add_argument("--base", metavar="FOLDER", help="where the pretrained model of a LoRA run is now, for the inspector")
    return parser


def _find(names: list[str], output_dir: Path) -> list[Path]:
    from dqnlm.runs.directory import find_run

    paths = [find_run(name, output_dir) for name in names]
    return list({path.resolve(): path for path in paths}.values())  # a run named twice counts once


def _default_output(paths: list[Path], output_dir: Path) -> Path:
    """The default path: in the run's folder; for several runs in the output folder, or their common folder."""
    if len(paths) == 1:
        return paths[0] / "report.html"
    real = [path.resolve() for path in paths]
    if all(path.is_relative_to(output_dir.resolve()) for path in real):
        return output_dir / "report.html"
    return Path(os.path.commonpath([path.parent for path in real])) / "report.html"


def _write(runs: list[RunData], figure: str, output: Path, png: Path | None, axis: str) -> None:
    from dqnlm.reporting.html import build_page

    try:
        write_text_atomic(output, build_page(runs, figure))
        print(f"wrote {output}")
        if png is not None:
            write_bytes_atomic(png, chart_png(group_runs(runs), figure, axis))
            print(f"wrote {png}")
    except OSError as error:
        raise UserError(f"{error.filename or output} cannot be written: {error.strerror}. Choose --output.") from error


def _print_comparison(runs: list[RunData], figure: str) -> None:
    console = make_console()
    keys = telling(differing(runs), runs)
    shown = keys if not console.is_terminal else keys[:TERMINAL_SETTINGS]
    seeds = ["seed"] if len({run_settings(run).get("seed") for run in runs}) > 1 else []
    metrics = columns_of(runs, figure)
    # What matters least stands last: a narrow screen leaves it out.
    headings = [f"{name.removeprefix('eval/')} {kind}" for name, kinds in metrics for kind in kinds]
    numbers = [*headings, "status", "updates", "wall time"]
    rows = []
    for run in runs:
        settings = run_settings(run)
        row = [run.name, *(settings.get(key, ABSENT) for key in shown + seeds)]
        row += [figure_text(value_of(run, name, kind)) for name, kinds in metrics for kind in kinds]
        row += [run.status, figure_text(run.last("step")), duration_text(run.last("wall_s"))]
        rows.append(row)
    print_table(console, ["run", *shown, *seeds, *numbers], rows, numbers=len(numbers))
    if len(shown) < len(keys):
        console.print(f"{len(keys) - len(shown)} more settings differ: see the page.", markup=False)
    for message in warnings(runs):
        console.print(f"note: {message}", markup=False, highlight=False)
