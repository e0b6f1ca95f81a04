"""`dqnlm train`: checks the user's input first, reserves the run directory, then lets Hydra run the job.

Hydra owns overrides, sweeps and launchers; its own messages, logs and folders never reach the user. One job is

    compose -> validate -> launch.start(config, directory, choices=..., command_line=...)
"""

from __future__ import annotations

import gc
import math
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqnlm.commands import estimate, hydra_settings, job_process, launchers, train_sweep
from dqnlm.commands.train_arguments import HELP, Request, expand, parse, settled, swept_keys
from dqnlm.config import catalogue, own_experiment
from dqnlm.config.composition import (
    VERSION_BASE,
    HydraNode,
    choices_of,
    compose,
    compose_with_hydra,
    expanded,
    plain,
    quoted,
)
from dqnlm.config.inapplicable import drop_inapplicable
from dqnlm.config.paths import READ, anchored, moved, permit_code, with_values
from dqnlm.config.run_config import load_run_config
from dqnlm.config.validation import validate
from dqnlm.errors import UserError, print_error
from dqnlm.reporting.compare import flatten
from dqnlm.runs.directory import RunDirectory, require_unused, reserve, safe_name
from dqnlm.utils import interrupts, user_code
from dqnlm.utils.joined import is_silent, join, let_the_first_speak, process_name, started_with_others
from dqnlm.utils.terminal import say

PREFLIGHT_LIMIT = 64  # jobs of a sweep that are checked before the first one starts
INTERRUPTED = 130
APART = "ran in a process of its own"  # which has noted how it ended
STATES = {"new": "", "begun": ", resumed", "finished": ", finished before"}  # of a job when a sweep is started again
OWN_CODE = "the cause may be what your own code returns (another shape or type than its base class describes):"


def main(argv: list[str]) -> int:
    """Trains; returns 0, 1 (crash or failed run), 2 (user's mistake) or 130 (interrupted)."""
    if any(argument in ("-h", "--help") for argument in argv):
        print(HELP, end="")
        return 0
    request = parse(argv)
    if request.shell_completion:
        return complete(argv, ("train",))
    if request.info or request.hydra_help:
        return hand_over(request, [])
    _require_one_process(request.multirun)
    params, checked = check_jobs(request)
    if request.cfg:
        return hand_over(request, [])
    if request.estimate:
        return estimate.show(checked[0].config)
    _require_one_process(request.multirun)  # a file may have made it a sweep
    ranks = join()
    folder, own = ranks.share(lambda: run_folder(request, argv, checked[0], params))
    if not request.multirun:
        own = own and ranks.is_first
        request.pop_override(hydra_settings.RUN)  # also on ranks that did not choose the folder
        try:
            records = [] if ranks.is_first else ["hydra.output_subdir=null"]
            code = hand_over(request, [f"++{hydra_settings.RUN}={quoted(folder)}", *records])
        except KeyboardInterrupt:
            code = INTERRUPTED
            print("\ninterrupted", file=sys.stderr)
        if own and code in (2, INTERRUPTED) and not RunDirectory(folder).manifest.exists():
            shutil.rmtree(folder)  # made for this run a moment ago, and nothing came of it
        return code
    train_sweep.begin(folder, argv, params)
    try:
        code = run_sweep(request, folder, checked[0].hydra, params)
    except KeyboardInterrupt:
        code = INTERRUPTED
        print("\ninterrupted", file=sys.stderr)
    if code:  # a stop, or a launcher that lost a process
        again = train_sweep.how_to_go_on(folder, ["dqnlm", "train", *train_sweep.command_of(argv)])
        print(f"the sweep is not complete; to go on: {again}")
    return train_sweep.report(folder, complete=code == 0) or code if code != INTERRUPTED else code


def _require_one_process(multirun: bool) -> None:
    """Raises UserError for a sweep that torchrun started."""
    if multirun and started_with_others():
        raise UserError(
            "-m runs one job after the other, each in one process: start a sweep without torchrun, or one run with it"
        )


