"""Stored rows and windows against plain loops, their memory, and how often the uniform buffer draws what.

Statistical tests draw from fixed seeds, so they answer the same every time; the false-alarm chance that they state is the
chance that a correct buffer fails under a newly chosen seed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.buffers import storage
from dqnlm.buffers.uniform import UniformBuffer
from dqnlm.errors import UserError
from dqnlm.ops.returns import n_step
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Batch, Rows
from tests.helpers import buffers as tools
from tests.helpers.buffers import ACTIONS, CPU, FIRST, GAMMA, T, discount, make, random_rows


def buffer(rows: int = 8, sample: str = "rows", **changes: Any) -> UniformBuffer:
    return make(UniformBuffer, rows, sample=sample, **changes)


def as_lists(rows: Rows, keep_B: Tensor | None = None) -> list[tuple[Any, ...]]:
    keep = [True] * len(rows.length_B) if keep_B is None else keep_B.tolist()
    columns = [x.tolist() for x in vars(rows).values()]
    return [row for row, kept in zip(zip(*columns, strict=True), keep, strict=True) if kept]


def held(ring: UniformBuffer) -> list[tuple[Any, ...]]:
    """What a ring holds, as it draws it: (observations, actions, rewards, mask, discounts, length)."""
    found = {}
    for _ in range(40):
        batch = ring.sample(32)
        fields = (
            batch.observation_BS,
            batch.action_BT,
            batch.reward_BT,
            batch.mask_BT,
            batch.discount_BT,
            batch.length_B,
        )
        for index, *row in zip(batch.index_B.tolist(), *(x.tolist() for x in fields), strict=True):
            found[index] = row
    return [tuple(found[index]) for index in sorted(found)]


def as_drawn(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The batch's view of a row by a plain loop."""
    observation, action, reward, flag, length = row
    discounts = [discount(bits) if t < length else 0.0 for t, bits in enumerate(flag)]
    return observation, action, reward, [float(bits & DECISION) for bits in flag], discounts, length


@pytest.mark.parametrize("multi_turn", [False, True])
@pytest.mark.parametrize("end", [TERMINATED, TRUNCATED])
@pytest.mark.parametrize("size", [0, 3])
def test_ring_against_a_list(end: int, multi_turn: bool, size: int) -> None:
    """Bug: wrap-around, rows not kept that overwrite others, fields that part company, discounts or counts made wrongly.

    A row that is held escapes all 1280 draws with a chance below 8 (7/8)^1280 < 1e-73.
    """
    ring, oracle = buffer(rows=8, multi_turn=multi_turn, observation_size=size), []
    generator = torch.Generator().manual_seed(5)
    for turn, count in enumerate([3, 5, 0, 1, 8, 4, 7]):
        rows = random_rows(count, seed=turn, end=end, multi_turn=multi_turn, size=size)
        keep_B = torch.rand(count, generator=generator) < 0.6 if turn % 2 else None
        ring.add(rows, keep_B)
        oracle += as_lists(rows, keep_B)
        expected = sorted(as_drawn(row) for row in oracle[-8:])
        assert sorted(held(ring)) == expected
        decisions = sum(bits & DECISION for row in oracle[-8:] for bits in row[3])
        assert int(ring.transitions()) == decisions
        ended = sum(bool(bits & TERMINATED) for row in oracle[-8:] for bits in row[3])
        assert float(ring.terminal_share()) == pytest.approx(ended / decisions)


def test_actions_that_are_the_next_observation_are_not_stored() -> None:
    """Bug: an off-by-one in the view of actions in free-running text, and memory paid for it."""
    ring = buffer(stores_actions=False)
    ring.add(random_rows(6, 0))
    batch = ring.sample(16)
    assert torch.equal(batch.action_BT, batch.observation_BS[:, 1:])
    assert ring.storage.action_CT.numel() == 0


