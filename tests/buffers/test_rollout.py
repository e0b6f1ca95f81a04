"""The rollout buffer: each row of the latest rollout once an epoch, and none of an earlier one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dqnlm.buffers.rollout import RolloutBuffer
from tests.helpers import buffers as tools
from tests.helpers.buffers import T, make, numbered_rows, numbers


def buffer(rows: int = 8, **changes: Any) -> RolloutBuffer:
    return make(RolloutBuffer, rows, **changes)


def rollout(ring: RolloutBuffer, first: int, count: int) -> None:
    """A rollout in which the rows first..first + count - 1 ended."""
    ring.add(numbered_rows(first, count))
    ring.begin()


def draws(ring: RolloutBuffer, batch_size: int, batches: int) -> list[int]:
    return [number for _ in range(batches) for number in numbers(ring.sample(batch_size))]


@pytest.mark.parametrize("count", [1, 5, 7, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 8])
def test_each_epoch_has_every_row_once(count: int, batch_size: int) -> None:
    """Bug: replacement, a row left out at the end of an epoch, rows of an earlier rollout, places not filled.

    Batches of at most `count` rows: the draws in pieces of `count` are permutations, wherever the batches begin.
    """
    ring = buffer(rows=8)
    for turn in range(3):
        first = 10 * turn
        rollout(ring, first, count)
        assert int(ring.transitions()) == count * (T - tools.FIRST)
        if batch_size > count:
            continue
        found = draws(ring, batch_size, 4 * count)
        for epoch in range(4 * batch_size):
            assert sorted(found[epoch * count : (epoch + 1) * count]) == list(range(first, first + count))


def test_a_batch_larger_than_the_rollout_repeats_evenly() -> None:
    """Bug: an index out of range. 3 rows, batches of 8: each row twice or three times."""
    ring = buffer(rows=8)
    rollout(ring, 0, 3)
    for _ in range(5):
        found = numbers(ring.sample(8))
        assert sorted(found.count(row) for row in range(3)) == [2, 3, 3]


def test_orders_are_new_and_all_alike() -> None:
    """Bug: the same order in each epoch, or a row that always comes first.

    1,800 epochs of 3 rows: each of the 6 orders within 6 standard deviations (95) of 300: chance 1.2e-8.
    """
    ring = buffer(rows=8)
    rollout(ring, 0, 3)
    orders = [tuple(numbers(ring.sample(3))) for _ in range(1800)]
    counts = torch.tensor([orders.count(order) for order in sorted(set(orders))])
    assert len(counts) == 6 and float((counts - 300).abs().max()) < 6 * (1800 * 5 / 36) ** 0.5


def test_a_new_rollout_ends_the_epoch() -> None:
    """Bug: an order of the rollout before goes on, with places that now hold other rows, or none."""
    ring = buffer(rows=8)
    rollout(ring, 0, 6)
    draws(ring, 4, 1)
    rollout(ring, 10, 5)
    assert sorted(draws(ring, 5, 1)) == [10, 11, 12, 13, 14]
    draws(ring, 4, 1)
    ring.add(numbered_rows(15, 2))  # without `begin` they belong to the same rollout
    assert sorted(draws(ring, 7, 1)) == [10, 11, 12, 13, 14, 15, 16]


def test_rows_are_those_that_ended_since_the_last_rollout() -> None:
    """Bug: rollouts without an update (a late start), without a finished row, or larger than the ring.

    Rollouts bring 2, 3, 0, 10 and 1 rows; of the 10 the newest 8 are kept.
    """
    ring = buffer(rows=8)
    rollout(ring, 0, 2)
    rollout(ring, 2, 3)
    assert sorted(draws(ring, 3, 1)) == [2, 3, 4]
    rollout(ring, 5, 0)
    assert sorted(draws(ring, 3, 1)) == [2, 3, 4]
    ring.add(numbered_rows(5, 5))
    ring.add(numbered_rows(10, 5))
    ring.begin()
    assert sorted(draws(ring, 8, 1)) == list(range(7, 15))
    rollout(ring, 15, 1)
    assert draws(ring, 2, 1) == [15, 15] and int(ring.transitions()) == T - tools.FIRST


def test_rows_not_kept_do_not_count() -> None:
    """Bug: open rows of environments that go on are taken for finished ones."""
    ring = buffer(rows=8)
    for step in range(6):
        ring.add(numbered_rows(4 * step, 4), torch.tensor([step == 1, False, step == 4, step == 5]))
    ring.begin()
    assert sorted(draws(ring, 3, 1)) == [4, 18, 23]


def test_logged_rows_are_one_rollout_until_another_comes() -> None:
    """Bug: nothing to draw before the first rollout, or logged rows that stay among those of a rollout."""
    ring = buffer(rows=8)
    ring.add(numbered_rows(0, 5))
    assert sorted(draws(ring, 5, 1)) == [0, 1, 2, 3, 4]
    rollout(ring, 10, 2)
    assert sorted(draws(ring, 2, 1)) == [10, 11]


def test_groups_stay_together() -> None:
    """Bug: groups torn apart, across the ring's end too: 4 groups of 3, rollouts of 3 groups."""
    ring = buffer(rows=12, guesses_per_position=3)
    for turn in range(5):
        rows = numbered_rows(0, 9)
        rows.observation_BS = (10 * turn + torch.arange(9) // 3)[:, None].expand(9, T + 1)
        ring.add(rows)
        ring.begin()
        batch = ring.sample(9)
        assert batch.copies == 3
        assert sorted(numbers(batch)) == sorted([10 * turn, 10 * turn + 1, 10 * turn + 2] * 3)
        assert torch.equal(batch.index_B.view(3, 3) % 3, torch.arange(3).expand(3, 3))


def test_terminal_share_is_of_the_latest_rollout() -> None:
    """Bug: figures of rows that are no longer drawn. One of two rows of 4 decisions each is terminated: 1 / 8."""
    ring = buffer(rows=8)
    rollout(ring, 0, 5)
    assert float(ring.terminal_share()) == pytest.approx(1 / 4)
    rows = numbered_rows(5, 2)
    rows.flag_BT[0, -1] = 1
    ring.add(rows)
    ring.begin()
    assert float(ring.terminal_share()) == pytest.approx(1 / 8)


def test_state_round_trip() -> None:
    """Bug: the order of an epoch, the place in it, or where the rollout began lost on a resume."""
    tools.assert_resumes_exactly(RolloutBuffer)


def test_an_empty_buffer_gives_padding() -> None:
    """Bug: a division by zero rows."""
    batch = buffer().sample(4)
    assert not batch.mask_BT.any() and batch.observation_BS.shape == (4, T + 1)
