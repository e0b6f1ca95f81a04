"""The replay buffer against a plain list, its memory, and how often it draws what.

Statistical tests draw from fixed seeds, so they answer the same every time; the false-alarm chance that they state is the
chance that a correct buffer fails under a newly chosen seed.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.buffers import uniform
from dqnlm.buffers.uniform import UniformBuffer
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Batch, Rows

T, FIRST, ACTIONS = 6, 2, 50
CPU = torch.device("cpu")


def buffer(rows: int = 8, stores_actions: bool = True, copies: int = 1, history: int = T, seed: int = 0,
           **options: Any) -> UniformBuffer:  # fmt: skip
    settings: dict[str, Any] = {"capacity": rows * (T - FIRST), "sample": "rows"} | options
    generator = torch.Generator().manual_seed(seed)
    return UniformBuffer(T, FIRST, ACTIONS, stores_actions, 0.9, history, copies, CPU, generator, **settings)


def random_rows(count: int, seed: int, short: bool = True, end: int = TERMINATED) -> Rows:
    """Rows whose first observation names them; prompt steps without a decision, then decisions up to a random length."""
    g = torch.Generator().manual_seed(seed)
    length_B = torch.randint(FIRST + 1, T + 1, (count,), generator=g) if short else torch.full((count,), T)
    time = torch.arange(T)
    within = time < length_B[:, None]
    flag_BT = ((time >= FIRST) & within) * DECISION + (time == length_B[:, None] - 1) * end
    return Rows(
        torch.randint(ACTIONS, (count, T + 1), generator=g) * (torch.arange(T + 1) <= length_B[:, None]),
        torch.randint(ACTIONS, (count, T), generator=g) * within,
        torch.rand(count, T, generator=g) * (flag_BT > 0),
        flag_BT.to(torch.uint8),
        length_B,
    )


def as_lists(rows: Rows, keep_B: Tensor | None = None) -> list[tuple[Any, ...]]:
    keep = [True] * len(rows.length_B) if keep_B is None else keep_B.tolist()
    columns = [x.tolist() for x in vars(rows).values()]
    return [row for row, kept in zip(zip(*columns, strict=True), keep, strict=True) if kept]


def held(ring: UniformBuffer) -> list[tuple[Any, ...]]:
    """What a ring holds, as it draws it: (index, observations, actions, rewards, flags seen through mask and discount)."""
    found = {}
    for _ in range(40):
        batch = ring.sample(32)
        fields = (batch.observation_BS, batch.action_BT, batch.reward_BT, batch.mask_BT, batch.discount_BT)
        for index, *row in zip(batch.index_B.tolist(), *(x.tolist() for x in fields), strict=True):
            found[index] = row
    return [tuple(found[index]) for index in sorted(found)]


def as_drawn(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The batch's view of a row by a plain loop."""
    observation, action, reward, flag, length = row
    discount = []
    for t, bits in enumerate(flag):
        if t >= length or bits & TERMINATED:
            discount.append(0.0)
        else:
            discount.append(torch.tensor(0.9).item() if bits & DECISION else 1.0)
    return observation, action, reward, [float(bits & DECISION) for bits in flag], discount


@pytest.mark.parametrize("end", [TERMINATED, TRUNCATED])
def test_ring_against_a_list(end: int) -> None:
    """Guards wrap-around, rows not kept that overwrite others, fields that part company, and discounts made wrongly.

    A row that is held escapes all 1280 draws with a chance below 8 (7/8)^1280 < 1e-73.
    """
    ring, oracle = buffer(rows=8), []
    generator = torch.Generator().manual_seed(5)
    for turn, count in enumerate([3, 5, 0, 1, 8, 4, 7]):
        rows = random_rows(count, seed=turn, end=end)
        keep_B = torch.rand(count, generator=generator) < 0.6 if turn % 2 else None
        ring.add(rows, keep_B)
        oracle += as_lists(rows, keep_B)
        expected = sorted(as_drawn(row) for row in oracle[-8:])
        assert sorted(held(ring)) == expected
        assert int(ring.transitions()) == sum(row[4] - FIRST for row in oracle[-8:])


def test_actions_that_are_the_next_observation_are_not_stored() -> None:
    """Guards an off-by-one in the view of actions in free-running text, and memory paid for it."""
    ring = buffer(stores_actions=False)
    ring.add(random_rows(6, 0))
    batch = ring.sample(16)
    assert torch.equal(batch.action_BT, batch.observation_BS[:, 1:])
    assert ring.action_CT.numel() == 0


@pytest.mark.parametrize(("actions", "token"), [(2, 1), (256, 1), (257, 2), (32768, 2), (32769, 4)])
@pytest.mark.parametrize("stores_actions", [True, False])
def test_bytes_of_a_transition(actions: int, token: int, stores_actions: bool) -> None:
    """Guards int64 tokens in the ring, and a stated size that is not the real one."""
    settings: dict[str, Any] = {"capacity": 640, "sample": "rows"}
    ring = UniformBuffer(64, 0, actions, stores_actions, 0.9, 64, 1, CPU, torch.Generator(), **settings)
    assert ring.bytes_per_transition == (1 + stores_actions) * token + 5 <= 2 * token + 5
    real = sum(x[0].numel() * x.element_size() for x in (ring.observation_CS, ring.action_CT, ring.reward_CT, ring.flag_CT))
    assert real == 64 * ring.bytes_per_transition + token  # one observation more than transitions
    token_BS, ones_BT = torch.full((1, 65), actions - 1), torch.ones(1, 64)
    ring.add(Rows(token_BS, token_BS[:, 1:], ones_BT, ones_BT.to(torch.uint8), torch.tensor([64])))
    assert int(ring.sample(1).observation_BS.min()) == actions - 1