@pytest.mark.parametrize(("ids", "token"), [(2, 1), (256, 1), (257, 2), (32768, 2), (32769, 4)])
@pytest.mark.parametrize("more_tokens", [True, False])
@pytest.mark.parametrize("stores_actions", [True, False])
@pytest.mark.parametrize("size", [0, 5])
def test_bytes_of_a_transition(ids: int, token: int, more_tokens: bool, stores_actions: bool, size: int) -> None:
    """Bug: int64 tokens in the ring, ids cut to the bytes of the smaller set, a stated size that is not the real one."""
    tokens, actions = (ids, 2) if more_tokens else (2, ids)
    if size and (more_tokens or not stores_actions):
        return  # vectors have no tokens, and are no actions
    ring = make(
        UniformBuffer, capacity=640, sample="rows", row_transitions=64, first_decision=0, num_tokens=tokens, num_actions=actions,
        stores_actions=stores_actions, observation_size=size,
    )  # fmt: skip
    one = 4 * size or token
    assert ring.bytes_per_transition == one + stores_actions * token + 5
    store = ring.storage
    real = sum(x[0].nbytes for x in (store.observation_CS, store.action_CT, store.reward_CT, store.flag_CT))
    assert real == 64 * ring.bytes_per_transition + one  # one observation more than transitions
    token_BS, ones_BT = torch.full((1, 65), ids - 1), torch.ones(1, 64)
    vector_BSF = torch.full((1, 65, size), 1e30)
    ring.add(
        Rows(vector_BSF if size else token_BS, token_BS[:, 1:], ones_BT, ones_BT.to(torch.uint8), torch.tensor([64]))
    )
    batch = ring.sample(1)
    assert torch.equal(batch.observation_BS, vector_BSF if size else token_BS)
    assert torch.equal(batch.action_BT, token_BS[:, 1:])


def test_rows_are_drawn_alike() -> None:
    """Bug: a first or last row that is never drawn, before and after the ring is full; also long rows drawn more often.

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
    """Bug: groups torn apart, which would give a row the outputs for another row's text. All 3 groups are drawn."""
    ring = buffer(rows=9, guesses_per_position=3)
    assert ring.rows == 9 and buffer(rows=8, guesses_per_position=3).rows == 6
    for turn in range(5):
        rows = random_rows(3, turn, short=False)
        ring.add(Rows(rows.observation_BS[:1].repeat(3, 1), *list(vars(rows).values())[1:]))
    batch = ring.sample(60)
    assert batch.copies == 3 and set(batch.index_B.tolist()) == set(range(9))
    group_GKS = batch.observation_BS.unflatten(0, (20, 3))
    assert torch.equal(group_GKS, group_GKS[:, :1].expand_as(group_GKS))
    assert torch.equal(batch.index_B.view(20, 3) % 3, torch.arange(3).expand(20, 3))


def window(
    rows: Rows, row: int, time: int, history: int, after: int | None, stores_actions: bool, width: int
) -> list[Any]:
    """One row of a batch by a plain loop: (observations, actions, rewards, discounts, mask, learn, length)."""
    start = max(0, time - (min(history, T) - 1))
    end = int(rows.length_B[row]) if after is None else min(int(rows.length_B[row]), time + after)
    empty = torch.zeros_like(rows.observation_BS[0, 0])
    observation = [rows.observation_BS[row, t] if t <= end else empty for t in range(start, start + width + 1)]
    fields: list[list[float]] = [[], [], [], [], []]
    for t in range(start, start + width):
        values = [0.0, 0.0, 0.0, 0.0, float(t == time)]
        if t < end:
            chosen = rows.action_BT[row, t] if stores_actions else rows.observation_BS[row, t + 1]
            flag = int(rows.flag_BT[row, t])
            own = t >= time
            values[:4] = [
                float(chosen), float(rows.reward_BT[row, t]) * own, discount(flag * own), float(flag & DECISION) * own,
            ]  # fmt: skip
        for field, value in zip(fields, values, strict=True):
            field.append(value)
    return [torch.stack(observation).tolist(), *fields, end - start]


@pytest.mark.parametrize("multi_turn", [False, True])
@pytest.mark.parametrize(("lookahead", "end"), [(1, TERMINATED), (1, TRUNCATED), (3, TRUNCATED), (None, TERMINATED)])
@pytest.mark.parametrize(("stores_actions", "size"), [(True, 0), (False, 0), (True, 3)])
@pytest.mark.parametrize("history", [1, 3, T, T + 5])
def test_single_decisions_against_a_loop(
    history: int, stores_actions: bool, size: int, lookahead: int | None, end: int, multi_turn: bool
) -> None:
    """Bug: windows shifted by one, context that has a reward or counts as a decision, a neighbour's flag, padding read.

    All are drawn: one of at most 28 decisions escapes 1000 draws with a chance below 28 (27/28)^1000 < 1e-14.
    """
    ring = buffer(
        sample="transitions", context=history, stores_actions=stores_actions, lookahead=lookahead, observation_size=size,
        multi_turn=multi_turn,
    )  # fmt: skip
    rows = random_rows(7, 1, end=end, multi_turn=multi_turn, size=size)
    ring.add(rows)
    batch: Batch = ring.sample(1000)
    before = min(history, T) - 1
    longest = T - max(0, FIRST - before)
    after = None if multi_turn else lookahead
    width = longest if after is None else min(before + after, longest)
    assert ring.width == width == batch.action_BT.shape[1]
    assert batch.first == min(FIRST, before) and batch.learn_BT is not None
    assert {divmod(i, T) for i in batch.index_B.tolist()} == {
        (row, t) for row in range(7) for t in range(T) if int(rows.flag_BT[row, t]) & DECISION
    }
    fields = (batch.observation_BS, batch.action_BT, batch.reward_BT, batch.discount_BT, batch.mask_BT, batch.learn_BT,
              batch.length_B)  # fmt: skip
    expected = {
        index: window(rows, *divmod(index, T), history, after, stores_actions, width)
        for index in set(batch.index_B.tolist())
    }
    for index, *found in zip(batch.index_B.tolist(), *(x.tolist() for x in fields), strict=True):
        assert found == expected[index]
    assert not batch.learn_BT[:, : batch.first].any()


