"""Samples completions of everyday prompts from a causal language model, scored by sentiment, as a log for `data=logged`.

    scripts/python studies/sentiment/make_log.py MODEL FILE.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from studies.sentiment.reward import score

HERE = Path(__file__).parent
PROMPTS, HELDOUT = HERE / "prompts.jsonl", HERE / "heldout.jsonl"


def read_prompts(path: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def sample(model: torch.nn.Module, tokenizer: object, prompts: list[str], each: int, tokens: int) -> list[tuple[str, str]]:
    """`each` completions of every prompt by plain sampling at temperature 1, with the whole vocabulary."""
    found = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids.repeat(each, 1)  # type: ignore[operator]
        rows = model.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
            max_new_tokens=tokens, pad_token_id=tokenizer.eos_token_id,  # type: ignore[attr-defined]
        )  # fmt: skip
        for row in rows[:, ids.shape[1] :]:
            found.append((prompt, tokenizer.decode(row, skip_special_tokens=True)))  # type: ignore[attr-defined]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", help="a folder, or a name on the Hub")
    parser.add_argument("file", type=Path)
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--each", type=int, default=20, help="completions a prompt (default: 20)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of each (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    started = time.perf_counter()
    texts = sample(model, tokenizer, read_prompts(arguments.prompts), arguments.each, arguments.tokens)
    rewards = score([p for p, _ in texts], [c for _, c in texts], [""] * len(texts))
    rows = [{"prompt": p, "completion": c, "reward": r} for (p, c), r in zip(texts, rewards, strict=True) if c]
    arguments.file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    reward = torch.tensor([row["reward"] for row in rows])
    print(
        f"{len(rows)} completions in {time.perf_counter() - started:.0f} s; reward {float(reward.mean()):.3f}, deviation "
        f"{float(reward.std()):.3f}"
    )


if __name__ == "__main__":
    main()
