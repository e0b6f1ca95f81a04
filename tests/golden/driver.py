"""All that the checks of this folder use of dqnlm: to start, kill, resume and ask a run, and to read what it left."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform as machine
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm import cli
from dqnlm.builder import launch
from dqnlm.config import composition, validation
from tests.golden import data_files
from tests.golden.runs import Run
from tests.helpers import runs as tools

CLOCK = ("wall_s", "time/transitions_per_second")
FOLDER = Path("run")  # relative, so that no figure and no file can depend on where the check runs


def prepare(run: Run, place: Path) -> None:
    """An empty working folder with the run's data in it."""
    place.mkdir(parents=True)
    data_files.write(place, run.data)


def train(run: Run, place: Path) -> Path:
    """The run from its beginning to its end, killed and resumed on the way where it says so; its folder."""
    with contextlib.chdir(place):
        if run.killed_at is not None:
            begin_and_kill(run)
            launch.resume(FOLDER, [])
        else:
            _start(run)
    return place / FOLDER


def begin_and_kill(run: Run) -> None:
    """In the present folder; leaves what `kill -9` leaves."""
    assert run.killed_at is not None
    with pytest.MonkeyPatch.context() as patch:
        tools.at_rollout(patch, run.killed_at, tools.kill)
        with pytest.raises(tools.Killed):
            _start(run)


def train_by_command(run: Run, place: Path) -> Path:
    """As `train`, by `dqnlm train`, which names the run's folder itself."""
    with contextlib.chdir(place):
        assert command("train", *_typed(run), "output_dir=outputs") == 0
    (folder,) = (place / "outputs").glob("*/*")
    return folder


def _typed(run: Run) -> list[str]:
    return list({setting.split("=")[0]: setting for setting in run.settings}.values())  # the last one said counts


def _start(run: Run) -> None:
    typed = _typed(run)
    composed, choices = composition.compose(typed)
    FOLDER.mkdir()
    checked = validation.validate(composed, choices, typed)
    launch.start(checked, FOLDER, choices=choices, command_line=["dqnlm", "train", *typed])


def command(*words: str) -> int:
    """`dqnlm WORDS` in this process; its exit code."""
    return cli.main(list(words))


# What a run left


def record(folder: Path, lines_before: int = 0) -> dict[str, Any]:
    """Metrics without those of the clock (lines that were there before a resume are left out), samples, and tensors."""
    figures = tools.lines(folder / "metrics.jsonl")[lines_before:]
    return {
        "metrics": [{name: value for name, value in line.items() if name not in CLOCK} for line in figures],
        "samples": tools.lines(folder / "samples.jsonl"),
        "tensors": {part: digests(value) for part, value in tensors(folder).items()},
    }


def count_lines(folder: Path) -> int:
    """Lines of figures that the run has."""
    return len(tools.lines(folder / "metrics.jsonl"))


def tensors(folder: Path) -> dict[str, Any]:
    """The parts of the last checkpoint that hold tensors, by what they are."""
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    policy, training = (torch.load(last / f"{part}.pt", weights_only=True) for part in ("policy", "training"))
    learner = training["learner"]
    return {
        "network": policy["network"], "target": learner["target"], "optimizer": learner["optimizer"],
        "buffer": training["buffer"],
    }  # fmt: skip


def digests(nested: Any) -> list[str]:
    """Each tensor in order as dtype, shape and the first 16 digits of the SHA-256 of its bytes; names are left out."""
    if isinstance(nested, Tensor):
        plain = nested.detach().cpu().contiguous()
        content = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        return [f"{str(plain.dtype)[6:]} {list(plain.shape)} {hashlib.sha256(content).hexdigest()[:16]}"]
    if isinstance(nested, dict):
        return [found for value in nested.values() for found in digests(value)]
    if isinstance(nested, (list, tuple)):
        return [found for value in nested for found in digests(value)]
    return []


def platform(packages: tuple[str, ...] = ()) -> dict[str, str]:
    """What decides the last bits of a figure."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "torch": torch.__version__, "vector instructions": torch.backends.cpu.get_cpu_capability(), "processor": _processor(),
        **versions,
    }  # fmt: skip


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return machine.processor() or machine.machine()


@contextlib.contextmanager
def without_data_folder() -> Iterator[None]:
    """Without the folder of data sets that the environment names: what lies there must not decide what a run reads."""
    before = os.environ.pop("DQNLM_DATA_DIR", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["DQNLM_DATA_DIR"] = before
