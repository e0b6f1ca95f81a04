"""Replay of groups: whole, aligned, from the latest rollout and from older ones in the shares that the setting says."""

from __future__ import annotations

import pytest
import torch

from dqnlm.buffers.groups import GroupBuffer
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, Rows
from tests.helpers.buffers import FIRST, T, make

SIBLINGS, GROUPS = 3, 4


def buffer(newest: float = 0.5, seed: int = 0) -> GroupBuffer:
    made = make(GroupBuffer, rows=0 + SIBLINGS * GROUPS + 2, seed=seed, newest=newest, siblings=SIBLINGS)
    assert made.rows == SIBLINGS * GROUPS  # two rows that are no group are not kept
    return made


def add(ring: GroupBuffer, first: int, groups: int) -> None:
    """Rows whose first token is their number, `first` on."""
    count = groups * SIBLINGS
    flag_BT = torch.full((count, T), DECISION, dtype=torch.uint8)
    flag_BT[:, :FIRST] = 0
    flag_BT[:, -1] |= TERMINATED
    observation_BS = torch.zeros(count, T + 1, dtype=torch.int64)
    observation_BS[:, 0] = first + torch.arange(count)
    action_BT, length_B = torch.zeros(count, T, dtype=torch.int64), torch.full((count,), T)
    ring.add(Rows(observation_BS, action_BT, torch.zeros(count, T), flag_BT, length_B))
    ring.begin()


def drawn(ring: GroupBuffer, batch: int) -> torch.Tensor:
    return ring.sample(batch).observation_BS[:, 0].view(-1, SIBLINGS)


def test_groups_come_whole_after_the_ring_has_wrapped() -> None:
    """Bug: a group of which half is overwritten, or rows of two groups together."""
    ring = buffer()
    for rollout in range(5):  # two groups each in a ring of four
        add(ring, 6 * rollout, 2)
        for group in drawn(ring, 30):
            assert group.tolist() == list(range(int(group[0]), int(group[0]) + 3)) and int(group[0]) % 3 == 0
            assert int(group[0]) >= max(6 * rollout - 6, 0)


@pytest.mark.parametrize(("newest", "share"), [(1.0, 1.0), (0.0, 0.5), (0.5, 0.75)])
def test_shares_of_the_latest_rollout(newest: float, share: float) -> None:
    """Bug: a setting that nothing reads. Half of what is kept is of the latest rollout. 4,000 groups: 5 deviations are .04."""
    ring = buffer(newest)
    add(ring, 0, 2)
    add(ring, 6, 2)
    is_new = drawn(ring, 4000 * SIBLINGS)[:, 0] >= 6
    assert float(is_new.float().mean()) == pytest.approx(share, abs=0.04)
    counts = torch.bincount(drawn(ring, 4000 * SIBLINGS)[:, 0], minlength=12)[[6, 9]].float()
    assert float(counts[0] / counts.sum()) == pytest.approx(0.5, abs=0.06)


def test_groups_of_the_latest_rollout_are_learned_from_equally_often() -> None:
    """Bug: groups drawn with replacement, so that a third of the completions that were paid for is never learned from."""
    ring = buffer(newest=1.0)
    add(ring, 0, 1)
    add(ring, 3, 3)
    first, second = drawn(ring, 2 * SIBLINGS)[:, 0].tolist(), drawn(ring, 2 * SIBLINGS)[:, 0].tolist()
    third = drawn(ring, 2 * SIBLINGS)[:, 0].tolist()
    assert sorted(first + second + third) == [3, 3, 6, 6, 9, 9]
    assert len(set(first)) == len(set(second)) == len(set(third)) == 2
    add(ring, 12, 2)
    assert sorted(drawn(ring, 2 * SIBLINGS)[:, 0].tolist()) == [12, 15]


def test_a_resumed_buffer_draws_the_same() -> None:
    """Bug: which rollout is the latest is forgotten."""
    ring, again = buffer(), buffer(seed=5)
    add(ring, 0, 2)
    add(ring, 6, 1)
    again.load_state_dict(ring.state_dict())
    assert drawn(ring, 30).equal(drawn(again, 30))


def test_refusals() -> None:
    with pytest.raises(UserError, match=r"buffer\.newest"):
        buffer(newest=1.5)
    with pytest.raises(UserError, match=r"buffer\.capacity=8 .* 3 rows"):
        make(GroupBuffer, capacity=2 * (T - FIRST), newest=0.5, siblings=3)
