#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""How a model writes on held-out prompts: reward, likelihood under the model as it was, diversity, texts.

    scripts/python studies/sentiment/measure.py BASE MODEL [MODEL ...] --json FILE

BASE is the model that all others were trained from; a MODEL is a folder of `dqnlm export`, or BASE itself. `--best-of 4` takes
the best of four completions by the reward. Plain transformers, sampling at temperature 1 from the whole vocabulary.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from studies.sentiment.make_log import HELDOUT, read_prompts, sample
from studies.sentiment.reward import score

DRAWS = 2000  # of the bootstrap


def interval(by_prompt: list[float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over prompts, by the bootstrap."""
    draw = random.Random(seed)
    means = sorted(sum(draw.choices(by_prompt, k=len(by_prompt))) / len(by_prompt) for _ in range(DRAWS))
    return means[int(0.025 * DRAWS)], means[int(0.975 * DRAWS)]


def distinct_2(texts: list[str]) -> float:
    """Share of pairs of neighbouring words that occur once or for the first time."""
    pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
    return len(set(pairs)) / max(len(pairs), 1)


@torch.no_grad()
def nats(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> float:
    """Mean nats a token of the completions under a model."""
    total, count = 0.0, 0
    for prompt, completion in texts:
        begin = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        ids = tokenizer(prompt + completion, return_tensors="pt", add_special_tokens=False).input_ids
        if ids.shape[1] > begin:
            log = model(ids).logits[0, begin - 1 : -1].log_softmax(-1)
            total -= float(log.gather(1, ids[0, begin:, None]).sum())
            count += ids.shape[1] - begin
    return total / max(count, 1)


def measured(name: str, model: Any, base: Any, tokenizer: Any, each: int, tokens: int, best_of: int, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    prompts = read_prompts(HELDOUT)
    texts = sample(model, tokenizer, prompts, each * best_of, tokens)
    rewards = score([p for p, _ in texts], [c for _, c in texts], [""] * len(texts))
    if best_of > 1:
        groups = range(0, len(texts), best_of)
        kept = [max(range(begin, begin + best_of), key=rewards.__getitem__) for begin in groups]
        texts, rewards = [texts[i] for i in kept], [rewards[i] for i in kept]
    by_prompt = [sum(rewards[i : i + each]) / each for i in range(0, len(rewards), each)]
    low, high = interval(by_prompt)
    return {
        "model": name, "reward": sum(rewards) / len(rewards), "low": low, "high": high, "nats": nats(base, tokenizer, texts),
        "distinct_2": distinct_2([c for _, c in texts]), "completions": len(texts), "seed": seed,
        "texts": [p + c for p, c in texts[:: max(len(texts) // 10, 1)][:10]],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("base")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--each", type=int, default=8, help="completions a prompt (default: 8)")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--best-of", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--json", type=Path, required=True, help="a line is appended for each model")
    arguments = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    base = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.float32).eval()
    for name in arguments.models:
        model = base if name == arguments.base else AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
        row = measured(
            f"{Path(name).name}{f' best of {arguments.best_of}' if arguments.best_of > 1 else ''}", model, base, tokenizer,
            arguments.each, arguments.tokens, arguments.best_of, arguments.seed,
        )  # fmt: skip
        with arguments.json.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items() if k != "texts"}, flush=True)


if __name__ == "__main__":
    main()
