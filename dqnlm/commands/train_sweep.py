"""A sweep's folder: the command that made it, how its jobs ended, what is left when it is started again, and its table.

`dqnlm.reporting.sweep` names the files and reads them. Started again, a finished job is left as it is, one that has a
checkpoint is resumed from it, and all others start anew.
Nothing is run by what stands in the folder: who goes on types the whole command.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dqnlm.commands.train_arguments import expand, parse
from dqnlm.errors import UserError
from dqnlm.reporting.loading import read_json, read_summary
from dqnlm.reporting.sweep import COMMAND, NOT_BEGUN, OUTCOME, STOPPED, SweepData, load_sweep
from dqnlm.reporting.sweep_table import NUMBERS, job_cells
from dqnlm.reporting.tables import figure_text, make_console, print_table
from dqnlm.runs.directory import RunDirectory, natural, require_unused
from dqnlm.runs.reading import read_object
from dqnlm.utils.files import write_json_atomic

MOST_EXPECTED = 10_000  # jobs of a sweep that are counted before they begin
INTERRUPTING = (signal.SIGINT, signal.SIGTERM)
FOLDER = "hydra.sweep.dir"  # the setting that names a sweep's folder
UNDONE = (NOT_BEGUN, STOPPED, "interrupted", "running")  # statuses of jobs that a stop of the sweep leaves
State = Literal["new", "begun", "finished"]


def command_of(argv: Sequence[str]) -> list[str]:
    """A sweep's command line without its folder."""
    return [word for word in argv if word.lstrip("+").split("=", 1)[0] != FOLDER]


def begin(folder: Path, argv: Sequence[str], params: Sequence[str]) -> None:
    """Notes the command, and what its files sweep over, in a folder that is used for the first time."""
    if not (folder / COMMAND).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / COMMAND, {"command": ["dqnlm", "train", *command_of(argv)], "params": list(params)})
    _require_room_for_records(folder)


def _require_room_for_records(folder: Path) -> None:
    """Raises UserError where a link or a folder lies where Hydra writes its records of the sweep or of a job anew."""
    records = [folder / "multirun.yaml"]
    for job in folder.glob("**/.hydra"):
        records += [job / "config.yaml", job / "hydra.yaml", job / "overrides.yaml"] if job.is_dir() else [job]
    for file in records:
        if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
            raise UserError(f"{file}: a folder or a link lies where Hydra writes a file; move it away and start the sweep again")


def reopen(folder: Path, argv: Sequence[str]) -> Path:
    """A folder that the user named: unused, or that of the same sweep.

    Raises:
        UserError: it holds another sweep, or a run; or it cannot be made.
    """
    folder = folder.absolute()
    if not (folder / COMMAND).is_file():
        return require_unused(folder)
    command = read_json(folder / COMMAND).get("command")
    if command != ["dqnlm", "train", *command_of(argv)]:
        raise UserError(
            f"{folder} holds the sweep of another command\n  to go on with that: {how_to_go_on(folder, command)}\n"
            "  to start another, name another folder"
        )
    return folder


def how_to_go_on(folder: Path, command: Any) -> str:
    """The command that goes on with a sweep."""
    words = [str(word) for word in command] if isinstance(command, list) else ["dqnlm", "train"]
    return shlex.join([*words, f"{FOLDER}={folder}"])


def state_of(job: Path) -> State:
    """What is there of a job before it starts."""
    if RunDirectory(job).is_run and _summary(job).get("status") == "finished":
        return "finished"
    steps = [folder.name.removeprefix("step-") for folder in RunDirectory(job).checkpoints.glob("step-*")]
    return "begun" if any(step.isdigit() and int(step) > 0 for step in steps) else "new"  # step 0 is before all learning


def clear(job: Path) -> None:
    """Removes the files of a run that came to no checkpoint; nothing else that lies there."""
    run = RunDirectory(job)
    for file in (run.config, run.manifest, run.metrics, run.samples, run.summary, run.log, run.tracking, job / OUTCOME):
        file.unlink(missing_ok=True)
    for folder in (run.checkpoints, run.tensorboard):
        shutil.rmtree(folder, ignore_errors=True)


def note_outcome(job: Path, outcome: str, message: str) -> None:
    (job / OUTCOME).parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(job / OUTCOME, {"outcome": outcome, "message": message})


def forget_outcome(job: Path) -> None:
    """What is noted of an earlier start, so that a job without one has not ended."""
    (job / OUTCOME).unlink(missing_ok=True)


