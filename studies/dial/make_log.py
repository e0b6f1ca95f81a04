#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""Writes the log of the study: prompts and replies of `studies.dial.language` with both rewards.

    scripts/python studies/dial/make_log.py dial.jsonl

Each line has prompt, completion, reward_warm and reward_short; with the same seed the same log.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from studies.dial.language import prompts, reward_short, reward_warm, written


def rows(each: int, seed: int) -> list[dict[str, str | float]]:
    """`each` replies to every prompt."""
    draw = random.Random(seed)
    pairs = [(prompt, written(prompt, draw)) for _ in range(each) for prompt in prompts()]
    return [
        {"prompt": prompt, "completion": text, "reward_warm": reward_warm(text), "reward_short": reward_short(text)}
        for prompt, text in pairs
    ]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", type=Path, help="the log is written here")
    parser.add_argument("--each", type=int, default=40, help="replies to each of 96 prompts (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = rows(arguments.each, arguments.seed)
    arguments.file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    print(f"{len(found):,} replies in {arguments.file}")


if __name__ == "__main__":
    main()
