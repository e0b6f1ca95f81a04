"""The plan of `dqnlm compare`: tasks, their runs, and the sweeps of `dqnlm train -m` that make these runs."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dqnlm.commands.hydra_settings import sweep_params
from dqnlm.commands.train import check
from dqnlm.commands.train_arguments import Request, expand, parse
from dqnlm.config import catalogue
from dqnlm.config.composition import parse_overrides, quoted
from dqnlm.errors import UserError
from dqnlm.reporting.comparison import Result
from dqnlm.runs.directory import safe_name

COMMON = ("threads=1", "logger=none", "progress=false")  # a setting typed by the user replaces them
# Settings that are given otherwise; the sweep's folders are read back, so their layout is not the user's.
GIVEN = {"experiment": "--tasks", "algorithm": "--algorithms", "seed": "--seeds", "output_dir": "--output-dir"}
LAYOUT = ("hydra.sweep", "hydra.run", "hydra.mode", "hydra.output_subdir", "hydra/sweeper", "hydra.sweeper")


@dataclass(frozen=True)
class Task:
    """An experiment with settings of its own."""

    label: str
    experiment: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run."""

    task: Task
    algorithm: str
    seed: int

    def blank(self) -> Result:
        """Its empty result."""
        return Result(self.task.label, self.task.experiment, self.algorithm, self.seed)


@dataclass(frozen=True)
class Plan:
    """The requested comparison.

    Attributes:
        overrides: settings of all runs.
        root: the folder that has a folder for each task.
        config_dir: a further folder of options.
    """

    tasks: tuple[Task, ...]
    algorithms: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    root: Path
    config_dir: str | None = None

    def folder(self, task: Task) -> Path:
        """Folder of a task's sweeps."""
        return self.root / safe_name(task.label)

    def jobs(self) -> list[Job]:
        """Every task with every algorithm and seed."""
        return [Job(t, a, s) for t in self.tasks for a in self.algorithms for s in self.seeds]

    def request(self, task: Task, algorithms: Iterable[str], seeds: Iterable[int]) -> Request:
        """The sweep over these algorithms and seeds, as `dqnlm train -m` would parse it."""
        chosen = [f"+experiment={task.experiment}", f"algorithm={','.join(algorithms)}"]
        chosen.append(f"seed={','.join(map(str, seeds))}")
        flags = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        settings = latest_of_each_key([*COMMON, *self.overrides, *task.overrides])
        return parse(["-m", *flags, *chosen, *settings, f"output_dir={quoted(self.folder(task))}"])

    def check(self) -> None:
        """Composes every task with every algorithm and the first seed.

        Raises:
            UserError: any error that would end such a run before it starts, with the nearest valid names.
        """
        for text in (*self.overrides, *(text for task in self.tasks for text in task.overrides)):
            _require_single_setting(text)
        for task in self.tasks:
            _require_experiment(task, self.config_dir)
        notes = io.StringIO()  # the same for many algorithms
        try:
            with contextlib.redirect_stderr(notes):
                for task in self.tasks:
                    self._check_task(task)
        finally:
            print(*dict.fromkeys(notes.getvalue().splitlines(keepends=True)), sep="", end="", file=sys.stderr)

    def _check_task(self, task: Task) -> None:
        request = self.request(task, self.algorithms, self.seeds[:1])
        for overrides in expand(request, len(self.algorithms)):
            try:
                swept = sweep_params(check(request, overrides).hydra)
            except UserError as error:
                raise UserError(f"task {task.label}: {error}") from error
            if swept:
                raise UserError(
                    f"task {task.label}: its experiment sweeps ({', '.join(swept)}, hydra.sweeper.params), and compare lays out "
                    "its own jobs\n  take that out of the file, or sweep with dqnlm train -m"
                )


