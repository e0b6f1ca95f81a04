"""`dqnlm compare`: algorithms on tasks with several seeds, as sweeps of `dqnlm train -m`; tables, files and a figure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dqnlm.errors import UserError

if TYPE_CHECKING:
    from dqnlm.reporting.comparison import Result

INTERRUPTED = 130
FILES = {"markdown": "comparison.md", "csv": "runs.csv", "json": "comparison.json", "png": "comparison.png"}
DESCRIPTION = """Trains each algorithm on each task with each seed, and prints the mean, the interquartile mean and its 95 %
stratified bootstrap interval of a metric of the evaluation. A failed run is reported, and the others continue.

A task is an experiment (dqnlm configs experiment), or LABEL=EXPERIMENT,KEY=VALUE,... for one with settings of its
own; it is one sweep, `dqnlm train -m +experiment=E algorithm=A,B seed=0,1,2`, below OUTPUT_DIR/LABEL. KEY=VALUE alone is
a setting of all runs; threads=1, logger=none and progress=false are set unless given."""
EPILOG = """examples:
  dqnlm compare --tasks random_walks --algorithms cql,ilql,mc_q
  dqnlm compare --tasks random_walks cartpole --algorithms dqn,double_dqn --seeds 0,1,2,3,4 --png comparison.png
  dqnlm compare --tasks g0=random_walks,env.graph_seed=1000 g2=random_walks,env.graph_seed=1002 --algorithms cql,dqn
  dqnlm compare --tasks debug/smoke --algorithms dqn,c51 --seeds 0,1 trainer.rollouts=3   # seconds
  dqnlm compare --tasks debug/smoke --algorithms dqn,c51 --seeds 0,1 trainer.rollouts=3 --reuse --csv runs.csv

Several runs at a time: pip install 'dqnlm[joblib]', then add hydra/launcher=joblib hydra.launcher.n_jobs=4.
exit code: 0; 1 where a run failed; 2 after a mistake in the command; 130 after Ctrl-C, which leaves what finished."""


def main(argv: list[str]) -> int:
    """Trains, prints the tables and writes the files; returns 0, 1 where a run failed, or 130.

    Raises:
        UserError: a mistake in the command, before anything is trained; or a metric that no run has.
    """
    options = _parser().parse_intermixed_args(argv)
    from dqnlm.commands.compare_plan import make_plan
    from dqnlm.commands.compare_sweeps import Comparison, Interrupted
    from dqnlm.reporting.comparison import require_metric

    _check_files(options)
    plan = make_plan(
        options.tasks, options.algorithms, options.seeds, options.overrides, Path(options.output_dir),
        options.config_dir,
    )  # fmt: skip
    plan.check()
    try:
        results = Comparison(plan, options.metric, options.at).run(options.reuse)
    except KeyboardInterrupt as stop:
        print("\ninterrupted; the same command with --reuse continues from here", file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else INTERRUPTED
    require_metric(results, options.metric, options.at)
    _print(results, options)
    _write(results, options)
    return int(any(result.error is not None for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm compare", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="dqnlm compare --tasks TASK [TASK ...] --algorithms A,B [--seeds 0,1,2] [flags] [KEY=VALUE ...]",
    )  # fmt: skip
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings of all runs, and hydra/launcher=..."
    )
    parser.add_argument(
        "--tasks", nargs="+", required=True, metavar="TASK", help="EXPERIMENT or LABEL=EXPERIMENT,KEY=VALUE,..."
    )
    parser.add_argument("--algorithms", required=True, metavar="A,B", help="presets: dqnlm configs algorithm")
    parser.add_argument("--seeds", default="0,1,2", metavar="S,S", help="default: %(default)s")
    parser.add_argument(
        "--metric", default="eval/return", metavar="NAME", help="the compared metric (default: %(default)s)"
    )
    parser.add_argument("--at", choices=("last", "best"), default="last",
                        help="its last evaluation, or the best by evaluation.best_metric (default: last)")  # fmt: skip
    parser.add_argument("--output-dir", default="outputs/compare", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--reuse", action="store_true",
                        help="read finished runs of the same settings and train the rest; whether dqnlm itself or the "
                        "data have changed since is not looked at")  # fmt: skip
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own options")
    parser.add_argument("--png", metavar="FILE", help="draw a picture: runs, intervals and interquartile means")
    parser.add_argument("--json", metavar="FILE", help="write all numbers: by task and algorithm, and of each run")
    parser.add_argument("--csv", metavar="FILE", help="write a line for each run")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables")
    return parser


def _check_files(options: argparse.Namespace) -> None:
    """Raises UserError for file problems that would otherwise appear only after hours of training."""
    from dqnlm.reporting.curves import require_matplotlib
    from dqnlm.utils.files import require_place

    for name, example in FILES.items():
        if getattr(options, name) is not None:
            require_place(Path(getattr(options, name)), example)
    if options.png is not None:
        require_matplotlib("--png")


def _print(results: Sequence[Result], options: argparse.Namespace) -> None:
    from dqnlm.reporting.comparison import HEADS, explanation, failures, tables
    from dqnlm.reporting.tables import make_console, print_table

    console = make_console()
    for task, rows in tables(results).items():
        console.print(f"\n{task}", markup=False, highlight=False)
        print_table(console, HEADS, rows, numbers=len(HEADS) - 1)
    console.print(f"\n{explanation(options.metric, options.at)}", markup=False, highlight=False)
    failed = failures(results)
    if failed:
        print(f"error: {len(failed)} of {len(results)} runs failed", *failed, sep="\n  ", file=sys.stderr)


def _write(results: Sequence[Result], options: argparse.Namespace) -> None:
    from dqnlm.reporting import comparison
    from dqnlm.utils.files import write_bytes_atomic, write_json_atomic, write_text_atomic

    metric, at = options.metric, options.at
    try:
        if options.markdown:
            write_text_atomic(Path(options.markdown), comparison.markdown(results, metric, at))
        if options.csv:
            write_text_atomic(Path(options.csv), comparison.csv_text(results))
        if options.json:
            write_json_atomic(Path(options.json), comparison.record(results, metric, at))
        if options.png:
            write_bytes_atomic(Path(options.png), comparison.picture(results, metric, at))
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be written: {error.strerror}; --reuse reads the runs again"
        ) from error
