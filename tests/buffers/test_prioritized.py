"""Prioritised replay: chances, weights and priorities by hand. False-alarm chances: as `test_buffer.py` has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.buffers.prioritized import PrioritizedBuffer
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Batch
from tests.helpers import buffers as tools
from tests.helpers.buffers import FIRST, T, make, numbered_rows, random_rows


def buffer(rows: int = 8, sample: str = "rows", **changes: Any) -> PrioritizedBuffer:
    settings = {"alpha": 0.6, "beta_start": 0.4, "eta": 0.9, "epsilon": 0.01}
    return make(PrioritizedBuffer, rows, sample=sample, **settings | changes)


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_the_same_rows_from_a_file(sample: str) -> None:
    """Bug: priorities or draws that depend on where the ring lies."""
    here, there = buffer(8, sample), buffer(8, sample, place="file")
    for seed in range(4):
        rows = random_rows(5, seed=seed)
        for ring in (here, there):
            ring.add(rows)
        for _ in range(3):
            drawn = [ring.sample(16) for ring in (here, there)]
            assert all(torch.equal(x, vars(drawn[1])[name]) for name, x in vars(drawn[0]).items() if isinstance(x, Tensor))
            error_BT = torch.rand(16, drawn[0].mask_BT.shape[1] - drawn[0].first, generator=torch.Generator().manual_seed(seed))
            for ring, batch in zip((here, there), drawn, strict=True):
                ring.update_priorities(batch, error_BT)


def everything(ring: PrioritizedBuffer, index_B: list[int]) -> Batch:
    """A batch of these places."""
    at_B = torch.tensor(index_B)
    return ring._whole(at_B) if ring.mode == "rows" else ring._windows(at_B // T, at_B % T)


def set_errors(ring: PrioritizedBuffer, index_B: list[int], error_B: list[float]) -> None:
    """An update in which every learned decision of a place has the same error."""
    batch = everything(ring, index_B)
    times = batch.mask_BT.shape[1] - batch.first
    ring.update_priorities(batch, torch.tensor(error_B)[:, None].expand(-1, times))


def shares(ring: PrioritizedBuffer, places: int) -> Tensor:
    return torch.bincount(ring.sample(20000).index_B, minlength=places) / 20000


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_rows_come_with_their_chance(alpha: float) -> None:
    """Bug: alpha left out or applied twice, squared errors, an index off by one, rows not filled that are drawn.

    P = (|error| + 0.01)^alpha / sum. One draw from each of 20,000 equal slices: a count misses 20,000 P by less than 2
    whatever the draws, so no chance is involved.
    """
    ring = buffer(rows=8, alpha=alpha)
    ring.add(numbered_rows(0, 5))
    errors = [0.5, -2.0, 0.0, 0.04, 4.0]
    set_errors(ring, [0, 1, 2, 3, 4], errors)
    mass = torch.tensor([(abs(e) + 0.01) ** alpha for e in errors])
    found = shares(ring, 5)
    assert found.shape == (5,)
    torch.testing.assert_close(found, mass / mass.sum(), atol=2 / 20000, rtol=0)


def test_each_slice_draws_within_itself() -> None:
    """Bug: slices whose draws always fall on the same place: 8 alike rows, 4 slices of 2 rows each, either row half the time.

    2,000 draws of each slice: the count of its first row within 6 standard deviations (134): chance 4 x 2e-9.
    """
    ring = buffer(rows=8)
    ring.add(numbered_rows(0, 8))
    index_XB = torch.stack([ring.sample(4).index_B for _ in range(2000)])
    assert torch.equal(index_XB // 2, torch.arange(4).expand(2000, 4))
    assert float(((index_XB % 2).sum(0) - 1000).abs().max()) < 6 * 500**0.5
    alike = int(((index_XB % 2).sum(1) % 4 == 0).sum())  # on the same side in all slices: 1/8, if each draws for itself
    assert abs(alike - 250) < 6 * 220**0.5


@pytest.mark.parametrize("multi_turn", [False, True])
def test_decisions_come_with_their_own_chance(multi_turn: bool) -> None:
    """Bug: a window's error given to its row, or to its neighbour in time; steps drawn that are no decisions.

    Counts miss by less than 2, as above.
    """
    ring = buffer(rows=7, sample="transitions", context=3, lookahead=2, multi_turn=multi_turn, alpha=1.0)
    rows = random_rows(7, 1, multi_turn=multi_turn)
    ring.add(rows)
    places = [r * T + t for r in range(7) for t in range(T) if int(rows.flag_BT[r, t]) & DECISION]
    g = torch.Generator().manual_seed(0)
    mass_X = torch.zeros(7 * T)
    for start in range(0, len(places), 5):
        some = places[start : start + 5]
        batch = everything(ring, some)
        assert batch.learn_BT is not None
        error_BT = torch.randn(len(some), ring.width - batch.first, generator=g)
        ring.update_priorities(batch, error_BT)
        mass_X[some] = (error_BT * batch.learn_BT[:, batch.first :]).sum(1).abs() + 0.01
    torch.testing.assert_close(shares(ring, 7 * T), mass_X / mass_X.sum(), atol=2 / 20000, rtol=0)


def test_a_row_mixes_its_largest_and_its_mean_error() -> None:
    """Bug: signs that cancel, squares, padding or prompt in the mean, eta on the wrong side.

    Row 0: errors 1, -3, 0.5, -0.5 at times 2..5: 0.75 x 3 + 0.25 x 5/4 + 0.01 = 2.5725. Row 1 has length 4, so times 2, 3
    count: errors 1, -3: 0.75 x 3 + 0.25 x 2 + 0.01 = 2.76; what stands behind is not read. The greatest seen is 2.76.
    """
    ring = buffer(rows=2, eta=0.75, alpha=1.0)
    rows = numbered_rows(0, 2)
    rows.length_B[1] = 4
    rows.flag_BT[1, 4:] = 0
    ring.add(rows)
    error_BT = torch.tensor([[1.0, -3.0, 0.5, -0.5], [1.0, -3.0, 100.0, float("nan")]])
    ring.update_priorities(everything(ring, [0, 1]), error_BT)
    torch.testing.assert_close(ring.mass_CN[:2, 0], torch.tensor([2.5725, 2.76]))
    torch.testing.assert_close(ring.largest, torch.tensor(2.76))


@pytest.mark.fault("squared error as priority")
@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_priorities_are_absolute_errors_not_squares(sample: str) -> None:
    """Bug: squared errors as priorities (TorchRL). With alpha 1, errors 1 and 4 of two places are drawn 1 : 4, not 1 : 16."""
    ring = buffer(rows=2, sample=sample, alpha=1.0, epsilon=1e-9)
    ring.add(numbered_rows(0, 2))
    places = [0, 1] if sample == "rows" else [FIRST, T + FIRST]
    if sample == "transitions":
        ring.mass_CN[:] = 0  # only two decisions remain
    set_errors(ring, places, [-1.0, 4.0])
    found = shares(ring, 2 * T)[places]
    torch.testing.assert_close(found, torch.tensor([0.2, 0.8]), atol=2 / 20000, rtol=0)


def test_weights_by_hand() -> None:
    """Bug: a weight that is P's inverse without beta, or is not scaled by the greatest of the batch; beta that stands still.

    p = 1, 2, 8 (errors less the epsilon), alpha 0.5: P ~ 1, sqrt 2, sqrt 8; N = 3. Weights (N P)^-beta over that of p = 1:
    beta 0.5: 1, 2^-0.25, 8^-0.25; beta 1: 1, 2^-0.5, 8^-0.5. 18 draws give each row at least two slices of its own.
    """
    ring = buffer(rows=3, alpha=0.5, beta_start=0.5, epsilon=0.5)
    ring.add(numbered_rows(0, 3))
    set_errors(ring, [0, 1, 2], [0.5, -1.5, 7.5])
    for progress, beta in ((0.0, 0.5), (0.5, 0.75), (1.0, 1.0), (7.0, 1.0)):
        ring.advance(progress)
        batch = ring.sample(18)
        by_row = torch.tensor([1.0, 2.0 ** (-beta / 2), 8.0 ** (-beta / 2)])
        assert set(tools.numbers(batch)) == {0, 1, 2}
        torch.testing.assert_close(batch.weight_B, by_row[batch.index_B])
    # Without the row of p = 1 the greatest weight is that of p = 2.
    ring.mass_CN[0] = 0
    batch = ring.sample(18)
    torch.testing.assert_close(batch.weight_B, torch.tensor([9.0, 1.0, 0.5])[batch.index_B])


def test_the_weighted_draw_is_unbiased_when_beta_is_1() -> None:
    """Bug: weights of something else than the chances of the draw. The weighted mean over draws is the plain mean of rows.

    A row is drawn 20,000 P times, up to 2, and its weight with beta 1 is in proportion to 1 / P; so its draws times its
    weight come to the same number as those of each other row, up to 2 draws of at least 300.
    """
    ring = buffer(rows=6, beta_start=1.0)
    ring.add(numbered_rows(0, 6))
    set_errors(ring, list(range(6)), [0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    batch = ring.sample(20000)
    total_C = torch.zeros(6).index_add_(0, batch.index_B, batch.weight_B)
    torch.testing.assert_close(total_C / total_C.mean(), torch.ones(6), atol=0.01, rtol=0)


def test_new_rows_have_the_largest_priority_seen() -> None:
    """Bug: new rows of priority 1 (never drawn where errors are large), or of the largest still held; p in place of p^alpha.

    The largest is 30.01, of row 0, whose priority then falls; the new row takes 30.01 all the same. Rows without a decision
    have none. Rows that are not kept change nothing.
    """
    ring = buffer(rows=3, alpha=0.5)
    ring.add(numbered_rows(0, 2))
    assert ring.mass_CN[:3, 0].tolist() == [1.0, 1.0, 0.0]
    set_errors(ring, [0], [30.0])
    set_errors(ring, [0], [0.5])
    ring.add(numbered_rows(2, 2), torch.tensor([False, True]))
    torch.testing.assert_close(ring.mass_CN[:3, 0], torch.tensor([0.51, 1.0, 30.01]) ** 0.5)
    empty = numbered_rows(4, 1)
    empty.flag_BT[:] = 0
    ring.add(empty)
    assert float(ring.mass_CN[0, 0]) == 0.0 and 0 not in ring.sample(500).index_B.tolist()


def test_a_row_drawn_twice_keeps_the_larger_priority() -> None:
    """Bug: the order of two writes to one place decides, which on a GPU differs from run to run."""
    ring = buffer(rows=2, alpha=1.0)
    ring.add(numbered_rows(0, 2))
    for errors in ([3.0, 2.0, 0.1], [2.0, 3.0, 0.1]):
        set_errors(ring, [0, 0, 1], errors)
        torch.testing.assert_close(ring.mass_CN[:2, 0], torch.tensor([3.01, 0.11]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_errors_that_are_not_finite_spoil_nothing(bad: float) -> None:
    """Bug: one NaN in the sum, and every index after it is out of range (on a GPU: the end of the process)."""
    ring = buffer(rows=3, alpha=1.0)
    ring.add(numbered_rows(0, 3))
    set_errors(ring, [0, 1, 2], [bad, 1.0, 1.0])
    assert ring.mass_CN.isfinite().all() and ring.largest.isfinite()
    assert set(ring.sample(300).index_B.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_batches_are_those_of_the_places_drawn(sample: str) -> None:
    """Bug: weights, places and rows in different orders. Each row's observations hold its number."""
    ring = buffer(rows=8, sample=sample)
    ring.add(numbered_rows(0, 8))
    batch = ring.sample(40)
    assert tools.numbers(batch) == (batch.index_B // ring.columns).tolist()
    assert batch.weight_B.dtype == torch.float32 and torch.equal(batch.weight_B, torch.ones(40))  # all alike as yet


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_state_round_trip(sample: str) -> None:
    """Bug: priorities, the largest of them, beta, the ring or the random stream lost on a resume."""
    tools.assert_resumes_exactly(
        PrioritizedBuffer, sample=sample, alpha=0.7, beta_start=0.2, eta=0.5, epsilon=0.1, lookahead=2
    )


def test_memory_counts_priorities() -> None:
    """Bug: a stated size that is not the real one: 1 + 1 + 5 bytes, and 4 for the priority of a single decision."""
    assert buffer(sample="rows").bytes_per_transition == 7
    ring = buffer(sample="transitions")
    assert ring.bytes_per_transition == 11 and ring.mass_CN[0].nbytes == 4 * T


@pytest.mark.parametrize("sample", ["rows", "transitions"])
def test_an_empty_buffer_gives_padding(sample: str) -> None:
    """Bug: an index out of range, or 0 / 0, where an update comes before the first row."""
    ring = buffer(sample=sample)
    batch = ring.sample(4)
    assert not batch.mask_BT.any() and batch.weight_B.isfinite().all()
    ring.update_priorities(batch, torch.ones(4, batch.mask_BT.shape[1] - batch.first))
    assert not ring.mass_CN.any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guesses_per_position": 2}, r"env\.guesses_per_position=2 .* set env\.guesses_per_position=1"),
        ({"alpha": 1.5}, r"buffer\.alpha must lie between 0 and 1, not 1\.5"),
        ({"beta_start": -0.1}, r"buffer\.beta_start"),
        ({"eta": 2.0}, r"buffer\.eta"),
        ({"epsilon": 0.0}, r"buffer\.epsilon must be above 0"),
    ],
)
def test_refusals(changes: dict[str, Any], words: str) -> None:
    """Bug: a setting out of range that shows only as a run that does not learn."""
    with pytest.raises(UserError, match=words):
        buffer(**changes)


