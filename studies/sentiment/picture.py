#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""Held-out reward against generated tokens: ours and GRPO's in one picture, seeds thin, their mean thick.

    scripts/python studies/sentiment/picture.py docs/sentiment.svg --ours RUN [RUN ...] --grpo FILE.jsonl [FILE.jsonl ...]

RUN is a folder of `+experiment=prompts`, FILE what grpo.py wrote. Both evaluate at the same numbers of generated tokens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

Curve = list[tuple[int, float]]  # generated tokens, reward


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_run(run: Path) -> Curve:
    """Evaluations of a run; rewards without `reward.scale`."""
    scale = float(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["reward"]["scale"])
    return [(row["env_steps"], row["eval/return"] / scale) for row in lines(run / "metrics.jsonl") if "eval/return" in row]


def of_grpo(file: Path) -> Curve:
    """Evaluations of a file of grpo.py."""
    return [(row["tokens"], row["heldout"]) for row in lines(file) if "heldout" in row]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path, help="the picture: its ending is the format")
    parser.add_argument("--ours", type=Path, nargs="+", required=True)
    parser.add_argument("--grpo", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name, colour, curves in (
        ("TBRM, +experiment=prompts", "tab:blue", [of_run(run) for run in arguments.ours]),
        ("GRPO (TRL)", "tab:orange", [of_grpo(file) for file in arguments.grpo]),
    ):
        for curve in curves:
            axes.plot(*zip(*curve, strict=True), color=colour, linewidth=0.7, alpha=0.6)
        points = list(zip(*curves, strict=True))
        means = [(sum(t for t, _ in point) / len(point), sum(r for _, r in point) / len(point)) for point in points]
        label = f"{name}, mean of {len(curves)} seeds"
        axes.plot(*zip(*means, strict=True), color=colour, linewidth=2.2, marker="o", label=label)
    axes.set_xlabel("generated tokens")
    axes.set_ylabel("sentiment on held-out prompts")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(arguments.file, metadata={"Date": None} if arguments.file.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