@pytest.mark.parametrize("multi_turn", [False, True])
@pytest.mark.parametrize("lookahead", [1, 2, None])
@pytest.mark.parametrize("history", [1, 3])
def test_returns_in_a_window_are_those_of_its_row(history: int, lookahead: int | None, multi_turn: bool) -> None:
    """Bug: a window too short for the return of its decision, or later decisions that are no longer counted.

    The oracle is the same n-step return on the whole row, with a value for each observation that it reads.
    """
    rows = random_rows(7, 2, end=TRUNCATED, multi_turn=multi_turn)
    settings: dict[str, Any] = {"multi_turn": multi_turn, "lookahead": lookahead, "context": history}
    whole, windows = buffer(sample="rows", **settings), buffer(sample="transitions", **settings)
    value_A = torch.randn(ACTIONS, generator=torch.Generator().manual_seed(0))
    targets = []
    for ring in (whole, windows):
        ring.add(rows)
        batch = ring.sample(200)
        carry_BT = batch.carry_BT if multi_turn else None
        way = n_step(batch.reward_BT, batch.discount_BT, batch.mask_BT, carry_BT, lookahead)
        targets.append((batch, way.at(value_A[batch.observation_BS])))
    (batch, target_BT), (window_batch, found_BT) = targets
    oracle = dict(zip(batch.index_B.tolist(), target_BT, strict=True))
    assert window_batch.learn_BT is not None
    for index, found, learn in zip(window_batch.index_B.tolist(), found_BT, window_batch.learn_BT, strict=True):
        row, time = divmod(index, T)
        torch.testing.assert_close(found[learn.bool()], oracle[row][time : time + 1])


@pytest.mark.parametrize("multi_turn", [False, True])
def test_each_decision_is_drawn_alike(multi_turn: bool) -> None:
    """Bug: rows drawn alike instead, where decisions of short rows come too often; steps of a partner that are drawn.

    30,000 draws; each count within 6 standard deviations, for at most 28 decisions: chance 6e-8.
    """
    ring = buffer(rows=7, sample="transitions", multi_turn=multi_turn)
    ring.add(random_rows(10, 3, multi_turn=multi_turn))
    counts = torch.bincount(ring.sample(30000).index_B, minlength=7 * T)
    decisions = int(ring.transitions())
    drawn = counts[counts > 0]
    assert len(drawn) == decisions < 7 * (T - FIRST)
    assert float((drawn - 30000 / decisions).abs().max()) < 6 * (30000 / decisions) ** 0.5


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_state_round_trip(sample: str) -> None:
    """Bug: a buffer, its cursor or its random stream lost on a resume: the next adds and draws must be the same."""
    tools.assert_resumes_exactly(UniformBuffer, sample=sample)


