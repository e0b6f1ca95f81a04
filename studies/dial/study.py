#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""The dial against retraining: one run on two rewards, and for each of seven mixtures clones of the best logged replies.

    scripts/python studies/dial/study.py outputs/dial --seeds 0,1,2

Trains `+experiment=dial` once a seed, and for each mixture (w_warm, w_short) of `MIXTURES`, on the same log and network,

    a clone of the best replies, with as many updates as the one run, from the start
    the same after a clone of the whole log (one a seed, with as many updates), with a third of the updates

Measures all on the test prompts, 20 replies each: sampled from the policies, and greedy. Writes measures.jsonl (a line for each
policy and mixture) and prints the tables of docs/results.md. Runs that are there are not trained again. The picture: picture.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studies.dial.make_log import rows
from studies.dial.measure import Run, optimum
from studies.runs import interval, train

MIXTURES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 1.0)  # w_short; w_warm is 1 - w_short
EACH = 20  # replies to a prompt
DIAL, CLONES, TUNED, BEST = "the dial", "best cloned", "all cloned, then the best", "best possible"
# Settings of the clones; shares and rates chosen on seed 100, see docs/results.md.
CLONE = ("data.rewards=null", "policy.temperature=1.0", "policy.beta=null", "evaluation.betas=[]", "returns=lambda")
OF_BEST = ("algorithm=filtered_behaviour_cloning", "data.keep_best=0.1")
AFTER_ALL = ("algorithm=filtered_behaviour_cloning", "data.keep_best=0.02", "optimizer.lr=1e-3", "trainer.offline_rounds=200")


def weights_of(short: float) -> dict[str, float]:
    """The weights of a mixture by their rewards' names."""
    return {"reward_warm": round(1 - short, 6), "reward_short": short}


def write_log(folder: Path) -> Path:
    """The log, in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "log.jsonl"
    if not file.exists():
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(40, 0)), encoding="utf-8")
    return file


def dial(folder: Path, log: Path, seed: int, *more: str) -> Path:
    """The one run of a seed."""
    train(folder, "+experiment=dial", f"data.path={log}", f"seed={seed}", *more)
    return folder


def clone(folder: Path, log: Path, seed: int, short: float, *settings: str) -> Path:
    """A clone of the log, or of the best replies of one mixture."""
    mixed = ", ".join(f"{name}: {weight}" for name, weight in weights_of(short).items())
    return dial(folder, log, seed, *CLONE, f"data.reward_weights={{{mixed}}}", *settings)


def runs_of(folder: Path, log: Path, seed: int, *more: str) -> Iterator[tuple[str, float, Path]]:
    """What is compared, for a seed: the policy, w_short, and its run."""
    ours = dial(folder / f"dial-{seed}", log, seed, *more)
    whole = clone(folder / f"whole-{seed}", log, seed, 0.0, "algorithm=behaviour_cloning", *more)
    for short in MIXTURES:
        yield DIAL, short, ours
        yield CLONES, short, clone(folder / f"clone-{short:g}-{seed}", log, seed, short, *OF_BEST, *more)
        begun = f"pretraining.init_from={whole}"
        yield TUNED, short, clone(folder / f"tuned-{short:g}-{seed}", log, seed, short, *AFTER_ALL, begun, *more)


def measures(folder: Path, log: Path, seed: int, *more: str) -> Iterator[dict[str, Any]]:
    """A row for each policy and mixture of a seed."""
    prompts: list[str] = []
    for name, short, path in runs_of(folder, log, seed, *more):
        run = Run(path)
        assert prompts in ([], run.prompts), "all are measured on the same prompts"
        prompts = run.prompts
        for greedy in (False, True):
            weights = weights_of(short) if name == DIAL else None
            yield _row(name, seed, short, greedy, run.measure(EACH, greedy, weights)._asdict())
    for short in MIXTURES:
        warm, length = optimum(prompts, 1 - short, short)
        yield _row(BEST, seed, short, True, {"warm": warm, "short": length})


def _row(name: str, seed: int, short: float, greedy: bool, found: dict[str, float]) -> dict[str, Any]:
    mixture = (1 - short) * found["warm"] + short * found["short"]
    return {"policy": name, "seed": seed, "w_short": short, "greedy": greedy, "mixture": mixture} | found


def table(found: Sequence[dict[str, Any]], greedy: bool) -> str:
    """The mixture's reward, means over seeds, and the interval of the seeds' differences; Markdown."""

    def of(name: str, short: float, greedy: bool) -> list[float]:
        return [r["mixture"] for r in found if (r["policy"], r["w_short"], r["greedy"]) == (name, short, greedy)]

    columns = ["w_warm, w_short", DIAL, CLONES, "the dial less it", TUNED, "the dial less it", BEST]
    lines = [columns, ["---"] * len(columns)]
    for short in MIXTURES:
        ours = of(DIAL, short, greedy)
        cells = [f"{1 - short:.1f}, {short:.1f}", f"{statistics.mean(ours):.2f}"]
        for name in (CLONES, TUNED):
            theirs = of(name, short, greedy)
            cells += [f"{statistics.mean(theirs):.2f}", interval([a - b for a, b in zip(ours, theirs, strict=True)])]
        lines.append([*cells, f"{statistics.mean(of(BEST, short, True)):.2f}"])
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *_means(found, greedy)])


def _means(found: Sequence[dict[str, Any]], greedy: bool) -> Iterator[str]:
    """Means over all mixtures, with the interval of the seeds' differences."""
    ours: list[float] = []
    for name in (DIAL, CLONES, TUNED):
        its = [r for r in found if (r["policy"], r["greedy"]) == (name, greedy)]
        mean = [statistics.mean(r["mixture"] for r in its if r["seed"] == seed) for seed in sorted({r["seed"] for r in its})]
        sound, different = (statistics.mean(r[key] for r in its) for key in ("sound", "different"))
        ours = ours or mean
        gap = "" if name == DIAL else f", the dial less it {interval([a - b for a, b in zip(ours, mean, strict=True)])}"
        yield f"{name}: mean over mixtures {statistics.mean(mean):.3f}{gap}; sound {sound:.3f}, different {different:.3f}"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="where the log and the runs are, or will be")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("settings", nargs="*", help="further settings of all runs")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    log, found = write_log(folder), list[dict[str, Any]]()
    for seed in map(int, arguments.seeds.split(",")):
        found += measures(folder, log, seed, *arguments.settings)
        (folder / "measures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    for greedy in (False, True):
        print(f"{'greedy' if greedy else 'sampled'}\n\n{table(found, greedy)}\n")


if __name__ == "__main__":
    main()
