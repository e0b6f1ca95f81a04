"""utilisation: the share of the device's arithmetic that an update uses (MFU: model FLOP/s utilisation, Chowdhery et al. 2022).

Operations are counted by torch (matrix products and attention of the online, target and backward passes; a multiply-add is
two). The ceiling is what one large bfloat16 matrix product reaches on the same device in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from dqnlm.benchmarks.runs import LARGE, TEXT, built
from dqnlm.benchmarks.timing import Row
from dqnlm.training.trainer import Trainer
from dqnlm.types import Batch

ONE_GUESS = ("exploration=reference", "env.guesses_per_position=1", "env.num_envs=64", "trainer.batch_size=64")
ALL_ACTIONS = (
    "feedback=all_actions", "target=none", "projection=linear", "head=scalar", "head.loss=logistic",
    "head.initial_return=0.015", *ONE_GUESS,
)  # fmt: skip
PLAIN, COMPILED = "learner.compile=false", "learner.compile=true"
VARIANTS = {
    "taken, plain": (PLAIN,), "taken, compiled": (COMPILED,),
    "taken with a target network (gamma .5), compiled": (COMPILED, "gamma=0.5"),
    "all actions, plain": (*ALL_ACTIONS, PLAIN), "all actions, compiled": (*ALL_ACTIONS, COMPILED),
    "cloning (cross-entropy), compiled": ("algorithm=behaviour_cloning", "policy.kind=boltzmann", *ONE_GUESS, COMPILED),
    "taken, 12 layers of width 768, compiled": ("network.layers=12", "network.heads=12", "network.width=768", COMPILED),
}  # fmt: skip
SIDE = 8192  # of the square matrices of the ceiling
UPDATES = 20  # timed together: between two of them nothing waits for the device


def rows(rounds: int, device: str, *smaller: str) -> Iterator[Row]:
    """An update at the size of `shakespeare_gpu`, plain and compiled, of several kinds; `smaller`: further settings."""
    ceiling = operations_per_second(device)
    yield Row("utilisation", "bfloat16 matrix product, 8192 x 8192 x 8192", ceiling / 1e12, None, "TFLOP/s")
    for name, settings in VARIANTS.items():
        with built(*TEXT, LARGE, *settings, f"device={device}", *smaller) as run:
            count, seconds = _count(run), _seconds(run, rounds)
        note = f"{seconds * 1e3:.2f} ms an update of {count / 1e12:.3f} TFLOP"
        yield Row(
            "utilisation", f"{name}: update / ceiling", count / seconds / 1e12, ceiling / 1e12, "TFLOP/s",
            count / seconds / ceiling, ">= 0.40", note,
        )  # fmt: skip


def _count(run: Trainer) -> float:
    """Floating-point operations of one update, counted where nothing is compiled."""
    learner, batch = run.components.learner, _batch(run)
    compiled, recorded = (learner.forwards._run_online, learner.forwards._run_target), learner.recorded
    learner.recorded = None
    learner.forwards._run_online, learner.forwards._run_target = learner.network, learner.target.network
    with FlopCounterMode(display=False) as counter:
        learner.update(batch)
    learner.forwards._run_online, learner.forwards._run_target = compiled
    learner.recorded = recorded
    return float(counter.get_total_flops())


def _batch(run: Trainer) -> Batch:
    if not run.components.learner.updates and not int(run.components.buffer.transitions()):
        run.train_round(run.phase)
    return run.components.buffer.sample(run.batch_size)


def _seconds(run: Trainer, rounds: int) -> float:
    """Of one update with its draw: the median over rounds of UPDATES each."""
    parts, times = run.components, []
    for turn in range(rounds + 1):
        _wait()
        started = time.perf_counter()
        for _ in range(UPDATES):
            parts.learner.update(parts.buffer.sample(run.batch_size))
        _wait()
        if turn:
            times.append((time.perf_counter() - started) / UPDATES)
    return statistics.median(times)


def operations_per_second(device: str, side: int = SIDE) -> float:
    """Of a large matrix product of random numbers in bfloat16, the median of ten."""
    a_NN, b_NN = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    work: Callable[[], object] = lambda: a_NN @ b_NN  # noqa: E731
    times = []
    for turn in range(13):
        _wait()
        started = time.perf_counter()
        work()
        _wait()
        if turn >= 3:
            times.append(time.perf_counter() - started)
    return 2.0 * side**3 / statistics.median(times)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