def test_it_says_that_it_needs_errors() -> None:
    """Bug: priorities that never change, without a word, where no objective has errors."""
    ring = buffer()
    assert ring.needs_errors
    ring.add(numbered_rows(0, 2))
    with pytest.raises(UserError, match="no objective here has any"):
        ring.update_priorities(ring.sample(2), None)


@pytest.mark.parametrize("burn_in", [0, 2])
def test_what_is_not_learned_has_no_part_in_a_rows_priority(burn_in: int) -> None:
    """Bug: errors of the burn-in, which are large while the state is cold, rank the rows (R2D2 leaves them out)."""
    ring = buffer(burn_in=burn_in, alpha=1.0)
    ring.add(numbered_rows(0, 1))
    batch = everything(ring, [0])
    error_BT = torch.zeros(1, T - FIRST)
    error_BT[:, :2] = 100.0
    ring.update_priorities(batch, error_BT)
    expected = 0.01 if burn_in else 0.9 * 100 + 0.1 * 200 / (T - FIRST) + 0.01
    assert float(ring.mass_CN[0]) == pytest.approx(expected)


def test_windows_say_whether_they_reach_a_cut() -> None:
    """Bug: a window that ends in the middle of a row is taken for a row's end, or an ended episode for a cut one."""
    cut, ended = (buffer(2, "transitions", context=1, lookahead=1) for _ in range(2))
    cut.add(random_rows(1, 0, short=False, end=TRUNCATED))
    ended.add(random_rows(1, 0, short=False, end=TERMINATED))
    times = torch.arange(FIRST, T).tolist()
    assert everything(cut, times).cut_B.tolist() == [time == T - 1 for time in times]
    assert not everything(ended, times).cut_B.any()
