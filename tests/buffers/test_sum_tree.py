"""The sum tree draws what a cumulative sum over all places draws, however many there are, and stays exact under changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.buffers.base import Buffer
from dqnlm.buffers.prioritized import PrioritizedBuffer
from dqnlm.buffers.sum_tree import WIDTH, SumTree, leaves
from dqnlm.buffers.uniform import UniformBuffer
from dqnlm.types import DECISION
from tests.helpers.buffers import make, random_rows

CPU = torch.device("cpu")


def tree_of(mass_N: Tensor) -> SumTree:
    leaf_N = leaves(len(mass_N), mass_N.dtype, CPU)
    leaf_N[: len(mass_N)] = mass_N
    return SumTree(leaf_N, len(mass_N))


@pytest.mark.parametrize("count", [1, 5, WIDTH, WIDTH + 1, 1000, WIDTH * WIDTH + 7])
def test_every_place_of_a_count_is_found(count: int) -> None:
    """Bug: off by one at the border of two leaves or nodes, at an empty leaf, at the first or the last place."""
    mass_N = torch.randint(0, 4, (count,), generator=torch.Generator().manual_seed(count), dtype=torch.int32)
    mass_N[0] = 1
    tree, total = tree_of(mass_N), int(mass_N.sum())
    place_B = torch.arange(total, dtype=torch.float64)
    index_B, rest_B = tree.find(place_B)
    assert tree.total() == total
    assert torch.equal(index_B, torch.repeat_interleave(torch.arange(count), mass_N.long()))
    assert torch.equal(place_B - rest_B, (mass_N.cumsum(0) - mass_N)[index_B].double())


def test_masses_of_any_size_against_a_cumulative_sum() -> None:
    """Bug: rounding leads to a neighbour, or to a place of mass 0, where masses differ by many orders of magnitude."""
    g = torch.Generator().manual_seed(0)
    mass_N = torch.rand(100_000, generator=g).pow(20) * (torch.rand(100_000, generator=g) < 0.5)
    tree, end_N = tree_of(mass_N), mass_N.double().cumsum(0)
    place_B = torch.rand(20_000, generator=g, dtype=torch.float64) * tree.total()
    index_B = torch.cat([tree.find(part_B)[0] for part_B in place_B.split(1000)])
    expected_B = torch.searchsorted(end_N, place_B, right=True)
    # A place this close to a border may fall to either side, as two orders of summation round differently.
    border_B = (end_N[expected_B] - place_B).minimum(place_B - (end_N - mass_N)[expected_B]) < 1e-9
    assert torch.equal(index_B[~border_B], expected_B[~border_B]) and border_B.float().mean() < 0.01
    assert (mass_N[index_B] > 0).all()


def test_the_end_is_never_passed() -> None:
    """Bug: a place at or above the total, by rounding of random * total, is drawn from the empty places behind the last."""
    mass_N = torch.zeros(3000)
    mass_N[[7, 1500]] = torch.tensor([0.1, 0.3])
    index_B, _ = tree_of(mass_N).find(torch.tensor([0.0, 0.1, 0.399999, 0.4, 1.0, 1e9], dtype=torch.float64))
    assert set(index_B[2:].tolist()) == {1500} and int(index_B[0]) == 7


def test_a_hundred_million_places_are_told_apart() -> None:
    """Bug: sums in float32 cannot count beyond 16,777,216: later places are never drawn, or several as one."""
    count = 100_000_000
    tree = SumTree(leaves(count, torch.uint8, CPU).fill_(1), count)
    place_B = torch.tensor([0, 255, 256, 16_777_217, 33_554_433, 99_999_998, 99_999_999], dtype=torch.float64)
    index_B, rest_B = tree.find(place_B + 0.5)
    assert index_B.tolist() == place_B.tolist() and rest_B.tolist() == [0.5] * 7 and tree.total() >= count


@pytest.mark.parametrize("count", [1, 300, 70_000])
def test_an_empty_tree_gives_a_place(count: int) -> None:
    """Bug: a draw before there is anything to draw leads behind the last block."""
    index_B, _ = tree_of(torch.zeros(count)).find(torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert index_B.tolist() == [count - 1] * 2


@pytest.mark.parametrize("count", [1, 2, WIDTH, WIDTH + 1, 700])
def test_changes_and_a_tree_built_anew_are_the_same(count: int) -> None:
    """Bug: a changed leaf leaves an old sum above it; sums drift; or a resumed run, which builds anew, draws others."""
    g = torch.Generator().manual_seed(count)
    tree = tree_of(torch.rand(70_000, generator=g))
    for _ in range(20):
        first_B = torch.randint(70_000 - count, (9,), generator=g)
        tree.leaf_N[(first_B[:, None] + torch.arange(count)).flatten()] = torch.rand(9 * count, generator=g).pow(9)
        tree.refresh(first_B, count)
    again = SumTree(tree.leaf_N.clone(), tree.count)
    assert all(torch.equal(a, b) for a, b in zip(tree._blocks, again._blocks, strict=True))


RULES: dict[type[Buffer], dict[str, Any]] = {
    UniformBuffer: {}, PrioritizedBuffer: {"alpha": 1.0, "beta_start": 0.4, "eta": 0.9, "epsilon": 1e-6},
}  # fmt: skip


@pytest.mark.parametrize("rule", list(RULES), ids=["uniform", "prioritised"])
def test_draws_follow_the_masses_after_many_changes(rule: type[Buffer]) -> None:
    """Bug: rows that were overwritten or never kept are drawn, new ones are not, or at another rate than their share.

    Chi-squared of 40,000 draws of single decisions from a ring that was wrapped around three times, with rows left out,
    against equal shares (uniform) or p / sum p (prioritised). A right sampler fails with probability 1e-6 in each.
    """
    g = torch.Generator().manual_seed(5)
    ring = make(rule, rows=50, sample="transitions", **RULES[rule])
    for turn in range(16):
        ring.add(random_rows(12, seed=turn), torch.rand(12, generator=g) < 0.8)
        if turn > 2:
            batch = ring.sample(16)
            ring.update_priorities(batch, torch.rand(16, batch.mask_BT.shape[1] - batch.first, generator=g))
    times = ring.storage.row_transitions
    held_X = ((ring.storage.flag_CT[:50] & DECISION) != 0).flatten()
    mass_X = held_X.double() if rule is UniformBuffer else ring.mass_CN[:50].flatten().double()  # type: ignore[attr-defined]
    assert torch.equal(mass_X > 0, held_X)
    index_B = torch.cat([ring.sample(200).index_B for _ in range(200)])
    seen_X = torch.bincount(index_B, minlength=50 * times).double()
    expected_X = mass_X / mass_X.sum() * len(index_B)
    rare_X = expected_X < 5  # too few for the statistic each: they count as one
    seen = torch.cat([seen_X[~rare_X], seen_X[rare_X].sum(0, keepdim=True)])
    expected = torch.cat([expected_X[~rare_X], expected_X[rare_X].sum(0, keepdim=True)])
    seen, expected = seen[expected > 0], expected[expected > 0]
    assert seen_X[mass_X == 0].sum() == 0
    statistic = ((seen - expected).square() / expected).sum()
    assert torch.special.gammaincc(torch.tensor((len(seen) - 1) / 2).double(), statistic / 2) > 1e-6


@pytest.mark.parametrize("rule", list(RULES), ids=["uniform", "prioritised"])
def test_rows_of_every_block_are_drawn(rule: type[Buffer]) -> None:
    """Bug: sums above new rows stay 0, so that in a ring of more than 256 places those beyond the first are never drawn.

    600 rows of four decisions each, 6,000 draws: a row is missed with probability e^-10.
    """
    ring = make(rule, rows=600, sample="transitions", **RULES[rule])
    for turn in range(4):
        ring.add(random_rows(150, seed=turn, short=False))
    drawn = torch.cat([ring.sample(500).index_B for _ in range(12)]) // ring.storage.row_transitions
    assert int(drawn.max()) < 600 and len(drawn.unique()) >= 597


@pytest.mark.parametrize("rule", list(RULES), ids=["uniform", "prioritised"])
@pytest.mark.parametrize(("rows", "added"), [(30, 11), (600, 220)], ids=["one block", "several blocks"])
def test_a_resumed_buffer_draws_the_same(rule: type[Buffer], rows: int, added: int) -> None:
    """Bug: the tree is not part of a restored state, so that a resumed run draws from an empty or an old one."""
    ring, again = (make(rule, rows=rows, sample="transitions", **RULES[rule]) for _ in range(2))
    for turn in range(4):
        ring.add(random_rows(added, seed=turn), torch.arange(added) % 3 > 0)
    again.load_state_dict(ring.state_dict())
    for _ in range(3):
        ours, theirs = ring.sample(32), again.sample(32)
        assert torch.equal(ours.index_B, theirs.index_B) and torch.equal(ours.weight_B, theirs.weight_B)
        error_BT = torch.rand(32, ours.mask_BT.shape[1] - ours.first)
        ring.update_priorities(ours, error_BT)
        again.update_priorities(theirs, error_BT)
