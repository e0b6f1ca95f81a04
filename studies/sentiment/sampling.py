"""Completions of prompts by a causal language model, and their likelihood, in plain transformers.

Axes: `R` rows of a batch, `T` tokens of a row, `A` the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

HERE = Path(__file__).parent
PROMPTS, HELDOUT = HERE / "prompts.jsonl", HERE / "heldout.jsonl"
VALIDATION = HERE / "validation.jsonl"  # settings are chosen by these: neither trained on nor reported
ROWS = 64  # of a batch; 64 rows of 28 tokens have 350 MB of logits with a vocabulary of 49,152


class Sampled(NamedTuple):
    """One completion; `tokens` counts what was generated, the end token included."""

    prompt: str
    completion: str
    tokens: int


def load(model: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Model in evaluation mode, on a CUDA device where there is one, and its tokenizer, from a folder or from the Hub."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval().to(device)
    return loaded, AutoTokenizer.from_pretrained(model)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a JSONL file, in its order."""
    return [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids without the tokens that some tokenizers add at the ends."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def same_length(rows: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Indices of rows of one length, at most `size` at a time: batches that need no padding."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(i)
    for indices in by_length.values():
        yield from (indices[begin : begin + size] for begin in range(0, len(indices), size))


@torch.no_grad()
def sample(model: Any, tokenizer: Any, prompts: Sequence[str], each: int, tokens: int) -> list[Sampled]:
    """`each` completions of every prompt in turn, at temperature 1 from the whole vocabulary.

    A completion ends before the tokenizer's end token, or after `tokens` tokens. Draws come from torch's global generator.
    """
    prompt_of = [prompt for prompt in prompts for _ in range(each)]
    ids = [encode(tokenizer, prompt) for prompt in prompt_of]
    found: dict[int, Sampled] = {}
    for indices in same_length(ids, ROWS):
        start_RT = torch.tensor([ids[i] for i in indices], device=model.device)
        rows_RT = model.generate(
            start_RT, attention_mask=torch.ones_like(start_RT), do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
            max_new_tokens=tokens, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id, use_cache=True,
        )  # fmt: skip
        for i, row in zip(indices, rows_RT[:, start_RT.shape[1] :].tolist(), strict=True):
            length = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
            text = tokenizer.decode(row[:length], skip_special_tokens=True)
            found[i] = Sampled(prompt_of[i], text, min(length + 1, len(row)))
    return [found[i] for i in range(len(prompt_of))]


@torch.no_grad()
def nats(model: Any, tokenizer: Any, texts: Sequence[tuple[str, str]]) -> list[tuple[float, int]]:
    """-log p(completion | prompt) in nats and the number of tokens, of each (prompt, completion); without an end token."""
    pieces = [(encode(tokenizer, prompt), encode(tokenizer, completion)) for prompt, completion in texts]
    rows = [prompt + completion for prompt, completion in pieces]
    found = [(0.0, 0)] * len(rows)
    for indices in same_length(rows, ROWS):
        if not rows[indices[0]]:
            continue
        ids_RT = torch.tensor([rows[i] for i in indices], device=model.device)
        log_RT = _log_probabilities(model, ids_RT)
        for i, log_T in zip(indices, log_RT, strict=True):
            prompt, completion = pieces[i]
            found[i] = (-float(log_T[max(len(prompt) - 1, 0) :].sum()), len(completion))
    return found


def _log_probabilities(model: Any, ids_RT: Tensor) -> Tensor:
    """log p of tokens 1, 2, ... given those before."""
    log_RTA = model(ids_RT).logits[:, :-1].float().log_softmax(-1)
    return log_RTA.gather(2, ids_RT[:, 1:, None])[..., 0]
