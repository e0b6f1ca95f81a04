"""Reads a sweep's folder: its jobs, how each ended, the settings that differ, and the best one.

    sweep.json                  the command, without the folder; the same command with the folder goes on with the sweep
    JOB/.hydra/overrides.yaml   the settings that made a job, written by Hydra
    JOB/.hydra/outcome.json     how it ended: a file, as a launcher may use processes
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqnlm.errors import UserError
from dqnlm.reporting.compare import ABSENT
from dqnlm.reporting.loading import RunData, is_number, load_run, read_json, read_summary
from dqnlm.runs.directory import RunDirectory, natural
from dqnlm.runs.lock import is_owned
from dqnlm.runs.reading import read_object
from dqnlm.utils.files import require_regular
from dqnlm.utils.parsing import yaml_value

COMMAND = "sweep.json"
OUTCOME = Path(".hydra") / "outcome.json"
OVERRIDES = Path(".hydra") / "overrides.yaml"
NOT_BEGUN = "not begun"
STOPPED = "stopped"  # begun, and no process trains it: the sweep was stopped, or its machine


@dataclass(frozen=True)
class JobData:
    """One job of a sweep.

    Attributes:
        name: of its folder, `3-seed=1,gamma=0.9`.
        settings: key -> value as typed.
        status: finished, failed, crash, mistake, killed, interrupted, running, stopped or not begun.
        message: the first line of its error; empty where there is none.
        metric: the metric that chose its best policy, or empty.
        best: that metric's best value; None where there is none.
        last: its last value.
        wall_s: seconds of training.
        run: its whole data; None where it wrote no run, or a damaged one.
    """

    name: str
    settings: dict[str, str]
    status: str
    message: str = ""
    metric: str = ""
    best: float | None = None
    last: float | None = None
    wall_s: float | None = None
    run: RunData | None = None

    @property
    def has_finished(self) -> bool:
        """Whether its best value is what a search was given."""
        return self.status == "finished" and self.best is not None and math.isfinite(self.best)

    def command(self) -> str:
        """The command that trains it again, from its manifest; empty where there is none."""
        words = self.run.manifest.get("command_line") if self.run is not None else None
        return shlex.join(map(str, words)) if isinstance(words, list) else ""


@dataclass(frozen=True)
class SweepData:
    """A sweep.

    Attributes:
        path: its folder.
        command: the words that made it; None where they are not known (`dqnlm compare` lays out its own).
        jobs: in the order of their numbers.
        varied: the settings that differ between jobs.
        objective: the metric by which most finished jobs chose their best policy; empty where none finished.
    """

    path: Path
    command: list[str] | None
    jobs: list[JobData]
    varied: list[str]
    objective: str

    @property
    def compared(self) -> list[JobData]:
        """The finished jobs with a value of the objective."""
        return [job for job in self.jobs if job.has_finished and job.metric == self.objective]

    @property
    def higher_is_better(self) -> bool:
        """The direction of the objective."""
        runs = [job.run for job in self.compared if job.run is not None]
        return next((better for run in runs if (better := run.higher_is_better(self.objective)) is not None), True)

    def best(self) -> JobData | None:
        """The finished job of the best value, the first of equals."""
        pick = max if self.higher_is_better else min
        return pick(self.compared, key=lambda job: job.best or 0.0, default=None)

    def again(self) -> str:
        """The command that goes on with the sweep; empty where it is not known."""
        return shlex.join([*self.command, f"hydra.sweep.dir={self.path}"]) if self.command is not None else ""


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep: the file with its command, or at least two jobs."""
    return (folder / COMMAND).is_file() or (not RunDirectory(folder).is_run and len(_begun(folder)) > 1)


def _begun(folder: Path) -> list[Path]:
    """The folders of the jobs that have begun, by number; a hidden folder is no job."""
    folders = [path.parent.parent for path in folder.glob(f"*/{OVERRIDES}")]
    return sorted((job for job in folders if not job.name.startswith(".")), key=natural)


