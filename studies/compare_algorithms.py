#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Trains presets on tasks and seeds, and prints mean, interquartile mean and a 95 % stratified bootstrap interval.

    scripts/python studies/compare_algorithms.py --tasks random_walks cartpole --algorithms dqn,double_dqn \\
        --seeds 0,1,2 --output-dir outputs/compare --png outputs/compare.png

A task is an experiment, or `label=experiment,key=value,...` for one with settings of its own. Each run is a process of
one thread, `dqnlm train +experiment=E algorithm=A seed=S ...`, below OUTPUT_DIR/TASK/ALGORITHM/SEED. A run that fails is
named in the tables, the others go on, and the exit code is 1. With --reuse a finished run of the same settings is read,
not trained again (whether the program has changed since is not looked at). Statistics: dqnlm/reporting/statistics.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from dqnlm.config.composition import compose, quoted
from dqnlm.config.validation import validate
from dqnlm.errors import UserError
from dqnlm.reporting.compare import flatten
from dqnlm.reporting.loading import is_number, read_config, read_summary
from dqnlm.reporting.tables import figure_text
from dqnlm.runs.directory import list_runs, safe_name
from dqnlm.utils.files import write_bytes_atomic, write_text_atomic
from studies.compare_tables import Result, markdown, picture

COMMON = ("threads=1", "logger=none", "trainer.progress=false")
STDERR = "stderr.log"  # beside a job's runs: what its newest process complained of
PAUSE_S = 0.1  # between two looks at the processes


@dataclass(frozen=True)
class Task:
    """An experiment with settings of its own."""

    label: str
    experiment: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run. `arguments` follow `dqnlm train`; `blank` is its result before anything is known."""

    blank: Result
    folder: Path
    arguments: tuple[str, ...]

    def failed(self, error: str, wall_s: float | None = None) -> Result:
        return dataclasses.replace(self.blank, error=error, wall_s=wall_s)


class Process(Protocol):
    """As much of subprocess.Popen as is used."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


def parse_task(text: str) -> Task:
    """`experiment` or `label=experiment`, with `,key=value` after it; only a comma before `key=` separates.

    Raises:
        UserError: there is no experiment in it, or something that is no setting.
    """
    first, *overrides = re.split(r",(?=[\w.+~@/]+=)", text)
    label, equals, experiment = first.partition("=")
    if not label or "," in first or (equals and not experiment):
        raise UserError(f"--tasks {text}: type EXPERIMENT or LABEL=EXPERIMENT,KEY=VALUE,... and spaces between tasks")
    return Task(label, experiment or label, tuple(overrides))


def plan(options: argparse.Namespace) -> list[Job]:
    """Every task with every algorithm and seed.

    Raises:
        UserError: something is named twice, or is not what it should be.
    """
    tasks = [parse_task(text) for text in options.tasks]
    algorithms = [name for name in options.algorithms.split(",") if name]
    if not re.fullmatch(r"\d+(,\d+)*", options.seeds):
        raise UserError(f"--seeds {options.seeds}: type whole numbers with commas between them, for example 0,1,2")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    _require_distinct("--tasks", [safe_name(task.label) for task in tasks], "; tell them apart: a=EXPERIMENT,KEY=VALUE")
    _require_distinct("--algorithms", algorithms)
    _require_distinct("--seeds", [str(seed) for seed in seeds])
    own = {task.label: list(task.overrides) for task in tasks}
    for text in options.task_override:
        label, _, override = text.partition(":")
        if label not in own or "=" not in override:
            raise UserError(f"--task-override {text}: type TASK:KEY=VALUE with one of the tasks {', '.join(own)}")
        own[label].append(override)
    root, jobs = Path(options.output_dir).absolute(), []
    for task in tasks:
        for algorithm in algorithms:
            for seed in seeds:
                folder = root / safe_name(task.label) / safe_name(algorithm) / str(seed)
                chosen = (f"+experiment={task.experiment}", f"algorithm={algorithm}", f"seed={seed}", *COMMON)
                further = (*options.override, *own[task.label], f"output_dir={quoted(folder)}")
                blank = Result(task.label, task.experiment, algorithm, seed)
                jobs.append(Job(blank, folder, chosen + further))
    return jobs


def _require_distinct(flag: str, names: list[str], advice: str = "") -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{flag}: {twice} is named twice{advice}")
    if not names:
        raise UserError(f"{flag}: nothing is named")


