#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""The dial against retraining: one run on two rewards, and for each of seven mixtures a clone of the best logged replies.

    scripts/python studies/dial/study.py outputs/dial --seeds 0,1,2

Trains `+experiment=dial` once a seed, and for each mixture (w_warm, w_short) of `MIXTURES` one run of filtered behaviour cloning
on the same log, with as many updates of as many rows of the same network. Measures all on the test prompts, 20 replies each:
sampled from the policies, and greedy. Writes measures.jsonl (a line for each policy and mixture) and prints the table of
docs/results.md. Runs that are there are not trained again. The picture: studies/dial/picture.py.
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
KEEP_BEST = 0.05  # of the clones; chosen on seed 100, see docs/results.md
EACH = 20  # replies to a prompt
CLONE = ("algorithm=filtered_behaviour_cloning", "data.rewards=null", "policy.temperature=1.0")
DIAL, CLONES, BEST = "the dial", "clones", "best possible"


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


def clone(folder: Path, log: Path, seed: int, short: float, keep_best: float, *more: str) -> Path:
    """The clone of the best replies of one mixture."""
    mixed = ", ".join(f"{name}: {weight}" for name, weight in weights_of(short).items())
    train(
        folder, "+experiment=dial", f"data.path={log}", f"seed={seed}", *CLONE, f"data.reward_weights={{{mixed}}}",
        f"data.keep_best={keep_best}", *more,
    )  # fmt: skip
    return folder


def measures(folder: Path, log: Path, seed: int, *more: str) -> Iterator[dict[str, Any]]:
    """A row for each policy and mixture of a seed."""
    ours = Run(dial(folder / f"dial-{seed}", log, seed, *more))
    for short in MIXTURES:
        of_clone = Run(clone(folder / f"clone-{short:g}-{seed}", log, seed, short, KEEP_BEST, *more))
        assert of_clone.prompts == ours.prompts, "both are measured on the same prompts"
        for name, run, weights in ((DIAL, ours, weights_of(short)), (CLONES, of_clone, None)):
            for greedy in (False, True):
                yield _row(name, seed, short, greedy, run.measure(EACH, greedy, weights)._asdict())
        warm, length = optimum(ours.prompts, 1 - short, short)
        yield _row(BEST, seed, short, True, {"warm": warm, "short": length})


def _row(name: str, seed: int, short: float, greedy: bool, found: dict[str, float]) -> dict[str, Any]:
    mixture = (1 - short) * found["warm"] + short * found["short"]
    return {"policy": name, "seed": seed, "w_short": short, "greedy": greedy, "mixture": mixture} | found


def table(found: Sequence[dict[str, Any]]) -> str:
    """Means over seeds for each mixture, and the interval of the seeds' differences; Markdown."""

    def of(name: str, short: float, greedy: bool) -> list[float]:
        return [r["mixture"] for r in found if (r["policy"], r["w_short"], r["greedy"]) == (name, short, greedy)]

    lines = [
        "| w_warm, w_short | the dial | clone | dial less clone | greedy: the dial | clone | difference | best possible |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for short in MIXTURES:
        cells = [f"{1 - short:.1f}, {short:.1f}"]
        for greedy in (False, True):
            ours, theirs = of(DIAL, short, greedy), of(CLONES, short, greedy)
            gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
            cells += [f"{statistics.mean(ours):.2f}", f"{statistics.mean(theirs):.2f}", interval(gaps)]
        lines.append("| " + " | ".join([*cells, f"{statistics.mean(of(BEST, short, True)):.2f}"]) + " |")
    return "\n".join([*lines, "", *_means(found)])


def _means(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Means over all mixtures, with the interval of the seeds' differences."""
    for greedy in (False, True):
        of = {name: [r for r in found if (r["policy"], r["greedy"]) == (name, greedy)] for name in (DIAL, CLONES)}
        mean = {
            name: [statistics.mean(r["mixture"] for r in its if r["seed"] == seed) for seed in sorted({r["seed"] for r in its})]
            for name, its in of.items()
        }
        gap = interval([a - b for a, b in zip(mean[DIAL], mean[CLONES], strict=True)])
        yield f"mean over mixtures, {'greedy' if greedy else 'sampled'}: difference {gap}"
        for name, its in of.items():
            sound, different = (statistics.mean(r[key] for r in its) for key in ("sound", "different"))
            yield f"  {name}: {statistics.mean(mean[name]):.3f}, sound {sound:.3f}, different {different:.3f}"


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
    print(table(found))


if __name__ == "__main__":
    main()
