"""A sweep's folder: the command that made it, how its jobs ended, what is left when it is started again, and its table.

    sweep.json                  the command, without the folder; the same command with the folder goes on with the sweep
    JOB/.hydra/outcome.json     how a job ended: a file, as a launcher may use processes

Started again, a finished job is left as it is, one that has a checkpoint is resumed from it, and all others start anew.
Nothing is run by what stands in the folder: who goes on types the whole command.
"""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dqnlm.errors import UserError
from dqnlm.reporting.loading import read_json, read_summary
from dqnlm.reporting.tables import figure_text, make_console, print_table
from dqnlm.runs.directory import RunDirectory, natural, require_unused
from dqnlm.utils.files import write_json_atomic

COMMAND = "sweep.json"
OUTCOME = Path(".hydra") / "outcome.json"
FOLDER = "hydra.sweep.dir"  # the setting that names a sweep's folder
State = Literal["new", "begun", "finished"]


def command_of(argv: Sequence[str]) -> list[str]:
    """A sweep's command line without its folder."""
    return [word for word in argv if word.lstrip("+").split("=", 1)[0] != FOLDER]


def begin(folder: Path, argv: Sequence[str]) -> None:
    """Notes the command in a folder that is used for the first time."""
    if not (folder / COMMAND).exists():
        write_json_atomic(folder / COMMAND, {"command": ["dqnlm", "train", *command_of(argv)]})


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
    if RunDirectory(job).is_run and (read_summary(job) or {}).get("status") == "finished":
        return "finished"
    steps = [folder.name.removeprefix("step-") for folder in RunDirectory(job).checkpoints.glob("step-*")]
    return "begun" if any(step.isdigit() and int(step) > 0 for step in steps) else "new"  # step 0 is before all learning


def clear(job: Path) -> None:
    """Removes the files of a run that came to no checkpoint; nothing else that lies there."""
    run = RunDirectory(job)
    for file in (run.config, run.manifest, run.metrics, run.samples, run.summary, run.log, job / OUTCOME):
        file.unlink(missing_ok=True)
    for folder in (run.checkpoints, run.tensorboard):
        shutil.rmtree(folder, ignore_errors=True)


def note_outcome(job: Path, outcome: str, message: str) -> None:
    (job / OUTCOME).parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(job / OUTCOME, {"outcome": outcome, "message": message})


def outcomes(sweep: Path) -> dict[Path, dict[str, str]]:
    """Folder -> {"outcome": finished, failed, crash or mistake; "message"} of the jobs of a sweep that have ended."""
    files = sorted(sweep.glob(f"*/{OUTCOME}"), key=natural)
    return {path.parent.parent: read_json(path) for path in files}


def best_of(job: Path) -> tuple[str, float]:
    """The metric that chooses a run's best policy, and its value there; NaN where there is none."""
    summary = read_summary(job) or {}
    name = str(summary.get("best_metric", ""))
    value = (summary.get("best") or {}).get(name)
    return name, float(value) if isinstance(value, int | float) else math.nan


def report(sweep: Path) -> int:
    """Prints the jobs with their best metric, and those that failed; returns 1 after a crash, 2 after mistakes only, else 0."""
    ended = outcomes(sweep)
    finished = {folder: best_of(folder) for folder, o in ended.items() if o["outcome"] == "finished"}
    names = sorted({name for name, _ in finished.values() if name})
    cells = [
        [folder.name, ended[folder]["outcome"], *(_cell(finished.get(folder), name) for name in names)] for folder in ended
    ]
    if len(ended) > 1:
        print_table(make_console(), ["job", "status", *(f"best {name}" for name in names)], cells, numbers=len(names))
    failed = {folder.name: o for folder, o in ended.items() if o["outcome"] != "finished"}
    if not failed:
        return 0
    print(f"error: {len(failed)} of {len(ended)} jobs failed", file=sys.stderr)
    for name, outcome in failed.items():
        print(f"  {name}: {outcome['message'].splitlines()[0]}", file=sys.stderr)
    if (sweep / COMMAND).is_file():
        told = how_to_go_on(sweep, read_json(sweep / COMMAND).get("command"))
        print(f"finished jobs are kept; to try the others again: {told}", file=sys.stderr)
    return 2 if all(o["outcome"] == "mistake" for o in failed.values()) else 1


def _cell(best: tuple[str, float] | None, name: str) -> str:
    return figure_text(best[1] if best is not None and best[0] == name else None)
