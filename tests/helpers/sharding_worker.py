"""Started by torchrun: ranks that divide a pretrained model among them train it, and write what the test compares."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqnlm.agent import optimizer as optimizers
from dqnlm.agent import target
from dqnlm.agent.learner import Learner
from dqnlm.errors import UserError
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


CASES = [Case("gpt2", None, None), Case("gpt2", 2, 2), Case("llama", None, 2), Case("llama", 2, None)]
ROWS = 12
CLIP = 0.05  # below the norms of most updates


def network_of(folder: Path, case: Case, ranks: Ranks) -> QNetwork:
    dropout = {"dropout": 0.0} if case.kind == "gpt2" else {}
    network = pretrained.network(folder / case.kind, ALPHABET, lora_rank=case.lora_rank, shard=True, **dropout)
    network.body.shard_weights(ranks)
    return network


def learner_of(folder: Path, case: Case, ranks: Ranks) -> Learner:
    """TD with clipping, a moving target of the heads, and values at the row's end from forwards of their own."""
    network = network_of(folder, case, ranks)
    heads = target.hard(network, period=2, heads_only=True)
    # The gradient of an attention's key bias is 0 but for rounding, which a smaller eps would turn into whole steps.
    optimization = optimizers.adamw(
        network, 100, lr=0.01, betas=[0.9, 0.99], eps=1e-3, weight_decay=0.1, warmup_updates=0, schedule="constant",
        final_fraction=None,
    )  # fmt: skip
    settings = learners.learner_settings(gradient_clip=CLIP, micro_batch_size=case.micro_batch_size)
    return Learner(
        network, heads, {"td": learners.make_td(twin=True)}, optimization, Accumulator(torch.device("cpu"), ranks),
        2, ranks=ranks, **settings,
    )  # fmt: skip


def batches(ranks: Ranks) -> Iterator[Batch]:
    """This rank's part of each batch."""
    for seed in range(UPDATES):
        batch = replace(random_batch(rows=ROWS, seed=seed), weight_B=torch.linspace(0.2, 1.0, ROWS))
        yield ranks_worker.part(batch, ranks)


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
    token_ES = pretrained.tokens(3, 9) % len(ALPHABET)  # as many steps as the last of three ranks makes
    network.eval()
    with sharding.gathered(network), torch.no_grad():
        state = network.initial_state(3, "cpu")
        found = []
        for time in range(forwards):
            output, state = network.step(token_ES[:, time], state)
            found.append(output["q"])
    return found


def share_of(tensors: Iterable[Tensor]) -> float:
    """How many of all their numbers are in the memory of this rank."""
    tensors = list(tensors)
    memory = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in map(sharding.own_part, tensors)}
    return sum(memory.values()) / sum(4 * tensor.numel() for tensor in tensors)


def shares(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """What this rank holds of a trunk, before and after it has acted and learned."""
    learner = learner_of(folder, CASES[0], ranks)
    trunk = list(learner.network.body.parameters())
    found: dict[str, Any] = {"weights at first": share_of(p.detach() for p in trunk)}
    found["acted"] = acted(learner.network, 2 + 3 * ranks.rank)
    learner.network.train()
    for batch in batches(ranks):
        learner.update(batch)
    (optimizer,) = learner.optimization.optimizers
    found["weights"] = share_of(p.detach() for p in learner.network.body.parameters())
    found["gradients"] = share_of(p.grad for p in trunk if p.grad is not None)
    found["moments"] = share_of(optimizer.state[p][name] for p in trunk for name in ("exp_avg", "exp_avg_sq"))
    return found


def refusals(folder: Path, ranks: Ranks) -> list[str]:
    """What is said where something needs a second copy of the trunk, or whole matrices."""
    network = network_of(folder, CASES[0], ranks)
    muon = {"momentum": 0.9, "betas": [0.9, 0.9], "eps": 1e-8, "weight_decay": 0.0, "warmup_updates": 0}
    objectives = {"td": learners.make_td()}
    alone, head = target.none(network), learners.HEADS["squared"]()

    def learner(**settings: Any) -> Learner:
        optimization, accumulator = learners.adam(network), Accumulator(torch.device("cpu"), ranks)
        settings = learners.learner_settings(**settings)
        return Learner(network, alone, objectives, optimization, accumulator, head=head, ranks=ranks, **settings)

    found = []
    for build in (
        lambda: target.hard(network, period=2, heads_only=False),
        lambda: optimizers.muon(network, 1, lr=0.1, schedule="constant", final_fraction=None, **muon),
        lambda: learner(kl_weight=0.1),
        lambda: learner(compile=True),
    ):
        try:
            build()
        except UserError as error:
            found.append(str(error))
    return found


def main(folder: Path) -> None:
    ranks = join()
    found: dict[str, Any] = {case.name: trained(folder, case, ranks) for case in CASES}
    for case in CASES:
        found[case.name]["resumed"] = resumed(folder, case, ranks)
    found |= {"shares": shares(folder, ranks), "refusals": refusals(folder, ranks)}
    torch.save(found, folder / f"{ranks.rank}.pt")
    ranks.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
