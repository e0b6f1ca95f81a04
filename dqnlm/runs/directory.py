"""Run directories: the files of a run, reserving a new directory, and finding one by a short name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dqnlm.errors import UserError
from dqnlm.utils.permissions import resume_command
from dqnlm.utils.suggest import nearest

RUN_FILES = ("manifest.json", "config.yaml")  # either of them makes a folder a run


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run, below `path`."""

    path: Path

    @property
    def config(self) -> Path:
        """The validated configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Command line, versions, seed, device, commit, data source, JSON."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """Metrics, one JSON object per log point."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """Generated text, one JSON object per evaluation."""
        return self.path / "samples.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of saved states."""
        return self.path / "checkpoints"

    @property
    def summary(self) -> Path:
        """Status and main metrics, written at the end, JSON."""
        return self.path / "summary.json"

    @property
    def test_looks(self) -> Path:
        """Number of times that `dqnlm eval` scored the test part, JSON."""
        return self.path / "test_looks.json"

    @property
    def log(self) -> Path:
        """The console output as plain text."""
        return self.path / "train.log"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def tracking(self) -> Path:
        """The run's name at a service that tracks runs (logger=wandb, logger=trackio), JSON."""
        return self.path / "tracking.json"

    @property
    def is_run(self) -> bool:
        """Whether the directory contains a run."""
        return any((self.path / name).is_file() for name in RUN_FILES)

    def abandon(self) -> None:
        """Removes the run's files after a refused start, so that the corrected command may use the folder."""
        for name in RUN_FILES:
            (self.path / name).unlink(missing_ok=True)


def safe_name(text: str, longest: int = 80) -> str:
    """`text` as a portable path component: no separators, no spaces, no leading dot or dash."""
    name = re.sub(r"[^\w.=,+-]+", "-", text.replace("/", "-")).strip("-.")
    return name[:longest].rstrip("-.") or "run"


def reserve(output_dir: str | Path, experiment: str, now: datetime | None = None) -> Path:
    """Makes `<output_dir>/<YYYY-MM-DD>/<HH-MM-SS>-<experiment>`, with -2, -3 ... where that is taken.

    The folder is made exclusively, so that two runs started in the same second never share one.

    Raises:
        UserError: the folder cannot be made.
    """
    now = now or datetime.now()
    day = Path(output_dir).absolute() / now.strftime("%Y-%m-%d")
    name = f"{now.strftime('%H-%M-%S')}-{safe_name(experiment)}"
    number = 1
    try:
        day.mkdir(parents=True, exist_ok=True)
        while True:
            folder = day / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UserError(
            f"output_dir: cannot make a folder for the run below {Path(output_dir).absolute()}: {error.strerror}\n"
            "  choose another with output_dir=FOLDER"
        ) from error


def require_unused(folder: Path) -> Path:
    """Prepares a folder named by the user (hydra.run.dir=...); it must not contain a run, or runs.

    Raises:
        UserError: it holds one, or cannot be made.
    """
    folder = folder.absolute()
    held = [folder] if RunDirectory(folder).is_run else _runs_below(folder)
    if held:
        raise UserError(
            f"{folder} already contains a run\n"
            f"  to continue it: {resume_command(held[0])}\n  to start another, name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder: {error.strerror}") from error
    return folder


def _folders_in(folder: Path) -> list[Path]:
    """Folders directly below, sorted by name (numbers by value: 10-... comes after 9-...); none where there is no folder."""
    try:
        # Hidden folders are no runs: Hydra keeps a config.yaml of its own in `.hydra`.
        children = [child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(children, key=natural)


def _runs_below(folder: Path) -> list[Path]:
    """Runs directly below, as of a sweep."""
    return [child for child in _folders_in(folder) if RunDirectory(child).is_run]


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key: digits compare by value, the rest as text."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]


def list_runs(output_dir: str | Path) -> list[Path]:
    """All runs below the output folder, oldest first (by name, which holds the time).

    A run or a sweep lies in `<output_dir>/<date>/`, or where a name was given to it (hydra.run.dir=outputs/NAME) in
    `<output_dir>/` itself; the jobs of a sweep lie in its folder.
    """
    runs: list[Path] = []
    for day in _folders_in(Path(output_dir)):
        if RunDirectory(day).is_run:
            runs.append(day)
            continue
        for folder in _folders_in(day):
            runs.extend([folder] if RunDirectory(folder).is_run else _runs_below(folder))
    return runs


def find_run(name: str, output_dir: str | Path) -> Path:
    """Finds a run by name: a folder, `latest`, or a unique prefix of `[<date>/]<time>-<experiment>[/<job>]`.

    Raises:
        UserError: none, or several.
    """
    folder = Path(name)
    if folder.is_dir():
        return _run_at(folder, name)
    runs = list_runs(output_dir)
    if not runs:
        raise UserError(
            f"RUN {name!r}: no runs below {Path(output_dir).absolute()}\n  start one: dqnlm train +experiment=shakespeare"
        )
    if name == "latest":
        return _latest(runs)
    root = Path(output_dir)
    matches = [run for run in runs if any(label.startswith(name.rstrip("/")) for label in _labels(run, root))]
    exact = [run for run in matches if name.rstrip("/") in _labels(run, root)]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    if matches:
        listed = _listed(matches, root)
        raise UserError(f"RUN {name!r} can mean {len(matches)} runs; type more of the name\n{listed}")
    words = {label: run for run in runs for label in [*_labels(run, root), run.name.split("-", 3)[-1]]}
    near = nearest(name, words)
    hint = f"\n  did you mean {words[near].relative_to(root)}?" if near is not None else ""
    raise UserError(
        f"RUN {name!r}: no such folder and no run of that name{hint}\n  the newest runs:\n{_listed(runs[-5:], root)}"
    )


def _run_at(folder: Path, name: str) -> Path:
    if RunDirectory(folder).is_run:
        return folder
    jobs = _runs_below(folder)
    if len(jobs) == 1:
        return jobs[0]
    if jobs:
        raise UserError(f"RUN {name!r} is a sweep of {len(jobs)} runs; choose one\n{_listed(jobs, folder.parent)}")
    raise UserError(f"RUN {name!r}: this folder holds no run (neither {' nor '.join(RUN_FILES)})")


def _latest(runs: Iterable[Path]) -> Path:
    """The run with the newest manifest: names order runs of one clock, a copied or resumed folder may differ."""
    with_manifest = [run for run in runs if RunDirectory(run).manifest.is_file()]
    if not with_manifest:
        raise UserError("RUN 'latest': no run has got as far as writing its manifest.json")
    return max(with_manifest, key=lambda run: (RunDirectory(run).manifest.stat().st_mtime_ns, natural(run)))


def _labels(run: Path, root: Path) -> list[str]:
    """The names of a run: `<date>/<time>-<experiment>[/<job>]` and the same without the date; `<name>` of one without a date."""
    whole = run.relative_to(root).as_posix()
    without_date = whole.partition("/")[2]
    return [whole, without_date] if without_date else [whole]


def _listed(runs: Iterable[Path], root: Path) -> str:
    return "\n".join(f"    {run.relative_to(root).as_posix()}" for run in runs)
