"""Started by torchrun: ranks that divide a pretrained model among them train it, and write what the test compares."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqnlm.agent import optimizer as optimizers
from dqnlm.agent.learner import Learner
from dqnlm.agent.target import Target
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import QNetwork
from dqnlm.types import Batch
from dqnlm.utils import sharding
from dqnlm.utils.joined import join
from dqnlm.utils.ranks import Ranks
from tests.helpers import learners, pretrained, ranks_worker
from tests.helpers.batches import random_batch

UPDATES, HALF = 6, 3
ALPHABET = "abcde"  # some of the model's tokens: as many as actions in `batches`
FOLDERS = ("gpt2", "llama")


class Case(NamedTuple):
    """What is trained.

    Attributes:
        kind: of the model.
        lora_rank: None: all of it learns.
        micro_batch_size: rows in one forward and backward on each rank.
    """

    kind: str
    lora_rank: int | None
    micro_batch_size: int | None

    @property
    def name(self) -> str:
        return "-".join(map(str, self))


CASES = [Case(*values) for values in itertools.product(FOLDERS, (None, 2), (None, 2))]


def learner_of(folder: Path, case: Case, ranks: Ranks) -> Learner:
    """TD with clipping, a moving target of the heads, and values at the row's end from forwards of their own."""
    dropout = {"dropout": 0.0} if case.kind == "gpt2" else {}
    network = pretrained.network(folder / case.kind, ALPHABET, lora_rank=case.lora_rank, shard=True, **dropout)
    network.body.shard_weights(ranks)
    target = Target(network, period=2, polyak_rate=None, heads_only=True)
    # The gradient of an attention's key bias is 0 but for rounding, which a smaller eps would turn into whole steps.
    optimization = optimizers.adamw(
        network, 100, lr=0.01, betas=[0.9, 0.99], eps=1e-3, weight_decay=0.1, warmup_updates=0, schedule="constant",
        final_fraction=None,
    )  # fmt: skip
    settings = learners.learner_settings(gradient_clip=0.5, micro_batch_size=case.micro_batch_size)
    return Learner(
        network, target, {"td": learners.make_td(twin=True)}, optimization, Accumulator(torch.device("cpu"), ranks),
        2, ranks=ranks, **settings,
    )  # fmt: skip


def batches(ranks: Ranks) -> Iterator[Batch]:
    """This rank's part of each batch."""
    for seed in range(UPDATES):
        yield ranks_worker.part(replace(random_batch(rows=8, seed=seed), weight_B=torch.linspace(0.2, 1.0, 8)), ranks)


def state_of(learner: Learner) -> dict[str, Any]:
    """Whole tensors, on every rank."""
    return sharding.whole(learner.state_dict(), keep=True)


def trained(folder: Path, case: Case, ranks: Ranks) -> dict[str, Any]:
    """The figures of each update and the state at the end."""
    learner, figures = learner_of(folder, case, ranks), []
    for batch in batches(ranks):
        learner.update(batch)
        figures.append(learner.accumulator.pop_means())
    return {"figures": figures, "state": state_of(learner)}


def resumed(folder: Path, case: Case, ranks: Ranks) -> dict[str, Any]:
    """The state at the end where another learner goes on from the saved state of the first half."""
    learner, saved = learner_of(folder, case, ranks), {}
    for done, batch in enumerate(batches(ranks)):
        if done == HALF:
            saved = state_of(learner)
            learner = learner_of(folder, case, ranks)
            learner.load_state_dict(saved)
        learner.update(batch)
    return state_of(learner)


def acted(network: QNetwork, forwards: int) -> list[Tensor]:
    """The values that so many steps find, where each rank takes a number of its own."""
    token_ES = pretrained.tokens(3, 6) % len(ALPHABET)
    network.eval()
    with sharding.gathered(network), torch.no_grad():
        state = network.initial_state(3, "cpu")
        found = []
        for time in range(forwards):
            output, state = network.step(token_ES[:, time], state)
            found.append(output["q"])
    return found


def held(network: QNetwork) -> dict[str, int]:
    """Numbers of the trunk: all of them, and those of this rank in its weights."""
    parameters = list(network.body.parameters())
    return {"all": sum(p.numel() for p in parameters), "own": sum(sharding.own_part(p.data).numel() for p in parameters)}


def main(folder: Path) -> None:
    ranks = join()
    found: dict[str, Any] = {case.name: trained(folder, case, ranks) for case in CASES}
    for case in CASES:
        found[case.name]["resumed"] = resumed(folder, case, ranks)
    learner = learner_of(folder, CASES[0], ranks)
    before = held(learner.network)
    found["acted"] = acted(learner.network, 2 + 3 * ranks.rank)
    found["held"] = [before, held(learner.network)]
    learner.network.train()
    learner.update(next(iter(batches(ranks))))
    gradients = [p.grad for p in learner.network.body.parameters() if p.grad is not None]
    moments = [m["exp_avg"] for m in learner.optimization.optimizers[0].state.values() if sharding.is_sharded(m["exp_avg"])]
    found["optimized"] = {
        name: {"all": sum(t.numel() for t in tensors), "own": sum(sharding.own_part(t).numel() for t in tensors)}
        for name, tensors in (("gradients", gradients), ("moments", moments))
    }
    torch.save(found, folder / f"{ranks.rank}.pt")
    ranks.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