def test_rows_are_drawn_alike() -> None:
    """Guards a first or last row that is never drawn, before and after the ring is full; also long rows drawn more often.

    40,000 draws of 5 (then 8) rows; each count within 6 standard deviations (about 480 and 400): chance 3e-8.
    """
    ring = buffer(rows=8)
    for held_rows, more in ((5, 5), (8, 6)):
        ring.add(random_rows(more, more))
        counts = torch.bincount(ring.sample(40000).index_B, minlength=held_rows)
        assert counts.shape == (held_rows,)
        share = 1 / held_rows
        assert float((counts - 40000 * share).abs().max()) < 6 * (40000 * share * (1 - share)) ** 0.5


def test_copies_are_drawn_together() -> None:
    """Guards groups torn apart, which would give a row the outputs for another row's text. All 3 groups are drawn."""
    ring = buffer(rows=9, copies=3)
    assert ring.rows == 9 and buffer(rows=8, copies=3).rows == 6
    for turn in range(5):
        rows = random_rows(3, turn, short=False)
        ring.add(Rows(rows.observation_BS[:1].repeat(3, 1), *list(vars(rows).values())[1:]))
    batch = ring.sample(60)
    assert batch.copies == 3 and set(batch.index_B.tolist()) == set(range(9))
    group_GKS = batch.observation_BS.unflatten(0, (20, 3))
    assert torch.equal(group_GKS, group_GKS[:, :1].expand_as(group_GKS))
    assert torch.equal(batch.index_B.view(20, 3) % 3, torch.arange(3).expand(20, 3))


@pytest.mark.parametrize("end", [TERMINATED, TRUNCATED])
@pytest.mark.parametrize("stores_actions", [True, False])
@pytest.mark.parametrize("history", [1, 3, T, T + 5])
def test_single_decisions_against_a_loop(history: int, stores_actions: bool, end: int) -> None:
    """Guards windows shifted by one, a reward or flag of a neighbour, context that counts as a decision."""
    ring = buffer(sample="transitions", history=history, stores_actions=stores_actions)
    rows = random_rows(7, 1, end=end)
    ring.add(rows)
    batch: Batch = ring.sample(64)
    width = min(history, T)
    assert batch.observation_BS.shape == (64, width + 1)
    assert torch.equal(batch.mask_BT.sum(1), torch.ones(64))
    for b, row in enumerate(batch.index_B.tolist()):
        t = int(batch.mask_BT[b].argmax())
        assert t >= batch.first
        matches = [
            time for time in range(FIRST, int(rows.length_B[row]))
            if abs(float(rows.reward_BT[row, time] - batch.reward_BT[b, t])) < 1e-9
        ]  # fmt: skip
        [time] = matches
        start = max(0, time - width + 1)
        assert t == time - start
        seen = rows.observation_BS[row, start : time + 2]
        assert torch.equal(batch.observation_BS[b, : t + 2], seen)
        chosen = rows.action_BT[row, time] if stores_actions else rows.observation_BS[row, time + 1]
        assert int(batch.action_BT[b, t]) == int(chosen)
        ended = int(rows.flag_BT[row, time]) & TERMINATED
        assert float(batch.discount_BT[b, t]) == pytest.approx(0.0 if ended else 0.9)
        assert float(batch.reward_BT[b].abs().sum()) == pytest.approx(float(batch.reward_BT[b, t]))


def test_each_decision_is_drawn_alike() -> None:
    """Guards rows drawn alike instead, where decisions of short rows come too often.

    30,000 draws; each count within 6 standard deviations, for at most 28 decisions: chance 6e-8.
    """
    ring = buffer(rows=7, sample="transitions", history=T)
    ring.add(random_rows(10, 3))
    batch = ring.sample(30000)
    time_B = batch.mask_BT.argmax(1)
    counts = torch.bincount(batch.index_B * T + time_B, minlength=7 * T)
    decisions = int(ring.transitions())
    drawn = counts[counts > 0]
    assert len(drawn) == decisions < 7 * (T - FIRST)
    assert float((drawn - 30000 / decisions).abs().max()) < 6 * (30000 / decisions) ** 0.5


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_state_round_trip(sample: str) -> None:
    """Guards a buffer, its cursor or its random stream lost on a resume: the next adds and draws must be the same."""
    ring, other = buffer(sample=sample, seed=1), buffer(sample=sample, seed=2)
    ring.add(random_rows(5, 0))
    ring.sample(3)
    state = copy.deepcopy(ring.state_dict())
    assert all(isinstance(x, Tensor) for x in state.values())
    other.load_state_dict(state)
    for each in (ring, other):
        each.add(random_rows(6, 9))
    for one, two in zip(vars(ring.sample(20)).values(), vars(other.sample(20)).values(), strict=True):
        assert torch.equal(one, two) if isinstance(one, Tensor) else one == two


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a run killed by the system much later, or a message without the arithmetic and what to set.

    1000 rows and the spare one x 7 observations x 7 bytes = 49,049 bytes.
    """
    monkeypatch.setattr(uniform, "free_memory", lambda device: 49048)
    with pytest.raises(UserError, match=r"1,000 rows x 7 observations x 7 bytes .* set buffer\.capacity=3199"):
        buffer(rows=1000)
    monkeypatch.setattr(uniform, "free_memory", lambda device: 49049)
    assert buffer(rows=1000).rows == 1000
    with pytest.raises(UserError, match=r"buffer\.capacity=11 .* at least 12"):
        buffer(capacity=11, copies=3)
    with pytest.raises(UserError, match=r"buffer\.sample=transitions .* env\.copies"):
        buffer(copies=2, sample="transitions")


def test_free_memory_is_read() -> None:
    assert 2**20 < uniform.free_memory(CPU) < 2**50
