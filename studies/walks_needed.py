#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""How many generated walks an online learner needs from a clone of the logged walks to a mean greedy optimality of .99.

    scripts/python studies/walks_needed.py --seeds 10,11,12,13,14 --graph 1000 --output-dir outputs/walks

For each seed: behaviour cloning of the 1,000 logged walks (500 updates), then each learner from those weights, writing walks
of its own and being paid for each. Every generated walk counts, finished by an illegal step or not; the greedy policy is
evaluated on all 20 starts after each rollout of 16 walks or more, and these evaluations do not count. A run whose
summary is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from studies.runs import train

GOAL = 0.99
LEARNERS = {
    "double_dqn": ["algorithm=double_dqn", "pretraining.init_scale=0.1"],
    "soft_q": [
        "algorithm=soft_q", "bootstrap.temperature=0.05", "exploration.temperature=0.05", "pretraining.init_scale=0.05",
    ],
    "tbrm": [
        "algorithm=tbrm", "objective.trajectory.temperature=0.05", "exploration.temperature=0.05", "pretraining.init_scale=0.05",
        "trainer.updates_per_rollout=8",
    ],
}  # fmt: skip


def needed(folder: Path) -> tuple[float | None, float]:
    """Walks until the first evaluation at the goal (None: never), and the last figure."""
    walks, reached, last = 0.0, None, 0.0
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        walks = record.get("rollout/episodes", walks)
        if "eval/return" in record:
            last = record["eval/return"]
            reached = walks if reached is None and last >= GOAL else reached
    return reached, last


def main() -> int:
    """Trains every learner with every seed, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="10,11,12,13,14")
    parser.add_argument("--graph", type=int, default=1000, help="seed of the graph (default: 1000)")
    parser.add_argument("--learners", default=",".join(LEARNERS), help=f"of {', '.join(LEARNERS)}")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/walks_needed"))
    arguments = parser.parse_args()
    seeds, learners = arguments.seeds.split(","), arguments.learners.split(",")
    found: dict[str, list[float | None]] = {name: [] for name in learners}
    for seed in seeds:
        common = [f"seed={seed}", f"env.graph_seed={arguments.graph}"]
        clone = (arguments.output_dir / f"clone_{seed}").resolve()
        train(clone, "+experiment=random_walks", "algorithm=behaviour_cloning", "trainer.offline_rounds=500", *common)
        for name in learners:
            run = (arguments.output_dir / f"{name}_{seed}").resolve()
            train(run, "+experiment=random_walks_online", f"pretraining.init_from={clone}", *LEARNERS[name], *common)
            walks, last = needed(run)
            found[name].append(walks)
            print(
                f"seed {seed}, {name}: {walks if walks is None else round(walks)} walks to {GOAL}, {last:.4f} at the end",
                flush=True,
            )
    print(f"\n| learner | median walks to {GOAL} | least to greatest | never reached |\n| --- | --- | --- | --- |")
    for name, each in found.items():
        reached = sorted(walks for walks in each if walks is not None)
        # A run that never got there counts as more than any.
        median = statistics.median([walks if walks is not None else float("inf") for walks in each])
        spread = f"{reached[0]:.0f} to {reached[-1]:.0f}" if reached else "-"
        print(f"| {name} | {median:.0f} | {spread} | {len(each) - len(reached)} of {len(each)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
