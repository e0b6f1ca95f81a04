#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""The picture of the study: both rewards of what the policies write, for every mixture.

    scripts/python studies/dial/picture.py outputs/dial/measures.jsonl docs/dial.svg

Points are means over seeds, with 95 % intervals by Student's t in both directions; the line of the dial is one run a seed, each
point of the clones a run of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqnlm.reporting.statistics import t_interval
from studies.dial.study import BEST, CLONES, DIAL, TUNED


def point(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of the interval (0 for one seed)."""
    ends = t_interval(values)
    return statistics.mean(values), 0.0 if ends is None else (ends[1] - ends[0]) / 2


def line(found: Sequence[dict[str, Any]], name: str, greedy: bool) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """(warm, short) of each mixture, as `point`s."""
    of = [row for row in found if row["policy"] == name and row["greedy"] == greedy]
    mixtures = sorted({row["w_short"] for row in of})
    at = [[row for row in of if row["w_short"] == mixture] for mixture in mixtures]
    return [(point([row["warm"] for row in rows]), point([row["short"] for row in rows])) for rows in at]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("measures", type=Path, help="measures.jsonl of study.py")
    parser.add_argument("file", type=Path, help="the picture: its ending is the format")
    arguments = parser.parse_args()
    import matplotlib.pyplot as plt

    found = [json.loads(row) for row in arguments.measures.read_text(encoding="utf-8").splitlines()]
    plt.rcParams["svg.hashsalt"] = "dial"
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for name, greedy, colour, style, label in (
        (DIAL, False, "tab:blue", "o-", "one run, weights at decoding time (sampled)"),
        (DIAL, True, "tab:blue", "o:", "the same, greedy"),
        (TUNED, False, "tab:orange", "s--", "log cloned, then its best: a run a point (sampled)"),
        (TUNED, True, "tab:orange", "s:", "the same, greedy"),
        (CLONES, True, "tab:green", "^:", "its best cloned from the start: a run a point, greedy"),
        (BEST, True, "black", "x", "best possible"),
    ):
        points = line(found, name, greedy)
        (x, dx), (y, dy) = (list(zip(*[p[axis] for p in points], strict=True)) for axis in (0, 1))
        drawn: dict[str, Any] = {"fmt": style, "color": colour, "label": label, "linewidth": 1.6, "elinewidth": 0.7}
        drawn |= {"markersize": 5}
        drawn |= {"markerfacecolor": "white"} if greedy and name != BEST else {}
        axes.errorbar(x, y, xerr=dx, yerr=dy, **drawn)
    axes.set_xlabel("reward_warm (more different warm words)")
    axes.set_ylabel("reward_short (fewer characters)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(arguments.file, metadata={"Date": None} if arguments.file.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