def run_sweep(request: Request, folder: Path, node: HydraNode, params: Sequence[str] = ()) -> int:
    """Runs the jobs of a sweep, each in a folder of its own below `folder`, named by its number and what it varies.

    Args:
        request: the command line.
        folder: of the sweep.
        node: Hydra's settings of the first job.
        params: as of `expand`.

    Returns:
        0 also where jobs failed (`train_sweep.outcomes` says which); 130 or another code where the sweep ended early.
    """
    request.pop_override(hydra_settings.SWEEP)
    excluded = ",".join(quoted(key) for key in swept_keys(request, swept=False, params=params))
    names = [] if hydra_settings.has_names_of_its_own(node) else [f"hydra.job.config.override_dirname.exclude_keys=[{excluded}]"]
    further = launchers.further_settings([*request.overrides, f"hydra/launcher={node.launcher}"])
    request.overrides = [*(text for text in settled(params) if text not in params), *request.overrides]
    return hand_over(request, [f"++{hydra_settings.SWEEP}={quoted(folder)}", *names, *further])


class Checked(NamedTuple):
    """A job as composed and validated, the options chosen for it, and Hydra's own settings."""

    config: dict[str, Any]
    choices: dict[str, Any]
    hydra: HydraNode


def check_jobs(request: Request) -> tuple[list[str], list[Checked]]:
    """What files sweep over, as overrides, and the first jobs, checked; a file may make the request one of a sweep."""
    jobs = expand(request, PREFLIGHT_LIMIT)
    first = check(request, jobs[0])
    if hydra_settings.is_multirun(first.hydra, request.multirun) and not request.multirun:
        request.multirun = True
        return check_jobs(request)
    params = hydra_settings.sweep_params(first.hydra) if request.multirun else []
    if params:
        return params, [check(request, overrides) for overrides in expand(request, PREFLIGHT_LIMIT, params)]
    return [], [first, *(check(request, overrides) for overrides in jobs[1:])]


def check(request: Request, overrides: list[str]) -> Checked:
    """Composes and validates one job, so that a mistake is reported before anything is written."""
    launchers.require(overrides)
    config, choices, node = compose_with_hydra(
        overrides, request.config_dir, config_path=request.config_path, config_name=request.config_name
    )
    for note in [] if is_silent() else drop_inapplicable(config, overrides, request.config_dir)[1]:
        print(f"note: {note}", file=sys.stderr)
    hydra_settings.require(node, overrides, hydra_settings.is_multirun(node, request.multirun))
    checked = validate(config, choices, overrides, config_dir=request.config_dir)
    if request.multirun:  # a single run is built in a moment, and says the same there; a later job would after hours
        from dqnlm.builder.checks.settings import check_settings

        check_settings(checked)
    return Checked(checked, choices, node)


def run_folder(request: Request, argv: list[str], job: Checked, params: Sequence[str]) -> tuple[Path, bool]:
    """A folder for the run (or sweep, of which `job` is the first), and whether it was created for it; else it was named."""
    named = hydra_settings.named_folder(job.hydra, hydra_settings.SWEEP if request.multirun else hydra_settings.RUN)
    if named is not None:
        place = Path(named).expanduser()
        return train_sweep.reopen(place, argv) if request.multirun else require_unused(place), False
    name = str(job.choices.get("experiment") or job.choices.get("debug") or "train")
    if request.multirun and "experiment" in swept_keys(request, swept=True, params=params):
        name = "sweep"
    return reserve(Path(job.config["output_dir"]).expanduser(), name), True


def hand_over(request: Request, further: list[str]) -> int:
    """Runs Hydra with a constructed command line; returns the exit code."""
    overrides = settled(request.overrides) if request.multirun else expanded(request.overrides, request.config_dir)
    with _argv(["dqnlm", *request.flags(), *overrides, *request.further_places(), *further]):
        try:
            launch()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except ValueError as error:  # Hydra's own refusal of flags that exclude each other
            raise UserError(str(error)) from error
    return 0


@contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    saved = sys.argv
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv = saved


@dataclass(frozen=True)
class Job:
    """A job as Hydra composed it, in plain values, which another process can read.

    Attributes:
        state: what there was of it before.
        sweeping: whether it is one of a sweep.
    """

    number: int
    directory: Path
    config: dict[str, Any]
    choices: dict[str, Any]
    overrides: list[str]
    config_dir: str | None
    cwd: Path
    state: train_sweep.State
    sweeping: bool


def run_job(cfg: DictConfig) -> Any:
    """Runs one job. A sweep continues after a failed job, but not after an interruption.

    Returns:
        In a sweep the best value of `evaluation.best_metric`, for sweepers that search; NaN where the job failed.
    """
    settings = HydraConfig.get()
    directory = Path(settings.runtime.output_dir)
    if settings.mode != RunMode.MULTIRUN:
        outcome, _ = guarded(lambda: _start(describe(cfg, settings, "new")))
        if outcome in ("crash", "failed", "mistake"):
            raise SystemExit(2 if outcome == "mistake" else 1)
        return None
    state = train_sweep.state_of(directory)
    say(f"job {settings.job.num}: {directory.name}{STATES[state]}")
    if state != "finished":
        train_sweep.forget_outcome(directory)
    if settings.runtime.choices["hydra/launcher"] in launchers.ALONE or state == "finished":
        outcome, message = guarded(lambda: _start(describe(cfg, settings, state)), f"job {settings.job.num}: ")
    else:
        outcome, message = guarded(lambda: _start_apart(describe(cfg, settings, state)), f"job {settings.job.num}: ")
    if outcome != APART:
        train_sweep.note_outcome(directory, outcome, message)
    return train_sweep.best_of(directory)[1] if train_sweep.outcome_of(directory) == "finished" else math.nan


def describe(cfg: DictConfig, settings: Any, state: train_sweep.State) -> Job:
    """The job in plain values."""
    overrides = [str(text) for text in settings.overrides.task]
    sources = settings.runtime.config_sources
    places = [str(s.path) for s in sources if s.provider == "command-line" or s.schema == own_experiment.SCHEME]
    config_dir = places[0] if places else None
    config = plain(cfg)
    choices = choices_of(settings, config)
    if expanded(overrides, config_dir) != overrides:  # a job of a sweep over algorithms
        config, choices = compose(overrides, config_dir)
    sweeping = settings.mode == RunMode.MULTIRUN
    directory, cwd = Path(settings.runtime.output_dir), Path(settings.runtime.cwd)
    number = settings.job.num if sweeping else 0
    return Job(number, directory, config, choices, overrides, config_dir, cwd, state, sweeping)


def guarded(start: Callable[[], str], who: str = "") -> tuple[str, str]:
    """Runs a job and reports its error, after `who` it is among others.

    Returns:
        (what `start` returned, or crash or mistake; a message).

    Raises:
        SystemExit: it was interrupted.
    """
    try:
        outcome = start()
        if outcome == "interrupted":
            raise SystemExit(INTERRUPTED)
        return outcome, f"status {outcome}"
    except UserError as error:
        if not is_silent():
            let_the_first_speak()
            print_error(error, who or process_name())
        return "mistake", str(error)
    except Exception as error:
        if interrupts.was_pressed():  # a library that was interrupted while it was imported fails later, where it is used
            raise KeyboardInterrupt from error
        traceback.print_exc()
        if user_code.used():
            print(f"{OWN_CODE} {user_code.used()}", file=sys.stderr)
        return "crash", f"{type(error).__name__}: {error}"
    finally:
        _free_memory()


def _start_apart(job: Job) -> str:
    """Runs a job of a sweep in a process of its own, which notes its outcome unless it is killed."""
    train_sweep.note_end(job.directory, job_process.run(run_apart, [job]))
    return APART


