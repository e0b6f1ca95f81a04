#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""Samples completions of everyday prompts from a causal language model, scored by sentiment, as a log for `data=logged`.

    scripts/python studies/sentiment/make_log.py "$(scripts/get_small_model)" LOG.jsonl

Each line has prompt, completion and reward. Plain transformers, sampling at temperature 1 from the whole vocabulary; with
the same seed, model and versions the same log. Empty completions (the first token was the end token) are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from studies.sentiment.reward import score
from studies.sentiment.sampling import PROMPTS, load, read_prompts, sample


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", help="a folder, or a name on the Hub")
    parser.add_argument("file", type=Path, help="the log is written here")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="JSONL file (default: prompts.jsonl of this folder)")
    parser.add_argument("--each", type=int, default=20, help="completions a prompt (default: 20)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of each, at most (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model, tokenizer = load(arguments.model)
    torch.manual_seed(arguments.seed)
    started = time.perf_counter()
    texts = sample(model, tokenizer, read_prompts(arguments.prompts), arguments.each, arguments.tokens)
    seconds = time.perf_counter() - started
    rewards = score([text.prompt for text in texts], [text.completion for text in texts], [""] * len(texts))
    rows = [
        {"prompt": text.prompt, "completion": text.completion, "reward": reward}
        for text, reward in zip(texts, rewards, strict=True)
        if text.completion
    ]
    arguments.file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    found = [row["reward"] for row in rows]
    print(
        f"{len(rows)} completions, {len(texts) - len(rows)} empty ones left out; reward {statistics.mean(found):.3f}, "
        f"deviation {statistics.stdev(found):.3f}; {sum(text.tokens for text in texts):,} tokens generated in {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