@pytest.mark.parametrize(("kept", "first_found"), [(5, 0), (8, 0), (11, 3), (16, 8)])
def test_rows_of_a_saved_ring_are_in_their_order(kept: int, first_found: int) -> None:
    """Bug: where the ring has wrapped around, the newest rows come first, and a smaller ring then keeps the oldest."""
    ring = buffer(rows=8)
    for first in range(0, kept, 4):
        ring.add(tools.numbered_rows(first, min(4, kept - first)))
    rows = ring.storage.rows_of(ring.state_dict())
    assert rows.observation_BS[:, 0].tolist() == list(range(first_found, kept)) and len(rows.length_B) == kept - first_found


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_an_empty_buffer_gives_padding(sample: str) -> None:
    """Bug: an index out of range (on a GPU: the end of the process) where an update comes before the first row."""
    batch = buffer(sample=sample, lookahead=None).sample(4)
    assert not batch.mask_BT.any() and not batch.discount_BT.any() and not batch.observation_BS.any()


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a run killed by the system much later, or a message without the arithmetic and what to set.

    1000 rows and the spare one x 7 observations x 7 bytes = 49,049 bytes.
    """
    monkeypatch.setattr(storage, "free_bytes", lambda device: 49048)
    with pytest.raises(UserError, match=r"1,000 rows x 7 observations x 7 bytes .* set buffer\.capacity=3199"):
        buffer(rows=1000)
    monkeypatch.setattr(storage, "free_bytes", lambda device: 49049)
    assert buffer(rows=1000).rows == 1000
    with pytest.raises(UserError, match=r"buffer\.capacity=11 .* at least 12"):
        buffer(capacity=11, guesses_per_position=3)
    with pytest.raises(UserError, match=r"buffer\.sample=transitions .* env\.guesses_per_position"):
        buffer(guesses_per_position=2, sample="transitions")


def test_free_memory_is_read() -> None:
    """Bug: kilobytes taken for bytes."""
    assert 2**20 < storage.free_bytes(CPU) < 2**50


def test_the_discount_is_the_one_given() -> None:
    """Bug: a fixed discount. Rows that are cut keep gamma at their last decision."""
    ring = buffer(gamma=0.25)
    ring.add(random_rows(4, 0, end=TRUNCATED))
    batch = ring.sample(8)
    assert GAMMA != 0.25 and torch.equal(batch.discount_BT[batch.mask_BT > 0].unique(), torch.tensor([0.25]))


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_the_same_rows_from_a_file(sample: str) -> None:
    """Bug: a ring in a file that is as long as the rows but not as wide, or draws that depend on where the ring lies."""
    here, there = buffer(8, sample), buffer(8, sample, place="file")
    for seed in range(4):  # the ring is written more than once
        rows = random_rows(5, seed=seed)
        for ring in (here, there):
            ring.add(rows)
        drawn = [vars(ring.deliver(ring.sample(16))) for ring in (here, there)]
        assert all(torch.equal(drawn[0][name], drawn[1][name]) for name, x in drawn[0].items() if isinstance(x, Tensor))
    again = buffer(8, sample, place="file")
    again.load_state_dict(here.state_dict())
    assert torch.equal(again.sample(16).index_B, here.sample(16).index_B)


def test_a_ring_in_a_file_leaves_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a run that is killed leaves gigabytes among the temporary files; or the ring is in memory after all."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ring = buffer(8, place="file")
    assert list(tmp_path.iterdir()) == [] and str(tmp_path) in Path("/proc/self/maps").read_text()
    ring.add(random_rows(3, seed=0))
    assert int(ring.transitions()) > 0


@pytest.mark.parametrize(("added", "saved"), [(0, 0), (3, 3), (8, 8), (11, 8)])
def test_a_ring_is_saved_by_what_it_holds(added: int, saved: int, tmp_path: Path) -> None:
    """Bug: 24 rows in a ring of half a billion write 3.6 GB; or a slice is saved with all that it is a view of."""
    kept = make(UniformBuffer, rows=8, sample="rows")
    if added:
        kept.add(random_rows(min(added, 8), seed=1))
    if added > 8:
        kept.add(random_rows(added - 8, seed=2))
    state = kept.state_dict()
    assert len(state["reward_CT"]) == len(state["length_C"]) == saved
    torch.save(state, tmp_path / "state.pt")
    empty = make(UniformBuffer, rows=8, seed=7, sample="rows")
    empty.add(random_rows(8, seed=3))  # what was there before must not shine through
    empty.load_state_dict(torch.load(tmp_path / "state.pt"))
    for name, tensor in kept.storage.state().items():
        there = getattr(empty.storage, name)
        assert torch.equal(there[:8], tensor[:8]) if tensor.dim() else there == tensor, name
    held = [value.tolist() for value in vars(kept.storage.rows_of(state)).values()]
    assert held == [value.tolist() for value in vars(kept.storage.rows_of(kept.storage.state())).values()]
    wide = make(UniformBuffer, rows=100_000, sample="rows")
    wide.add(random_rows(3, seed=1))
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    assert (tmp_path / "wide.pt").stat().st_size < 20_000


def test_a_ring_saved_whole_by_earlier_versions_is_read() -> None:
    """Bug: a run of an earlier version that cannot be resumed; a ring of another size that is taken."""
    kept = make(UniformBuffer, rows=8, sample="rows")
    kept.add(random_rows(5, seed=1))
    state = kept.storage.state() | {"generator": kept.generator.get_state()}
    again = make(UniformBuffer, rows=8, seed=7, sample="rows")
    again.load_state_dict(state)
    assert torch.equal(again.sample(4).reward_BT, kept.sample(4).reward_BT)
    with pytest.raises(ValueError, match="8 rows, this one 9"):
        make(UniformBuffer, rows=9, sample="rows").load_state_dict(state)