def load_sweep(folder: Path, expected: Sequence[Sequence[str]] = ()) -> SweepData:
    """Reads a sweep.

    Args:
        folder: see `is_sweep`.
        expected: the overrides of all jobs by number, where they are known: those without a folder have not begun.

    Raises:
        UserError: a damaged file of the sweep. A damaged run is a job without data, with the error as its message.
    """
    folders = _begun(folder)
    jobs = [read_job(path) for path in folders]
    begun = {path.name.split("-")[0] for path in folders}
    missing = [number for number in range(len(expected)) if str(number) not in begun]
    jobs += [JobData(str(number), settings_of(expected[number]), NOT_BEGUN) for number in missing]
    jobs.sort(key=lambda job: natural(Path(job.name)))
    command = read_json(folder / COMMAND).get("command") if (folder / COMMAND).is_file() else None
    words = [str(word) for word in command] if isinstance(command, list) else None
    names = Counter(job.metric for job in jobs if job.has_finished)
    return SweepData(folder.absolute(), words, jobs, varied(jobs), names.most_common(1)[0][0] if names else "")


def read_job(folder: Path) -> JobData:
    """One job, whatever is there of it."""
    outcome = read_object(folder / OUTCOME)
    run, status = None, str(outcome.get("outcome") or "")
    message = "" if status == "finished" else (str(outcome.get("message", "")).splitlines() or [""])[0]
    settings: dict[str, str] = {}
    try:
        settings = settings_of(read_overrides(folder))
        summary = read_summary(folder) or {}
        run = load_run(folder, folder.name) if RunDirectory(folder).is_run else None
    except UserError as error:
        return JobData(folder.name, settings, status or STOPPED, message or str(error).splitlines()[0])
    if _ended_later(folder, summary):
        status, message = "finished", ""  # by `dqnlm resume`
    status = status or ("running" if is_owned(folder) else STOPPED)
    metric = str(summary.get("best_metric") or _chosen_by(run))
    best = (summary.get("best") or {}).get(metric) if summary else None
    if best is None and run is not None and (found := run.best(metric)):
        best = found[1]
    last, wall_s = (run.last(metric), run.last("wall_s")) if run is not None else (None, None)
    return JobData(folder.name, settings, status, message, metric, _number(best), _number(last), _number(wall_s), run)


def read_overrides(folder: Path) -> list[Any]:
    """The overrides that made a job.

    Raises:
        UserError: the file is missing or damaged.
    """
    require_regular(folder / OVERRIDES)
    try:
        found = yaml_value((folder / OVERRIDES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / OVERRIDES} is damaged: {error}.") from error
    if not isinstance(found, list):
        raise UserError(f"{folder / OVERRIDES} should hold a list of settings but holds {type(found).__name__}.")
    return found


def settings_of(overrides: Sequence[Any]) -> dict[str, str]:
    """`["+experiment=a", "gamma=0.9"]` -> {"experiment": "a", "gamma": "0.9"}."""
    return {key.lstrip("+"): value for key, _, value in (str(text).partition("=") for text in overrides)}


def varied(jobs: Sequence[JobData]) -> list[str]:
    """The settings whose values are not the same in all jobs, in the order typed."""
    keys = dict.fromkeys(key for job in jobs for key in job.settings)
    return [key for key in keys if len({_canonical(job.settings.get(key, ABSENT)) for job in jobs}) > 1]


def _canonical(value: str) -> str:
    """One text for the ways to write a value: Hydra notes `1e+30` and `False` where `1e30` and `false` were typed."""
    try:
        return repr(float(value))
    except ValueError:
        return value.lower() if value.lower() in ("true", "false", "null") else value


def _ended_later(folder: Path, summary: dict[str, Any]) -> bool:
    """Whether a run finished after the sweep noted another end of it."""
    if summary.get("status") != "finished":
        return False
    noted, ended = folder / OUTCOME, folder / "summary.json"
    return not noted.is_file() or ended.stat().st_mtime_ns > noted.stat().st_mtime_ns


def _chosen_by(run: RunData | None) -> str:
    return str((run.config.get("evaluation") or {}).get("best_metric") or "") if run is not None else ""


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None
