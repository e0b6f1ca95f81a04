"""acting: 64 greedy tokens with the cache, against reading the row anew, and against `generate` of transformers."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from typing import cast

import torch

from dqnlm.agent.generation import generate
from dqnlm.benchmarks.runs import LARGE, SMALL, TEXT, built
from dqnlm.benchmarks.timing import Row, alternate, compared
from dqnlm.networks.base import QNetwork
from dqnlm.networks.transformer import Transformer

LARGE_BATCHES = (1, 64, 1024)
TOKENS, BATCHES = 63, (1, 16, 64)  # with the first one read, a row of 64


def rows(rounds: int, device: str) -> Iterator[Row]:
    """One row against the whole row at batch 16, and one for each batch against a GPT-2 of the same size."""
    on_cuda = torch.device(device).type == "cuda"
    # On CUDA both sides multiply in TF32: in float32 some products of few rows are five times as slow.
    with built(*TEXT, SMALL, f"device={device}", *(["learner.precision=bfloat16"] if on_cuda else [])) as ours:
        network = ours.components.policy.network.eval()
        place = next(network.parameters()).device
        times = alternate({"anew": _anew(network, 16, place), "cached": _cached(network, 16, place)}, rounds)
        yield compared("acting", f"whole row / cache, 16 x {TOKENS} tokens", times, "> 1")
        for batch in BATCHES:
            peer = _transformers(network, batch, place)
            if peer is None:
                yield Row("acting", f"generate of transformers / cache, batch {batch}", note="transformers is not installed")
                continue
            times = alternate({"generate": peer, "cached": _cached(network, batch, place)}, rounds)
            yield compared("acting", f"generate of transformers / cache, batch {batch}", times, ">= 3")
    if on_cuda:
        yield from _recorded_rows(rounds, device)


def _recorded_rows(rounds: int, device: str) -> Iterator[Row]:
    """A step launched kernel by kernel against one that is replayed, at the size of `shakespeare_gpu`."""
    with built(*TEXT, LARGE, "learner.compile=false", f"device={device}") as ours:
        network = ours.components.policy.network.eval()
        plain = copy.deepcopy(network)
        plain._records = False
        place = next(network.parameters()).device
        for batch in LARGE_BATCHES:
            works = {"plain": _cached(plain, batch, place), "recorded": _cached(network, batch, place)}
            times = alternate(works, max(1, rounds // 2))
            speed = batch * TOKENS / statistics.median(times["recorded"])
            note = f"{speed:,.0f} tokens a second, {TOKENS} tokens each"
            yield compared("acting", f"6 layers of width 384: plain / recorded step, batch {batch}", times, note=note)


def _cached(network: QNetwork, batch: int, device: torch.device) -> Callable[[], object]:
    start_E1 = torch.zeros(batch, 1, dtype=torch.int64, device=device)
    return lambda: list(generate(network, start_E1, lambda output: output["q"][..., 0].argmax(-1), TOKENS))


def _anew(network: QNetwork, batch: int, device: torch.device) -> Callable[[], object]:
    @torch.no_grad()
    def work() -> None:
        row_ES = torch.zeros(batch, 1, dtype=torch.int64, device=device)
        for _ in range(TOKENS):
            token_E = network(row_ES)["q"][:, -1, :, 0].argmax(-1)
            row_ES = torch.cat([row_ES, token_E[:, None]], 1)

    return work


def _transformers(network: QNetwork, batch: int, device: torch.device) -> Callable[[], object] | None:
    """Greedy `generate` of a GPT-2 with as many layers, heads, features and tokens; None where it is not installed."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    body = cast(Transformer, network.body)
    actions = network.project(torch.zeros(1, body.features, device=device))["q"].shape[-2]
    config = GPT2Config(
        vocab_size=actions, n_positions=body.context + 1, n_embd=body.width, n_layer=len(body.blocks), n_head=body.heads,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval().to(device)  # type: ignore[arg-type]
    start_E1 = torch.zeros(batch, 1, dtype=torch.int64, device=device)
    seen_E1 = torch.ones_like(start_E1)

    @torch.no_grad()
    def work() -> object:
        return model.generate(  # type: ignore[misc]
            start_E1, attention_mask=seen_E1, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0
        )

    return work