def make_plan(
    tasks: Sequence[str], algorithms: str, seeds: str, overrides: Sequence[str], root: Path, config_dir: str | None
) -> Plan:
    """Parses the words of the command line.

    Raises:
        UserError: something is named twice, or is not what it should be.
    """
    if not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise UserError(f"--seeds {seeds}: type whole numbers with commas between them, for example 0,1,2")
    plan = Plan(
        tuple(parse_task(text) for text in tasks), tuple(name for name in algorithms.split(",") if name),
        tuple(map(int, seeds.split(","))), tuple(overrides), root.expanduser().absolute(), config_dir,
    )  # fmt: skip
    labels = [plan.folder(task).name for task in plan.tasks]
    _require_distinct("--tasks", labels, "; give them different labels: a=EXPERIMENT,KEY=VALUE")
    _require_distinct("--algorithms", plan.algorithms)
    _require_distinct("--seeds", [str(seed) for seed in plan.seeds])
    return plan


def parse_task(text: str) -> Task:
    """Parses `experiment` or `label=experiment`, with `,key=value` after it; only a comma before `key=` separates.

    Raises:
        UserError: there is no experiment in it, or something that is no setting.
    """
    first, *overrides = re.split(r",(?=[\w.+~@/]+=)", text)
    label, equals, experiment = first.partition("=")
    if not label or "," in first or (equals and not experiment):
        raise UserError(f"--tasks {text}: type EXPERIMENT or LABEL=EXPERIMENT,KEY=VALUE,... and spaces between tasks")
    return Task(label, experiment or label, tuple(overrides))


def sweeps(jobs: Sequence[Job]) -> list[tuple[Task, list[str], list[int]]]:
    """The minimum of sweeps (task, algorithms, seeds) that make exactly these jobs, grouped by equal seeds."""
    seeds: dict[tuple[Task, str], list[int]] = {}
    for job in jobs:
        seeds.setdefault((job.task, job.algorithm), []).append(job.seed)
    together: dict[tuple[Task, tuple[int, ...]], list[str]] = {}
    for (task, algorithm), own in seeds.items():
        together.setdefault((task, tuple(own)), []).append(algorithm)
    return [(task, algorithms, list(own)) for (task, own), algorithms in together.items()]


def latest_of_each_key(overrides: Sequence[str]) -> list[str]:
    """Keeps the last override of each key, because Hydra refuses a group that is chosen twice."""
    return list({o.key_or_group: text for o, text in zip(parse_overrides(overrides), overrides, strict=True)}.values())


def _require_single_setting(text: str) -> None:
    (override,) = parse_overrides([text])
    key = override.key_or_group
    if key in GIVEN:
        raise UserError(f"{text}: give it with {GIVEN[key]}")
    if key.startswith(LAYOUT):
        raise UserError(f"{text}: dqnlm compare lays out its sweeps itself; their folders are below --output-dir")
    if override.is_sweep_override():
        raise UserError(
            f"{text}: a comparison takes one value of a setting; compare two with two tasks\n"
            f"  --tasks a=EXPERIMENT,{key}=VALUE b=EXPERIMENT,{key}=VALUE"
        )


def _require_experiment(task: Task, config_dir: str | None) -> None:
    if catalogue.option_file("experiment", task.experiment, config_dir) is not None:
        return
    names = [name for name, _ in catalogue.options("experiment", config_dir)]
    near = difflib.get_close_matches(task.experiment, names, n=1, cutoff=0.6)
    hint = f"\n  did you mean {near[0]}?" if near else ""
    if task.label != task.experiment:
        hint += f"\n  for a setting of all runs, type {task.label}={task.experiment} before --tasks or at the end, after --seeds"
    raise UserError(f"--tasks: there is no experiment {task.experiment!r}{hint}\n  experiments: {', '.join(names)}")


def _require_distinct(flag: str, names: Sequence[str], advice: str = "") -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{flag}: {twice} is named twice{advice}")
    if not names:
        raise UserError(f"{flag}: nothing is named")
