#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""CartPole-v1 with stable-baselines3's DQN under the RL-Zoo's settings, and with ours, alternately, one thread each.

    OMP_NUM_THREADS=1 scripts/python studies/peers/cartpole.py --seeds 0,1,2 --ours --ours-zoo

Prints a JSON line a run: party, seed, return (greedy mean of the final weights over 100 fresh episodes), wall_s (seconds
of training; start of the program and evaluation left out), and at the end a table with the ratio of wall times.
`--ours` is +experiment=cartpole, `--ours-zoo` +experiment=cartpole_zoo: the settings that stable-baselines3 has here.
Its target_update_interval counts steps while it plays; during the 128 updates after each 256 steps the target stays as
it is, so that the interval of 10 has the effect of a copy each 128 updates.

`--cleanrl FILE` is CleanRL's dqn.py of a checkout, run as it is with its own settings: its wall time without the start of the
program (a run of one step is subtracted). It reports no return of the final weights.

stable-baselines3 is no dependency of dqnlm. To install it beside: pip install stable-baselines3 gymnasium
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dqnlm.config.composition import compose
from dqnlm.reporting.loading import read_lines
from studies.runs import train

ID, STEPS, EPISODES, PEER = "CartPole-v1", 50_000, 100, "stable-baselines3"
# github.com/DLR-RM/rl-baselines3-zoo, hyperparams/dqn.yml, CartPole-v1
ZOO: dict[str, Any] = {
    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99,
    "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
}  # fmt: skip


def train_peer(seed: int, steps: int) -> tuple[float, float]:
    """(return, seconds of training) of stable-baselines3's DQN."""
    import gymnasium
    from stable_baselines3 import DQN

    model = DQN("MlpPolicy", ID, seed=seed, device="cpu", **ZOO)
    started = time.perf_counter()
    model.learn(steps)
    wall_s = time.perf_counter() - started
    env, returns = gymnasium.make(ID), []
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=1_000_000 * (seed + 1) + episode)  # no seed that training has seen
        total, over = 0.0, False
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(int(action))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return statistics.mean(returns), wall_s


def train_cleanrl(script: Path, seed: int, steps: int) -> tuple[float, float]:
    """(NaN, seconds of training) of CleanRL's script, in a process of its own.

    Raises:
        SystemExit: it fails.
    """

    def seconds(count: int) -> float:
        with tempfile.TemporaryDirectory(prefix="peer-cleanrl-") as folder:
            started = time.perf_counter()
            words = [sys.executable, str(script.resolve()), "--seed", str(seed), "--total-timesteps", str(count)]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{script} failed:\n{done.stderr[-2000:]}")
            return time.perf_counter() - started

    start_s = seconds(1)
    return math.nan, seconds(steps) - start_s


def train_ours(experiment: str, seed: int, steps: int) -> tuple[float, float]:
    """(return, seconds of training) of `dqnlm train +experiment=EXPERIMENT`, in a process of its own.

    Raises:
        SystemExit: it fails.
    """
    config, _ = compose([f"+experiment={experiment}"])
    rollouts = math.ceil(steps / (config["env"]["num_envs"] * config["trainer"]["rollout_steps"]))
    with tempfile.TemporaryDirectory(prefix="peer-cartpole-") as folder:
        run = Path(folder) / f"{experiment}_{seed}"
        length = [f"trainer.rollouts={rollouts}", f"evaluation.episodes={EPISODES}"]
        summary = train(run, f"+experiment={experiment}", f"seed={seed}", "device=cpu", *length)
        # The log point of the last round is written just before the evaluation that ends the run.
        logged = [point for point in read_lines(run / "metrics.jsonl", []) if "time/transitions_per_second" in point]
        return float(summary["last"]["eval/return"]), float(logged[-1]["wall_s"])


def show(results: list[dict[str, Any]]) -> None:
    """A line a party: returns, and wall time beside the peer's with the same seed."""
    peer = {r["seed"]: r["wall_s"] for r in results if r["party"] == PEER}
    table = Table(title=f"{ID}, torch {torch.__version__}, one thread; medians over seeds")
    for heading in ("party", "return", "return of each seed", "wall s", f"times the speed of {PEER}"):
        table.add_column(heading, justify="left" if heading == "party" else "right")
    for party in {r["party"]: None for r in results}:
        own = [r for r in results if r["party"] == party]
        ratio = statistics.median(peer[r["seed"]] / r["wall_s"] for r in own)
        returns = [r["return"] for r in own]
        wall_s = statistics.median(r["wall_s"] for r in own)
        each = ", ".join(f"{value:.1f}" for value in returns)
        table.add_row(party, f"{statistics.median(returns):.1f}", each, f"{wall_s:.1f}", f"{ratio:.2f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    """The peer and ours take turns with each seed, so that a busy machine slows all alike."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=STEPS, help="environment steps (default: %(default)s)")
    parser.add_argument("--ours", action="store_true", help="also dqnlm train +experiment=cartpole")
    parser.add_argument("--cleanrl", type=Path, metavar="FILE", help="also CleanRL's dqn.py of a checkout")
    parser.add_argument("--ours-zoo", action="store_true", help="also dqnlm train +experiment=cartpole_zoo")
    options = parser.parse_args()
    try:
        import gymnasium  # noqa: F401
        import stable_baselines3  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"{error.name} is missing: pip install stable-baselines3 gymnasium") from None
    torch.set_num_threads(1)
    ours = [name for name, asked in (("cartpole", options.ours), ("cartpole_zoo", options.ours_zoo)) if asked]
    parties: dict[str, Callable[[int], tuple[float, float]]] = {PEER: lambda seed: train_peer(seed, options.steps)}
    if options.cleanrl is not None:
        parties["CleanRL dqn.py"] = lambda seed: train_cleanrl(options.cleanrl, seed, options.steps)
    for name in ours:
        parties[f"dqnlm {name}"] = lambda seed, name=name: train_ours(name, seed, options.steps)  # type: ignore[misc]
    results: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        for party, train_party in parties.items():
            value, wall_s = train_party(seed)
            results.append({"party": party, "seed": seed, "return": round(value, 2), "wall_s": round(wall_s, 2)})
            print(json.dumps(results[-1]), flush=True)
    show(results)


if __name__ == "__main__":
    main()