def note_end(job: Path, code: int) -> None:
    """Notes how a job's own process ended, where it did not come to note it: `code` is of `job_process.run`."""
    if code < 0:
        name = signal.Signals(-code).name
        reason = "; often too little memory" if name == "SIGKILL" else ""
        note_outcome(job, "killed", f"its process was killed by signal {-code} ({name}){reason}")
    elif code in [128 + number for number in INTERRUPTING]:
        note_outcome(job, "interrupted", f"its process was stopped by {signal.Signals(code - 128).name}")
    elif not (job / OUTCOME).is_file():
        note_outcome(job, "crash", f"its process ended with code {code} before the job began")


def outcome_of(job: Path) -> str:
    """How a job ended; empty where it has not."""
    return str(read_object(job / OUTCOME).get("outcome", ""))


def outcomes(sweep: Path) -> dict[Path, dict[str, str]]:
    """Folder -> {"outcome", "message"} of the jobs of a sweep that have ended.

    An outcome is finished, failed, crash (an exception), mistake (the user's), killed or interrupted.
    """
    files = sorted((file for file in sweep.glob(f"*/{OUTCOME}") if not file.parent.parent.name.startswith(".")), key=natural)
    found = {path.parent.parent: read_object(path) for path in files}
    return {job: outcome for job, outcome in found.items() if {"outcome", "message"} <= set(outcome)}


def best_of(job: Path) -> tuple[str, float]:
    """The metric that chooses a run's best policy, and its value there; NaN where there is none."""
    summary = _summary(job)
    name = str(summary.get("best_metric", ""))
    value = (summary.get("best") or {}).get(name)
    return name, float(value) if isinstance(value, int | float) else math.nan


def _summary(job: Path) -> dict[str, Any]:
    """The summary of a job; {} where there is none, or a damaged one, which its resumption writes anew."""
    try:
        return read_summary(job) or {}
    except UserError:
        return {}


def load(folder: Path) -> SweepData:
    """The sweep in a folder, with the jobs that its command has still to begin.

    Raises:
        UserError: a damaged file.
    """
    noted = read_json(folder / COMMAND) if (folder / COMMAND).is_file() else {}
    command, params = noted.get("command"), noted.get("params")
    params = [str(word) for word in params] if isinstance(params, list) else []
    expected: list[list[str]] = []
    if isinstance(command, list) and not any(str(word).startswith("hydra/sweeper=") for word in command):
        with contextlib.suppress(UserError):  # a file of --config-dir is gone: what has begun is shown all the same
            expected = expand(parse([str(word) for word in command[2:]]), MOST_EXPECTED, params)
    return load_sweep(folder, [[text for text in job if not is_of_hydra(text)] for job in expected])


def is_of_hydra(text: str) -> bool:
    """Whether an override sets Hydra itself and no setting of the run."""
    return text.lstrip("+").startswith(("hydra.", "hydra/"))


def report(folder: Path, complete: bool = True) -> int:
    """Prints the jobs with their best metric, and those that failed; returns 1 after a crash, 2 after mistakes only, else 0.

    Where the sweep ended early, jobs that have not ended are no failures.

    Args:
        complete: whether the launcher came to the end; otherwise how to go on has been told.
    """
    sweep = load(folder)
    if len(sweep.jobs) > 1:
        print_jobs(sweep)
    left = [] if complete else [job for job in sweep.jobs if job.status in UNDONE]
    failed = [job for job in sweep.jobs if job.status != "finished" and job not in left]
    if left:
        print(f"{len(left)} of {len(sweep.jobs)} jobs are left: {', '.join(f'{job.name} ({job.status})' for job in left)}")
    if complete:
        for line in closing_lines(sweep):
            print(line)
    if not failed:
        return 0
    print(f"error: {len(failed)} of {len(sweep.jobs)} jobs failed", file=sys.stderr)
    for job in failed:
        print(f"  {job.name}: {job.message or job.status}", file=sys.stderr)
    if complete and sweep.again():
        print(f"finished jobs are kept; to try the others again: {sweep.again()}", file=sys.stderr)
    return 2 if all(job.status == "mistake" for job in failed) else 1


def closing_lines(sweep: SweepData) -> list[str]:
    """The best job and what can be done next; [] where none finished."""
    best = sweep.best()
    if best is None:
        return []
    lines = [f"folder {sweep.path}"]
    if len(sweep.compared) > 1:
        chosen = "a figure that was chosen for being the best is a little optimistic"
        lines.append(f"best by {sweep.objective}: {best.name}, {figure_text(best.best)} ({chosen})")
    return [*lines, f"curves of all jobs, and which setting matters: {shlex.join(['dqnlm', 'report', str(sweep.path)])}"]


def print_jobs(sweep: SweepData) -> None:
    """Prints the table of jobs."""
    heads, rows = job_cells(sweep)
    print_table(make_console(), heads, rows, numbers=NUMBERS)
