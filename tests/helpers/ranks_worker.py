"""Started by torchrun: one rank trains a learner on its part of each batch, and writes what the test compares."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dqnlm.agent.learner import Learner
from dqnlm.metrics import Accumulator
from dqnlm.types import Batch
from dqnlm.utils.joined import join
from dqnlm.utils.ranks import Ranks
from tests.helpers import learners
from tests.helpers.batches import random_batch

UPDATES, ROWS = 6, 12


def learner_of(ranks: Ranks) -> Learner:
    """A TD learner with clipping and a moving target."""
    made = learners.make_learner(period=2, gradient_clip=0.5)
    made.ranks, made.accumulator = ranks, Accumulator(torch.device("cpu"), ranks)
    return made


def batches() -> list[Batch]:
    """Whole batches, with weights that differ between rows."""
    found = []
    for seed in range(UPDATES):
        batch = random_batch(rows=ROWS, seed=seed)
        found.append(replace(batch, weight_B=torch.linspace(0.2, 1.0, ROWS)))
    return found


def part(batch: Batch, ranks: Ranks) -> Batch:
    """Every `world`-th row: the ranks have different numbers of decisions."""
    rows = {name: value[ranks.rank :: ranks.world] for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, **rows)


def trained(ranks: Ranks) -> dict[str, object]:
    """Weights, the loss of each update, and counts."""
    learner, losses = learner_of(ranks), []
    for batch in batches():
        learner.update(part(batch, ranks))
        losses.append(learner.accumulator.pop_means())
    weights = [p.detach().clone() for p in (*learner.network.parameters(), *learner.target.network.parameters())]
    return {"weights": weights, "metrics": losses, "transitions": int(learner.transitions)}


def main(folder: Path) -> None:
    ranks = join()
    found = trained(ranks)
    extra = {
        "most": ranks.most(ranks.rank, -ranks.rank), "shared": ranks.share(lambda: {"from": ranks.rank}),
        "gathered": ranks.gather(ranks.rank), "sum": ranks.sum(ranks.rank + 1), "seed": ranks.seed(7),
        # Masses 1 and 2 of a sum of 4, or of 40 on the other ranks: the least probability is 1 / 40.
        "least": float(ranks.least_mass(torch.tensor(1.0), torch.tensor(4.0 if ranks.is_first else 40.0))),
    }  # fmt: skip
    torch.save(found | extra, folder / f"{ranks.rank}.pt")
    ranks.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
