"""The families of runs as they are tried on a device, real or simulated."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import dqnlm
from dqnlm.agent.recorded_update import PLAIN
from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer
from tests.golden import driver
from tests.golden.runs import Run

PACKAGE = Path(dqnlm.__file__).parent
Waits = Counter[str]  # "what at file:line code" -> how often
ROUNDS = 3  # that are watched, after some updates
# Where a run may wait, by its parts that are on the host: what a reward of whole texts, a partner or a game reads and answers,
# the width of a batch of rows of very different lengths, and code of transformers.
TEXT_REWARD = {"rewards/text.py"}
LENGTHS = {"types.py"}
ALLOWED: dict[str, set[str]] = {
    "judged_munchausen": TEXT_REWARD, "logged": LENGTHS, "pretrained": LENGTHS | {"networks/pretrained.py"},
    "pretrained_lora": LENGTHS | {"networks/pretrained.py"}, "cartpole": {"envs/gymnasium_env.py"},
    "pairs": TEXT_REWARD | LENGTHS | {"agent/generation.py", "agent/actor.py"}, "dialogue_online": {"envs/dialogue.py"},
    "recorded_dialogue": {"envs/dialogue.py"},
}  # fmt: skip


def typed_for_device(run: Run) -> list[str]:
    """The run's settings, on a CUDA device."""
    return [word for word in driver._typed(run) if not word.startswith("device=")] + ["device=cuda:0"]


def prepared(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goes to an empty folder with the run's data in it; skips where a package of the run is missing."""
    for package in run.packages:
        pytest.importorskip(package)
    driver.prepare(run, place)
    monkeypatch.chdir(place)
    monkeypatch.delenv("DQNLM_DATA_DIR", raising=False)


def built(run: Run, place: Path, *more: str) -> Trainer:
    """The run on the device, ready to train."""
    typed = [*typed_for_device(run), *more]
    composed, choices = composition.compose(typed)
    Path("run").mkdir(exist_ok=True)
    return launch.build(validation.validate(composed, choices, typed), RunDirectory(place / "run"), choices=choices)


def watched(recording: Callable[[], AbstractContextManager[Waits]], trainer: Trainer) -> Waits:
    """Trains until updates have been recorded, where they can be, then a few rounds more under observation."""
    while trainer.components.learner.updates <= PLAIN and trainer.rounds_done < trainer.total_rounds - ROUNDS:
        trainer.train_round(trainer.phase)
    before = trainer.components.updates
    with recording() as waits:
        for _ in range(ROUNDS):
            trainer.train_round(trainer.phase)
    assert trainer.components.updates > before
    return waits


def finish(trainer: Trainer) -> None:
    """Logs, evaluates and saves."""
    trainer.recorder.open()
    trainer.components.console.start_progress(trainer.rounds_done, trainer.total_rounds, trainer.rounds)
    trainer.recorder.log(trainer.rounds_done)
    trainer.recorder.evaluate("evaluated")
    trainer._save()
    trainer.recorder.close()


def files(waits: Waits) -> set[str]:
    """The package's files in which the waits were seen."""
    return {wait.rpartition(" at ")[2].split(":")[0] for wait in waits}


def package_line() -> str:
    """The innermost line of the package that is running: file:line code."""
    for frame in reversed(traceback.extract_stack()):
        if PACKAGE in Path(frame.filename).parents and Path(frame.filename).name != "cuda_graphs.py":  # which asks for it
            return f"{Path(frame.filename).relative_to(PACKAGE)}:{frame.lineno} {frame.line}"
    return "?"
