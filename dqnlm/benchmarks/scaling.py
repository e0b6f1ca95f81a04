"""scaling: how the time of an update and of a step of acting grows with the work, as exponents.

Each setting is varied alone, around the size of `benchmark/nanogpt_cpu` (4 layers, width 128, 16 x 64 tokens). The exponent is
the slope of a straight line through log time over log size (least squares): 1 is in proportion, below 1 a fixed cost is left.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dqnlm.agent.generation import generate
from dqnlm.benchmarks.runs import SMALL, TEXT, built
from dqnlm.benchmarks.timing import Row, alternate
from dqnlm.training.trainer import Trainer

TOKENS, ENVIRONMENTS = 16, 16  # of a timed piece of acting
FIRST_CHARACTER = 0x4E00  # of the many that Unicode has for Chinese
BASE = {"trainer.batch_size": "16", "env.num_envs": "16", "gamma": "0.5"}
Settings = Callable[[int], dict[str, str]]


def _length(size: int) -> dict[str, str]:
    return {"env.horizon": str(size), "network.context": str(size)}


def _batch(size: int) -> dict[str, str]:
    return {"trainer.batch_size": str(size), "env.num_envs": str(size)}


def _vocabulary(size: int) -> dict[str, str]:
    """A text of so many different characters, drawn alike, in a file of its own."""
    file = Path(tempfile.gettempdir()) / f"dqnlm-bench-{size}-{os.getpid()}.txt"
    draw = random.Random(size)
    kinds = [chr(FIRST_CHARACTER + i) for i in range(size)]
    file.write_text("".join(kinds) * 2 + "".join(draw.choices(kinds, k=50_000)) + "".join(kinds), encoding="utf-8")
    return {"data.path": str(file)}


def _width(size: int) -> dict[str, str]:
    return {"network.width": str(size)}


# What is varied, its sizes, and the settings of a size; then what is timed.
UPDATES: tuple[tuple[str, Sequence[int], Settings], ...] = (
    ("batch, rows of 64", (8, 16, 32, 64), _batch),
    ("length, 16 rows", (32, 64, 128, 256), _length),
    ("vocabulary, 16 x 64", (300, 600, 1200, 2400), _vocabulary),
    ("width, 16 x 64", (64, 128, 256, 512), _width),
)
ACTING: tuple[tuple[str, Sequence[int], Settings], ...] = (
    ("context, 16 environments", (32, 64, 128, 256), _length),
    ("vocabulary, 16 environments", (300, 600, 1200, 2400), _vocabulary),
    ("width, 16 environments", (64, 128, 256, 512), _width),
)
NUMBERS = (1, 4, 16, 64, 256)  # of environments


def rows(rounds: int, device: str, most: int | None = None) -> Iterator[Row]:
    """A row for each thing that is varied; `most`: only so many sizes of each, for a try."""
    for name, sizes, settings in UPDATES:
        yield _row(f"update, {name}", {size: _time_update(settings(size), rounds, device) for size in sizes[:most]})
    for name, sizes, settings in ACTING:
        yield _row(f"step of acting, {name}", {size: _time_acting(settings(size), rounds, device) for size in sizes[:most]})
    numbers = {number: _time_acting({}, rounds, device, number) for number in NUMBERS[:most]}
    yield _row("step of acting, environments", numbers)


def exponent(times: dict[int, float]) -> float:
    """Slope of log time over log size."""
    slope, _ = np.polyfit([math.log(size) for size in times], [math.log(seconds) for seconds in times.values()], 1)
    return float(slope)


def _row(sides: str, times: dict[int, float]) -> Row:
    note = ", ".join(f"{size:,}: {seconds * 1e3:.2f} ms" for size, seconds in times.items())
    return Row("scaling", sides, exponent(times), None, "exponent", note=note)


@contextlib.contextmanager
def _built(settings: dict[str, str], device: str) -> Iterator[Trainer]:
    text = ("data=text_file",) if "data.path" in settings else TEXT
    try:
        with built(*text, SMALL, *(f"{name}={value}" for name, value in (BASE | settings).items()), f"device={device}") as run:
            yield run
    finally:
        if "data.path" in settings:
            Path(settings["data.path"]).unlink()


def _time_update(settings: dict[str, str], rounds: int, device: str) -> float:
    with _built(settings, device) as run:
        run.train_round(run.phase)
        return _median(lambda: _update(run), rounds)


def _update(run: Trainer) -> None:
    run.components.learner.update(run.components.buffer.sample(run.batch_size))


def _time_acting(settings: dict[str, str], rounds: int, device: str, environments: int = ENVIRONMENTS) -> float:
    """Of one step, averaged over a row's last TOKENS: the cache is nearly full."""
    with _built(settings, device) as run:
        network = run.components.policy.network.eval()
        assert network.max_observations is not None, "a transformer"
        prompt_ES = torch.zeros(environments, network.max_observations - 1 - TOKENS, dtype=torch.int64, device=device)

        def work() -> None:
            for _ in generate(network, prompt_ES, lambda output: output["q"][..., 0].argmax(-1), TOKENS):
                pass

        def only_prompt() -> None:
            state = network.initial_state(environments, device)
            network.prefill(prompt_ES, state)

        times = alternate({"all": work, "prompt": only_prompt}, rounds)
        steps = [a - b for a, b in zip(times["all"], times["prompt"], strict=True)]
        return max(statistics.median(steps), 1e-9) / TOKENS


def _median(work: Callable[[], object], rounds: int) -> float:
    return statistics.median(alternate({"work": work}, rounds)["work"])
