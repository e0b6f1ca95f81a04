#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Do answers get better by reward than by cloning for as long? Translation or dialogue, three seeds.

    scripts/python studies/answers_study.py translation --output-dir outputs/translation_study
    scripts/python studies/answers_study.py dialogue --temperatures greedy,1.0 --output-dir outputs/dialogue_study

For each seed: a clone; from it `agent` (learning by reward) and `control` (cloned further for as much compute: --ratio cloning
updates for each of the agent's rounds, at a tenth of the clone's greatest learning rate, where its schedule ended). Each is
then scored on the test part, which no setting was chosen on. Intervals: Student's t over the seeds' differences. A run whose
summary is there is not trained again.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from dqnlm.builder.loading import load_policy_and_config
from dqnlm.commands.evaluate_answers import answer_part
from dqnlm.evaluation.decoding import Decoding
from dqnlm.tasks.answers import AnswersTask
from dqnlm.tasks.base import build_data
from studies.runs import interval, train

POLICIES = ("clone", "agent", "control")
SHOWN = ("return", "return_error", "chrf", "bleu", "length_ratio", "distinct_2", "distinct_2_references")


def train_all(experiment: str, out: Path, seed: str, ratio: float, extra: list[str]) -> None:
    """Clone, agent and control of one seed."""
    common = [f"+experiment={experiment}", f"seed={seed}", *extra]
    train(out / f"clone_{seed}", "trainer.rollouts=0", *common)
    start = [f"pretraining.init_from={out / f'clone_{seed}'}", *common]
    paid = train(out / f"agent_{seed}", "pretraining.updates=0", *start)
    updates = math.ceil(ratio * paid["totals"]["rollouts"])
    longer = [f"pretraining.updates={updates}", "pretraining.lr=2e-4"]
    train(out / f"control_{seed}", "trainer.rollouts=0", *longer, *start)


def scored(run: Path, decoding: Decoding) -> dict[str, float]:
    """Figures of the last checkpoint on the test part."""
    policy, config = load_policy_and_config(str(run), "last", str(run.parent), "cpu")
    task = AnswersTask(config, build_data(config), policy.device)
    figures = answer_part(policy, task, "test", decoding).metrics
    return {name.removeprefix("eval/"): value for name, value in figures.items()}


def main() -> int:
    """Trains what is not there, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=("translation", "dialogue"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--ratio", type=float, required=True, help="cloning updates in the time of one of the agent's rounds"
    )
    parser.add_argument(
        "--temperatures", default="greedy", help="comma-separated; `greedy` or numbers (default: greedy)"
    )
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="settings of all runs, such as reward.scale=40")
    arguments = parser.parse_args()
    out, seeds = arguments.output_dir.resolve(), arguments.seeds.split(",")
    for seed in seeds:
        train_all(arguments.experiment, out, seed, arguments.ratio, arguments.overrides)
    for name in arguments.temperatures.split(","):
        decoding = Decoding() if name == "greedy" else Decoding(temperature=float(name))
        print(f"\n{decoding}\n\n| seed | policy | {' | '.join(SHOWN)} |\n|{' --- |' * (2 + len(SHOWN))}")
        found: dict[tuple[str, str], dict[str, float]] = {}
        for seed in seeds:
            for policy in POLICIES:
                found[seed, policy] = row = scored(out / f"{policy}_{seed}", decoding)
                print(f"| {seed} | {policy} | {' | '.join(f'{row[figure]:.3f}' for figure in SHOWN)} |", flush=True)
        print("\nagent less control, mean over the seeds and 95 % interval:")
        for figure in ("return", "chrf", "bleu"):
            gains = [found[seed, "agent"][figure] - found[seed, "control"][figure] for seed in seeds]
            print(f"  {figure:<14}{interval(gains)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
