#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Speed, as ratios within one run: both sides of a ratio are timed alternately in this process, on the same threads.

OMP_NUM_THREADS=1 scripts/python studies/benchmark.py            # all but the peer
OMP_NUM_THREADS=1 scripts/python studies/benchmark.py --peer     # also stable-baselines3, if it is installed

update      one DQN update (online, target, backward, step) against one cross-entropy step, same network and batch
acting      free-running actions with the KV cache against reading the whole row anew for each token
memory      bytes a transition in the replay buffer
start       `dqnlm --help`; launch to the first logged update
peer        transitions trained a second: stable-baselines3 DQN with the same transformer on one window a transition
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from dqnlm.builder import launch
from dqnlm.config.composition import compose
from dqnlm.config.validation import validate
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer
from studies.runs import train

PEER_DECISIONS = 640  # decisions that stable-baselines3 is timed on, after its warm-up


def trainer_for(*overrides: str) -> Trainer:
    """A run that is built but not started, on bundled text."""
    settings = ["data=bundled", "data.characters=200000", "logger=none", "progress=false", *overrides]
    config, choices = compose(settings)
    folder = Path(tempfile.mkdtemp(prefix="dqnlm-benchmark-"))
    return launch.build(validate(config, choices, settings), RunDirectory(folder))[0]


def alternate(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work, one after the other in each round, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 2):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= 2:  # two rounds of warm-up
                times[name].append(time.perf_counter() - started)
    return times


def ratio(over: list[float], under: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def benchmark_update(table: Table, rounds: int) -> float:
    """DQN update against a supervised step; returns transitions a second of the update."""
    trainer = trainer_for("+experiment=benchmark/nanogpt_cpu", "gamma=0.5", "trainer.batch_size=16")
    parts = trainer.components
    trainer.train_round(trainer.phase)
    twin = trainer_for(
        "+experiment=benchmark/nanogpt_cpu", "algorithm=behaviour_cloning", "trainer.batch_size=16"
    ).parts
    network, optimization = twin.policy.network, twin.learner.optimization

    def supervised() -> None:
        batch = parts.buffer.sample(16)
        raw_BTA = network(batch.observation_BS[:, :-1])["q"].squeeze(-1)
        loss = F.cross_entropy(raw_BTA.flatten(0, 1), batch.observation_BS[:, 1:].flatten())
        optimization.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0, foreach=True)
        optimization.step(0)

    times = alternate({"dqn": lambda: parts.learner.update(parts.buffer.sample(16)), "supervised": supervised}, rounds)
    dqn, other = (statistics.median(times[k]) for k in ("dqn", "supervised"))
    table.add_row(
        "update",
        "DQN / cross-entropy step",
        f"{dqn * 1e3:.1f} ms",
        f"{other * 1e3:.1f} ms",
        f"{ratio(times['dqn'], times['supervised']):.2f}",
        "<= 1.5 (floor 1.33)",
    )
    table.add_row(
        "memory",
        "replay buffer",
        f"{parts.buffer.bytes_per_transition} bytes a transition",
        "",
        "",
        "<= 2 x token bytes + 5",
    )
    return 16 * 64 / dqn


def benchmark_acting(table: Table, rounds: int) -> None:
    """64 free-running tokens in 16 environments, with and without a cache."""
    network = trainer_for("+experiment=benchmark/nanogpt_cpu").components.policy.network.eval()
    start_E = torch.zeros(16, dtype=torch.int64, device=next(network.parameters()).device)

    @torch.no_grad()
    def cached() -> None:
        state, token_E = network.initial_state(16, start_E.device), start_E
        for _ in range(64):
            output, state = network.step(token_E, state)
            token_E = output["q"][..., 0].argmax(-1)

    @torch.no_grad()
    def anew() -> None:
        row_ES = start_E[:, None]
        for _ in range(64):
            token_E = network(row_ES)["q"][:, -1, :, 0].argmax(-1)
            row_ES = torch.cat([row_ES, token_E[:, None]], 1)

    times = alternate({"anew": anew, "cached": cached}, rounds)
    anew_s, cached_s = (statistics.median(times[k]) for k in ("anew", "cached"))
    table.add_row(
        "acting",
        "whole row / KV cache, 16 x 64 tokens",
        f"{anew_s * 1e3:.0f} ms",
        f"{cached_s * 1e3:.0f} ms",
        f"{ratio(times['anew'], times['cached']):.2f}",
        "> 1",
    )


def benchmark_start(table: Table) -> None:
    """Seconds of `--help`, and from launch to the end of a run of one update."""
    command = [sys.executable, "-m", "dqnlm", "--help"]
    subprocess.run(command, capture_output=True, check=True)
    helped = _best_of_three(lambda _: subprocess.run(command, capture_output=True, check=True))
    table.add_row("start", "dqnlm --help", f"{helped:.2f} s", "", "", "< 0.3 s warm")
    one = ("+experiment=debug/smoke", "trainer.rollouts=1", "trainer.log_every=1")
    with tempfile.TemporaryDirectory(prefix="dqnlm-benchmark-") as folder:
        seconds = _best_of_three(lambda turn: train(Path(folder) / f"run_{turn}", *one))
    table.add_row("start", "launch to the end of a run of one update, no logger", f"{seconds:.2f} s", "", "", "")


def _best_of_three(work: Callable[[int], object]) -> float:
    """Seconds of the quickest turn; `work` is given its number."""
    times = []
    for turn in range(3):
        started = time.perf_counter()
        work(turn)
        times.append(time.perf_counter() - started)
    return min(times)


def benchmark_peer(table: Table, ours: float) -> None:
    """stable-baselines3 DQN, the same transformer as feature extractor, one window of 64 a transition."""
    try:
        from studies.peers.sb3 import transitions_per_second
    except ImportError as error:
        table.add_row("peer", f"not measured: {error.name} is missing (pip install stable-baselines3)", "", "", "", "")
        return
    network = trainer_for("+experiment=benchmark/nanogpt_cpu").components.policy.network
    peer = transitions_per_second(network, PEER_DECISIONS)
    table.add_row(
        "peer",
        "transitions trained a second, ours / stable-baselines3",
        f"{ours:,.0f}",
        f"{peer:,.0f}",
        f"{ours / peer:.0f}",
        ">= 50",
    )


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds of each pair (default: 30)")
    parser.add_argument("--peer", action="store_true", help="also time stable-baselines3")
    arguments = parser.parse_args()
    table = Table(title=f"dqnlm benchmark, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for heading in ("what", "sides", "first", "second", "ratio", "wanted"):
        table.add_column(heading)
    ours = benchmark_update(table, arguments.rounds)
    benchmark_acting(table, max(5, arguments.rounds // 3))
    benchmark_start(table)
    if arguments.peer:
        benchmark_peer(table, ours)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
