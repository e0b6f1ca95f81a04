"""Runs the sweeps of `dqnlm compare`, reports each finished run, and finds existing runs."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from dqnlm.commands.compare_plan import Job, Plan, Task, sweeps
from dqnlm.commands.train import check, run_sweep
from dqnlm.commands.train_arguments import expand
from dqnlm.commands.train_sweep import outcomes
from dqnlm.config.paths import anchored
from dqnlm.errors import UserError
from dqnlm.reporting.compare import flatten
from dqnlm.reporting.comparison import Result, read_result, seconds_text
from dqnlm.reporting.loading import read_config, read_manifest, read_summary
from dqnlm.reporting.sweep import read_overrides
from dqnlm.reporting.tables import figure_text
from dqnlm.runs.directory import list_runs, reserve
from dqnlm.utils.redirection import printing_to

LOG = "sweep.log"  # in a sweep's folder: what the jobs printed, and tracebacks
PAUSE_S = 0.2  # between two looks for jobs that have ended
MOST_NAMED = 5  # settings that a message lists


class Interrupted(KeyboardInterrupt):
    """A sweep ended early; the exit code gives the cause (130: Ctrl-C)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Comparison:
    """The results of a plan; prints a line for each finished run."""

    def __init__(self, plan: Plan, metric: str, at: str) -> None:
        self.plan, self.metric, self.at = plan, metric, at
        self.results: dict[Job, Result] = {}
        self._total = len(plan.jobs())

    def run(self, reuse: bool) -> list[Result]:
        """Trains the missing runs, one sweep after the other; results in the plan's order.

        Raises:
            Interrupted: by Ctrl-C or another signal; finished runs are kept.
        """
        jobs = self.plan.jobs()
        for job, run in (finished_runs(self.plan, jobs) if reuse else {}).items():
            self.note(job, read_result(job.blank(), run, self.metric, self.at), "read", sys.stderr)
        for task, algorithms, seeds in sweeps([job for job in jobs if job not in self.results]):
            self.sweep(task, algorithms, seeds)
        return [self.results[job] for job in jobs]

    def sweep(self, task: Task, algorithms: Sequence[str], seeds: Sequence[int]) -> None:
        """Runs one sweep, whose jobs print into its log."""
        folder = reserve(self.plan.folder(task), task.experiment)
        request = self.plan.request(task, algorithms, seeds)
        with contextlib.redirect_stderr(None):  # what does not apply was said when the plan was checked
            node = check(request, expand(request, 1)[0]).hydra
        jobs = {(f"algorithm={a}", f"seed={s}"): Job(task, a, s) for a in algorithms for s in seeds}

        with printing_to(folder / LOG) as shown:

            def ended(run: Path, outcome: dict[str, str]) -> None:
                job = _job_of(run, jobs)
                self.note(job, self.read(job, run, outcome), "trained", shown)

            with watching(folder, ended):
                code = run_sweep(request, folder, node)
        if code not in (0, 1, 2):
            raise Interrupted(code)
        for job in (job for job in jobs.values() if job not in self.results):
            self.note(job, job.blank().failed(_last_words(folder)), "", sys.stderr)

    def read(self, job: Job, run: Path, outcome: dict[str, str]) -> Result:
        """Reads the result of a job of a finished sweep."""
        if outcome["outcome"] == "finished":
            return read_result(job.blank(), run, self.metric, self.at)
        return job.blank().failed((outcome["message"].splitlines() or [outcome["outcome"]])[0], run=run)

    def note(self, job: Job, result: Result, how: str, stream: TextIO) -> None:
        """Stores a result and prints its line."""
        self.results[job] = result
        told = f"{how}, {self.metric} {figure_text(result.value)}, {seconds_text(result.wall_s)}"
        told = told if result.error is None else f"failed: {result.error}"
        name = f"{result.task}, {result.algorithm}, seed {result.seed}"
        print(f"{len(self.results)}/{self._total}  {name}: {told}", file=stream, flush=True)


@contextlib.contextmanager
def watching(sweep: Path, note: Callable[[Path, dict[str, str]], None]) -> Iterator[None]:
    """Calls `note(folder, outcome)` once for each job soon after it ends, for any launcher, in a thread."""
    seen: set[Path] = set()
    over = threading.Event()

    def look() -> None:
        for folder, outcome in outcomes(sweep).items():
            if folder not in seen:
                seen.add(folder)
                note(folder, outcome)

    def watch() -> None:
        while not over.wait(PAUSE_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


def finished_runs(plan: Plan, jobs: Sequence[Job]) -> dict[Job, Path]:
    """The newest finished run of each job with the settings that the job would have today."""
    there: dict[tuple[Task, str, int], list[Path]] = {}
    for task in plan.tasks:
        for run in reversed(list_runs(plan.folder(task))):
            described = _described(run)
            if described is not None:
                there.setdefault((task, *described), []).append(run)
    found = {}
    for job in jobs:
        runs = there.get((job.task, job.algorithm, job.seed), [])
        same = _same_settings(plan, job, runs) if runs else None
        if same is not None:
            found[job] = same
    return found


def _described(run: Path) -> tuple[str, int] | None:
    """(algorithm, seed) of a finished run, None for others; a damaged run is skipped with a note."""
    try:
        if (read_summary(run) or {}).get("status") != "finished":
            return None
        manifest = read_manifest(run)
        return str((manifest.get("choices") or {}).get("algorithm")), int(manifest["seed"])
    except (UserError, LookupError, TypeError, ValueError) as error:
        print(f"note: not read: {error}", file=sys.stderr)
        return None


def _same_settings(plan: Plan, job: Job, runs: Sequence[Path]) -> Path | None:
    """The first of `runs`, newest first, with the job's settings; where none has them, the differences are printed."""
    request = plan.request(job.task, [job.algorithm], [job.seed])
    with contextlib.redirect_stderr(None):  # what does not apply was said when the plan was checked
        config = check(request, expand(request, 1)[0]).config
    wanted = _settings(anchored(config, Path.cwd()))
    found = {run: _settings(read_config(run / "config.yaml")) for run in runs}
    same = next((run for run, own in found.items() if own == wanted), None)
    if same is None:
        newest = next(iter(found.values()))
        differ = sorted(key for key in newest.keys() | wanted.keys() if newest.get(key) != wanted.get(key))
        name = f"{job.task.label}, {job.algorithm}, seed {job.seed}"
        print(
            f"{name}: trained again, as {', '.join(differ[:MOST_NAMED])} differ from the finished run", file=sys.stderr
        )
    return same


def _settings(config: dict[str, Any]) -> dict[str, str]:
    """The settings as a flat dictionary, without the folder."""
    return flatten({key: value for key, value in config.items() if key != "output_dir"})


def _job_of(run: Path, jobs: dict[tuple[str, str], Job]) -> Job:
    typed = set(read_overrides(run))
    return next(job for texts, job in jobs.items() if typed.issuperset(texts))


def _last_words(sweep: Path) -> str:
    """The reason why a job has no outcome: its process was killed, or the launcher failed."""
    lines = [line.strip() for line in (sweep / LOG).read_text(encoding="utf-8", errors="replace").splitlines()]
    return f"it did not end as a run does; {sweep / LOG} ends with: {json.dumps(([*filter(None, lines)] or [''])[-1])}"