def run_apart(job: Job) -> None:
    """Runs a job of a sweep in this process, which is its own, with one GPU where there are several; notes the outcome."""
    from dqnlm.runs import gpus

    with gpus.one_gpu(job.number, str(job.config.get("device")), _count_gpus) as gpu:
        if gpu is not None:
            say(f"job {job.number} uses GPU {gpu}")
        train_sweep.note_outcome(job.directory, *guarded(lambda: _start(job), f"job {job.number}: "))


launch = hydra.main(version_base=VERSION_BASE, config_path="pkg://dqnlm.configs", config_name="train")(run_job)


def _start(job: Job) -> str:
    """Validates and trains, or goes on with a run; returns the summary's status: finished, interrupted or failed."""
    config = validate(job.config, job.choices, job.overrides, config_dir=job.config_dir)
    config = anchored(config, job.cwd)
    permit_code(config)
    from dqnlm.builder import launch

    elsewhere = [] if job.state == "new" else _moved_files(config, job.directory)
    if job.state == "finished":
        return job.state
    if job.state == "begun":
        return str(launch.resume(job.directory, elsewhere).get("status", "finished"))
    if job.sweeping:
        train_sweep.clear(job.directory)
    command = ["dqnlm", "train", *_as_typed(job)]
    summary = launch.start(config, job.directory, choices=job.choices, command_line=command)
    return str(summary.get("status", "finished"))


def _as_typed(job: Job) -> list[str]:
    """The words after `dqnlm train` that start the job again, from any folder."""
    if job.config_dir is None:
        return job.overrides
    if catalogue.own_file(job.config_dir) is None:
        return ["--config-dir", job.config_dir, *job.overrides]
    return [job.config_dir, *(text for text in job.overrides if not text.startswith(f"+{own_experiment.GROUP}="))]


def _moved_files(config: dict[str, Any], directory: Path) -> list[str]:
    """Settings that name files of a job which have been moved since it began, as the whole project may have been.

    Raises:
        UserError: other settings differ, so that the rest of the job would be another run's.
    """
    saved = load_run_config(directory / "config.yaml")
    elsewhere = {key: place.value for key, place in moved(saved, config).items() if key.split(".")[0] in (*READ, "network")}
    before, now = flatten(with_values(saved, elsewhere)), flatten(config)
    differ = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key) and key != "output_dir")
    if differ:
        raise UserError(
            f"{directory} was trained with other settings: {', '.join(differ[:3])} differ\n"
            "  remove the folder to train the job anew, or name another folder for the sweep"
        )
    return [f"{key}={'null' if value is None else quoted(value)}" for key, value in elsewhere.items()]


def _count_gpus() -> int:
    """Of this machine; torch asks the driver's library and makes no CUDA context."""
    import torch

    return torch.cuda.device_count()


def _free_memory() -> None:
    """Frees memory between the jobs of a sweep, which share a process."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _job_folder(number: Any, differing: Any) -> str:
    """`3-seed=1,env.horizon=32`: the job's number and its varied settings, safe as a file name."""
    parts = safe_name(str(differing).replace("+", "")) if differing else ""
    return f"{number}-{parts}" if parts else str(number)


OmegaConf.register_new_resolver("dqnlm_job_folder", _job_folder, replace=True)


def complete(argv: list[str], commands: Iterable[str]) -> int:
    """Shell completion by Hydra, adapted to sub-commands; its script expects `dqnlm <overrides>`."""
    if any(argument.startswith("query=") for argument in argv):
        words = os.environ.get("COMP_LINE", "").split(" ")
        if len(words) <= 2:
            print("\n".join(name for name in commands if name.startswith("".join(words[1:]))))
            return 0
        if words[1] != "train":
            return 0
        line = " ".join([words[0], *words[2:]])
        os.environ["COMP_LINE"] = line
        os.environ["COMP_POINT"] = str(len(line))
    return hand_over(Request(shell_completion=True, overrides=[a for a in argv if "=" in a]), [])
