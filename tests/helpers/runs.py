"""Tiny runs for the tests of the core: a text, settings, starting and resuming in this process, comparing two runs."""

from __future__ import annotations

import copy
import functools
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dqnlm.builder import launch
from dqnlm.config import catalogue, composition, run_config, validation
from dqnlm.runs.checkpoint import step_folders
from dqnlm.training.phases import Phase
from dqnlm.training.trainer import Trainer

WORDS = ["tea", "at", "ten", "the", "sea", "hen", "seat", "neat", "east", "net", "heat", "sent", "a", "nest", "tenth"]


def write_text(path: Path, characters: int = 4000, seed: int = 0, words: list[str] = WORDS) -> Path:
    """Lines of random words: some structure, eight different characters."""
    draw, text = random.Random(seed), ""
    while len(text) < characters:
        text += " ".join(draw.choices(words, k=6)) + "\n"
    path.write_text(text[:characters], encoding="utf-8")
    return path


# One layer, width 16, context 16, some rollouts; two log points, evaluations and checkpoints fall apart.
TINY = [
    "data=text_file", "device=cpu", "threads=1", "logger=none", "network.layers=1", "network.width=16", "network.context=16",
    "network.heads=2", "env.num_envs=4", "env.horizon=8", "trainer.rollouts=12", "trainer.batch_size=4", "trainer.log_every=2",
    "evaluation.every=6", "checkpoint.every=3", "checkpoint.minutes=null", "evaluation.samples=1",
    "evaluation.sample_tokens=12", "evaluation.episodes=4", "progress=false", "buffer.capacity=200",
    "exploration.fraction=0.5", "optimizer.warmup_updates=2",
]  # fmt: skip


def tiny(text: Path | None, *overrides: str) -> list[str]:
    """The tiny settings with changes; `key=value` replaces, and a new network or exploration drops settings that it lacks."""
    chosen = {o.split("=")[0]: o.split("=")[1] for o in overrides if not o.startswith("+")}
    lacking = {
        "gru": ["network.heads"], "window_mlp": ["network.heads"],
        "table": ["network.heads", "network.layers", "network.width"],
        "pretrained": ["network.heads", "network.layers", "network.width"],
        "boltzmann": ["exploration.fraction"], "greedy": ["exploration.fraction"], "reference": ["exploration.fraction"],
        "probability_matching": ["exploration.fraction"], "adam": [], "behaviour_cloning": ["exploration.fraction"],
        "path_consistency": ["exploration.fraction"], "rainbow": ["exploration.fraction"], "tbrm": ["exploration.fraction"],
    }  # fmt: skip
    names = (chosen.get(group, "") for group in ("network", "exploration", "algorithm"))
    dropped = {key for name in names for key in lacking.get(name, [])} | set(chosen)
    path = [] if text is None else [f"data.path='{text}'"]
    return [*(o for o in TINY if o.split("=")[0] not in dropped), *path, *overrides]


@functools.cache
def _composed(chosen: tuple[str, ...], values: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    composed, choices = composition.compose(chosen)
    return run_config.apply_overrides(validation.validate(composed, choices, chosen), values), choices


def settings(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Composed and validated, as the command line does it; what takes long is kept for the next run."""
    groups = catalogue.groups()
    chosen = tuple(o for o in overrides if o.split("=")[0].lstrip("+") in groups)
    common = tuple(o for o in overrides if o in TINY and o not in chosen)
    checked, choices = _composed(chosen, common)
    changes = [o for o in overrides if o not in chosen and o not in common]
    return run_config.apply_overrides(checked, changes), copy.deepcopy(choices)


def start(folder: Path, text: Path | None, *overrides: str) -> dict[str, Any]:
    """A run from its beginning; its summary."""
    checked, choices = settings(tiny(text, *overrides))
    folder.mkdir(parents=True)
    return launch.start(checked, folder, choices=choices, command_line=["dqnlm", "train"])


class Killed(BaseException):
    """Stands for kill -9: nothing of the program handles it."""


def at_rollout(monkeypatch: Any, number: int, action: Callable[[Trainer], None]) -> None:
    """Lets `action(trainer)` happen once, just after rollout `number`."""
    happened: list[int] = []

    def watched(original: Callable[[Trainer, Phase], None]) -> Callable[[Trainer, Phase], None]:
        def one_round(trainer: Trainer, phase: Phase) -> None:
            original(trainer, phase)
            if trainer.rounds_done == number and not happened:
                happened.append(number)
                action(trainer)

        return one_round

    monkeypatch.setattr(Trainer, "train_round", watched(Trainer.train_round))


def kill(trainer: Trainer) -> None:
    raise Killed


def send(number: signal.Signals) -> Callable[[Trainer], None]:
    """A signal to this very process."""
    return lambda trainer: os.kill(os.getpid(), number)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    return [
        {k: v for k, v in line.items() if k != "wall_s" and not k.startswith("time/")}
        for line in lines(run / "metrics.jsonl")
    ]


def state(run: Path) -> dict[str, Any]:
    """All that the last checkpoint holds, without what the clock decides (the size of the log is its number of digits)."""
    folder = step_folders(run / "checkpoints")[-1]
    parts = {part: torch.load(folder / f"{part}.pt", weights_only=True) for part in ("policy", "training")}
    trainer = parts["training"]["trainer"]["journal"]
    for name in ("wall_s", "mark", "sizes"):
        del trainer[name]
    trainer["last"] = {k: v for k, v in trainer["last"].items() if not k.startswith("time/")}
    return parts


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested states differ, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [found for i, (x, y) in enumerate(zip(a, b, strict=True)) for found in differences(x, y, f"{path}/{i}")]
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    return [] if a == b and type(a) is type(b) else [path]


def assert_same_run(run: Path, reference: Path) -> None:
    """Metrics, samples, and the whole saved state: weights, target, optimizer, buffer, environments, random states."""
    assert metrics(run) == metrics(reference)
    assert (run / "samples.jsonl").read_bytes() == (reference / "samples.jsonl").read_bytes()
    found = differences(state(run), state(reference))
    assert not found, found


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """As `lines`, of a file that is being written: without what follows the last line break."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
