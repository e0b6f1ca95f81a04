#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""How a model writes on held-out prompts: reward, likelihood under the model as it was, diversity, texts.

    scripts/python studies/sentiment/measure.py BASE MODEL [MODEL ...] --json FILE

BASE is the model that all others were trained from. A MODEL is a folder of `dqnlm export`, BASE itself, or a file of
prompts and completions (FILE.jsonl, such as a log, or what `dqnlm generate` wrote), which is described as it is. `--best-of 4`
takes the best of four completions by the reward. Plain transformers, sampling at temperature 1 from the whole vocabulary.

A line of FILE for each: model, reward (mean), low and high (95 % interval over prompts by the bootstrap), nats (a token,
under BASE, all completions together), distinct_2, length (mean, in tokens), completions, seed, texts (ten).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from studies.sentiment.reward import score
from studies.sentiment.sampling import HELDOUT, load, nats, read_prompts, sample

DRAWS = 2000  # of the bootstrap
TEXTS = 10  # that are kept


def interval(by_prompt: list[float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over prompts, by the percentiles of the bootstrap."""
    draw = random.Random(seed)
    means = sorted(sum(draw.choices(by_prompt, k=len(by_prompt))) / len(by_prompt) for _ in range(DRAWS))
    return means[int(0.025 * DRAWS)], means[int(0.975 * DRAWS)]


def distinct_2(texts: Sequence[str]) -> float:
    """Number of different pairs of neighbouring words of a text, over the number of pairs, all texts together; 0 of none."""
    pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
    return len(set(pairs)) / max(len(pairs), 1)


def means_by_prompt(prompts: Sequence[str], rewards: Sequence[float]) -> list[float]:
    """Mean reward of each prompt, in the order in which prompts first stand."""
    grouped: dict[str, list[float]] = {}
    for prompt, reward in zip(prompts, rewards, strict=True):
        grouped.setdefault(prompt, []).append(reward)
    return [sum(group) / len(group) for group in grouped.values()]


def best_of(texts: Sequence[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    """The text of greatest reward of each `number` that follow one another."""
    rewards = score([p for p, _ in texts], [c for _, c in texts], [""] * len(texts))
    groups = range(0, len(texts), number)
    return [texts[max(range(begin, begin + number), key=rewards.__getitem__)] for begin in groups]


def described(texts: Sequence[tuple[str, str]], base: Any, tokenizer: Any) -> dict[str, Any]:
    """The measures of (prompt, completion) texts."""
    prompts, completions = [p for p, _ in texts], [c for _, c in texts]
    rewards = score(prompts, completions, [""] * len(texts))
    low, high = interval(means_by_prompt(prompts, rewards))
    found = nats(base, tokenizer, texts)
    tokens = sum(count for _, count in found)
    return {
        "reward": sum(rewards) / len(rewards), "low": low, "high": high,
        "nats": sum(value for value, _ in found) / max(tokens, 1), "distinct_2": distinct_2(completions),
        "length": tokens / len(texts), "completions": len(texts),
        "texts": [p + c for p, c in texts[:: max(len(texts) // TEXTS, 1)][:TEXTS]],
    }  # fmt: skip


def texts_of(name: str, arguments: argparse.Namespace, base: tuple[Any, Any]) -> list[tuple[str, str]]:
    """Of a file, those it has; of a model, samples on held-out prompts."""
    if name.endswith(".jsonl"):
        rows = [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]
        return [(row["prompt"], row["completion"]) for row in rows]
    model, tokenizer = base if name == arguments.base else load(name, arguments.dtype)
    torch.manual_seed(arguments.seed)
    number = arguments.each * arguments.best_of
    texts = [text[:2] for text in sample(model, tokenizer, read_prompts(arguments.prompts), number, arguments.tokens)]
    return best_of(texts, arguments.best_of)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("base", help="a folder, or a name on the Hub")
    parser.add_argument("models", nargs="+", help="folders, names on the Hub, or FILE.jsonl with prompts and completions")
    parser.add_argument("--prompts", type=Path, default=HELDOUT, help="JSONL file (default: heldout.jsonl of this folder)")
    parser.add_argument("--each", type=int, default=8, help="completions a prompt (default: 8)")
    parser.add_argument("--tokens", type=int, default=20, help="of a completion, at most (default: 20)")
    parser.add_argument("--best-of", type=int, default=1, help="completions of which the best is taken (default: 1)")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--bfloat16", action="store_true", help="read all models in bfloat16: several times faster on some CPUs")
    parser.add_argument("--json", type=Path, required=True, help="a line is appended for each model")
    arguments = parser.parse_args()
    arguments.dtype = torch.bfloat16 if arguments.bfloat16 else torch.float32
    base = load(arguments.base, arguments.dtype)
    for name in arguments.models:
        chosen = f" best of {arguments.best_of}" if arguments.best_of > 1 and not name.endswith(".jsonl") else ""
        texts = texts_of(name, arguments, base)
        row = {"model": f"{Path(name).name}{chosen}", **described(texts, *base), "seed": arguments.seed}
        with arguments.json.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items() if k != "texts"}), flush=True)


if __name__ == "__main__":
    main()
