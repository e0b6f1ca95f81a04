#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Does Q play Wordle better than cloning the games that it learned from? Three seeds against two clones of the same log.

    scripts/python studies/wordle_study.py --output-dir outputs/wordle_study

For each seed: `agent` (+experiment=wordle), `clone` (+experiment=wordle_behaviour_cloning) and `filtered` (the same with the
best tenth of the games, and 6,000 updates, as a tenth is soon learned by heart: on seed 100 they gave -4.57, 16,000 gave
-4.70, and 8,000 with dropout .1 gave -4.74). Each plays every word of LMRL-Gym's list once, greedily
(evaluation.episodes for another list). What counts is the last
checkpoint; beside it stands the greatest of a run's evaluations, which flatters whoever has it. Intervals: Student's t over
the seeds' differences. A run whose summary is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from studies.runs import interval, train

CLONING = "+experiment=wordle_behaviour_cloning"
PLAYERS = {
    "agent": ["+experiment=wordle"],
    "clone": [CLONING],
    "filtered": [CLONING, "data.keep_best=0.1", "trainer.offline_rounds=6000"],
}


def returns(run: Path) -> list[float]:
    """Mean greedy return at each evaluation of a run, in its order."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [record["eval/return"] for record in records if "eval/return" in record]


def main() -> int:
    """Trains what is not there, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--players", default=",".join(PLAYERS), help="which of them, comma-separated (default: all)")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="settings of all runs, such as data.games=20000")
    arguments = parser.parse_args()
    out, seeds, players = arguments.output_dir.resolve(), arguments.seeds.split(","), arguments.players.split(",")
    found: dict[str, list[list[float]]] = {player: [] for player in players}
    for seed in seeds:
        for player in players:
            run = out / f"{player}_{seed}"
            train(run, *PLAYERS[player], f"seed={seed}", *arguments.overrides)
            found[player].append(returns(run))
    print(f"\n| player | last return, seeds {', '.join(seeds)} | greatest of the evaluations |\n| --- | --- | --- |")
    for player in players:
        last = [f"{run[-1]:.3f}" for run in found[player]]
        best = [f"{max(run):.3f}" for run in found[player]]
        print(f"| {player} | {', '.join(last)} | {', '.join(best)} |")
    for player in players:
        if player != "agent" and "agent" in players:
            gains = [a[-1] - b[-1] for a, b in zip(found["agent"], found[player], strict=True)]
            print(f"agent less {player}, last checkpoint, mean and 95 % interval: {interval(gains)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