def launch(job: Job) -> Process:
    """A process of one thread, in a group of its own, so that Ctrl-C reaches it through this program alone."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dqnlm", "train", *job.arguments]
    with (job.folder / STDERR).open("wb") as errors:  # what it prints besides is in the run's train.log
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, process_group=0)


def train(
    jobs: Sequence[Job], options: argparse.Namespace, start: Callable[[Job], Process] = launch
) -> dict[Job, Result]:
    """Runs all jobs, `options.jobs` at a time. Ending it by an exception ends the processes too."""
    results: dict[Job, Result] = {}
    waiting = list(jobs)
    running: dict[Job, tuple[Process, set[Path]]] = {}
    with tqdm(total=len(jobs), unit="run", disable=None, dynamic_ncols=True) as bar:

        def note(job: Job, result: Result, how: str) -> None:
            results[job] = result
            told = f"failed: {result.error}" if result.error else f"{how}, {options.figure} {figure_text(result.value)}"
            name = f"{result.task}, {result.algorithm}, seed {result.seed}"
            tqdm.write(f"{len(results)}/{len(jobs)}  {name}: {told}", file=sys.stderr)
            bar.update()

        try:
            while waiting or running:
                while waiting and len(running) < options.jobs:
                    job = waiting.pop(0)
                    finished = finished_run(job) if options.reuse else None
                    if finished is not None:
                        note(job, read(job, finished, options.figure, options.at), "read")
                        continue
                    job.folder.mkdir(parents=True, exist_ok=True)
                    before = set(list_runs(job.folder))
                    running[job] = (start(job), before)
                for job, (process, before) in list(running.items()):
                    if (code := process.poll()) is not None:
                        del running[job]
                        note(job, close(job, code, before, options.figure, options.at), "trained")
                time.sleep(PAUSE_S if running else 0)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.wait()
    return {job: results[job] for job in jobs}


def close(job: Job, code: int, before: set[Path], figure: str, at: str) -> Result:
    """Reads the run that a process has left: the one below its folder that was not there before."""
    new = [run for run in list_runs(job.folder) if run not in before]
    if code == 0 and new:
        return read(job, new[-1], figure, at)
    errors = (job.folder / STDERR).read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return job.failed((told or lines[-1:] or [f"exit code {code}"])[0])  # a traceback says at its end what happened


def read(job: Job, run: Path, figure: str, at: str) -> Result:
    """The figure and the wall time that a run's summary holds."""
    summary = read_summary(run) or {}
    if summary.get("status") != "finished":
        return job.failed(f"the run is not finished: {summary.get('status', 'no summary.json')}")
    figures, wall_s = summary.get(at) or {}, summary["totals"]["wall_s"]
    value: Any = figures.get(figure)
    if not is_number(value):
        listed = ", ".join(sorted(name for name in figures if name.startswith("eval/"))) or "none"
        return job.failed(f"no figure {figure} in {at}; of evaluation there are: {listed}", wall_s)
    if not math.isfinite(value):
        return job.failed(f"{figure} is {value}", wall_s)
    return dataclasses.replace(job.blank, value=float(value), wall_s=wall_s)


def finished_run(job: Job) -> Path | None:
    """The newest finished run of a job whose settings are those that the job would have today."""
    finished = [run for run in list_runs(job.folder) if (read_summary(run) or {}).get("status") == "finished"]
    if not finished:
        return None
    try:
        config, choices = compose(job.arguments)
        wanted = _settings(validate(config, choices, job.arguments))
    except UserError:
        return None  # the run itself will say what is wrong
    found = {run: _settings(read_config(run / "config.yaml")) for run in reversed(finished)}
    same = next((run for run, own in found.items() if own == wanted), None)
    if same is None:
        newest = next(iter(found.values()))
        differ = sorted(key for key in newest.keys() | wanted.keys() if newest.get(key) != wanted.get(key))
        tqdm.write(
            f"{job.folder}: trained again, as {', '.join(differ[:5])} differ from the finished run", file=sys.stderr
        )
    return same


def _settings(config: dict[str, Any]) -> dict[str, str]:
    """Flat, without the folder; a path as a run keeps it, whole."""
    flat = flatten({key: value for key, value in config.items() if key != "output_dir"})
    if config["data"].get("path") is not None:
        flat["data.path"] = str(Path(flat["data.path"]).expanduser().absolute())
    return flat


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program with exit code 2 where it cannot be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument(
        "--tasks", nargs="+", required=True, metavar="TASK", help="EXPERIMENT or LABEL=EXPERIMENT,KEY=VALUE,..."
    )
    parser.add_argument("--algorithms", required=True, metavar="A,B", help="presets (dqnlm configs algorithm)")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--override", **several, metavar="KEY=VALUE", help="a setting of all runs")
    parser.add_argument("--task-override", **several, metavar="TASK:KEY=VALUE", help="a setting of one task")
    parser.add_argument("--figure", default="eval/return", help="what is compared (default: %(default)s)")
    parser.add_argument("--at", choices=("last", "best"), default="last",
                        help="last evaluation, or the best by trainer.best_metric (default: last)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--output-dir", default="outputs/compare", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables here")
    parser.add_argument("--png", metavar="FILE", help="also draw them here")
    parser.add_argument(
        "--reuse", action="store_true", help="read finished runs of the same settings, train only the rest"
    )
    return parser.parse_args(argv)


def check(options: argparse.Namespace) -> None:
    """Raises UserError for what would otherwise be found after hours of training."""
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: at least one run at a time")
    for file in filter(None, (options.markdown, options.png)):
        if Path(file).is_dir() or not Path(file).absolute().parent.is_dir():
            raise UserError(f"{file} cannot be written: name a file in a folder that exists")
    if options.png and importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "--png needs matplotlib, which is not installed: pip install 'dqnlm[report]', or leave out --png"
        )


def main(argv: list[str] | None = None, start: Callable[[Job], Process] = launch) -> int:
    """Prints the tables; 0, 1 where a run failed, 2 after a mistake, 130 interrupted."""
    options = parse(argv)
    try:
        check(options)
        results = list(train(plan(options), options, start).values())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --reuse goes on from here", file=sys.stderr)
        return 130
    text = markdown(results, options.figure, options.at, options.jobs)
    print(text, end="")
    if options.markdown:
        write_text_atomic(Path(options.markdown), text)
    if options.png:
        write_bytes_atomic(Path(options.png), picture(results, options.figure, options.at))
    return int(any(result.error for result in results))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that the runs are ended too
    sys.exit(main())
