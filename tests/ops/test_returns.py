"""Multi-step returns: by hand, against plain loops on random rows, and reduced to one another."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.objectives import returns as rules
from dqnlm.ops import returns


class Rows(NamedTuple):
    """Random rows; padding holds garbage wherever a batch may hold any (its mask and discount are 0)."""

    reward_BT: Tensor
    discount_BT: Tensor
    mask_BT: Tensor
    carry_BT: Tensor
    value_BS: Tensor
    length_B: Tensor

    @property
    def fields(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self[:4]


def random_rows(seed: int, carried: float, rows: int = 24, times: int = 11) -> Rows:
    """Lengths 0..times, ends by termination (discount 0) or truncation (its own discount), a share of carried steps."""
    generator = torch.Generator().manual_seed(seed)
    length_B = torch.randint(0, times + 1, (rows,), generator=generator)
    length_B[:3] = torch.tensor([0, 1, times])
    time_T = torch.arange(times)
    real_BT = time_T < length_B[:, None]
    carry_BT = (torch.rand(rows, times, generator=generator) < carried) & real_BT
    discount_BT = torch.where(carry_BT, 1.0, 0.5 + 0.5 * torch.rand(rows, times, generator=generator))
    ends_BT = (time_T == length_B[:, None] - 1) & (torch.rand(rows, 1, generator=generator) < 0.5)
    discount_BT = discount_BT.masked_fill(ends_BT | ~real_BT, 0.0).double()
    reward_BT = torch.randn(rows, times, generator=generator).double().masked_fill(~real_BT, 1e9)
    value_BS = torch.randn(rows, times + 1, generator=generator).double()
    value_BS[torch.arange(times + 1) > length_B[:, None]] = float("nan")
    return Rows(reward_BT, discount_BT, (real_BT & ~carry_BT).float(), carry_BT, value_BS, length_B)


def walk(rows: Rows, b: int, t: int, n: int | None) -> tuple[float, float, int]:
    """R, G and the last index of a return from decision t, one step after the other."""
    reward, discount, decisions, length = 0.0, 1.0, 0, int(rows.length_B[b])
    while t < length:
        if rows.mask_BT[b, t] > 0:
            if decisions == n:
                break
            decisions += 1
        reward += discount * float(rows.reward_BT[b, t])
        discount *= float(rows.discount_BT[b, t])
        t += 1
    return reward, discount, t


def recursion(rows: Rows, b: int, trace: float) -> list[float]:
    """lambda-returns of a row from the end backwards, straight from the formula."""
    length = int(rows.length_B[b])
    following = carried = float(rows.value_BS[b, length])
    found = []
    for t in reversed(range(length)):
        reward, discount = float(rows.reward_BT[b, t]), float(rows.discount_BT[b, t])
        if rows.mask_BT[b, t] > 0:
            following = reward + discount * ((1 - trace) * carried + trace * following)
            carried = float(rows.value_BS[b, t])
        else:
            following, carried = reward + discount * following, reward + discount * carried
        found.append(following)
    return found[::-1]


def decisions(rows: Rows) -> list[tuple[int, int]]:
    return [(int(b), int(t)) for b, t in (rows.mask_BT > 0).nonzero()]


CASES = [random_rows(seed, carried) for seed, carried in ((0, 0.0), (1, 0.4), (2, 0.9))]


@pytest.mark.fault("the last n - 1 states of an episode never learned under n-step")
@pytest.mark.parametrize("rows", CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10, 11, 50, None])
def test_n_step_against_a_loop(rows: Rows, n: int | None) -> None:
    """Bug: a return that counts carried steps, reads padding, passes a truncation or skips the last n - 1 decisions.

    Padding holds rewards of 1e9, and observations behind a row's end NaN, so that a single look there shows.
    """
    affine = returns.n_step(*rows.fields, n)
    target_BT = affine.at(rows.value_BS)
    for b, t in decisions(rows):
        reward, discount, index = walk(rows, b, t, n)
        assert int(affine.index_BT[b, t]) == index <= int(rows.length_B[b])
        assert float(affine.reward_BT[b, t]) == pytest.approx(reward)
        assert float(affine.discount_BT[b, t]) == pytest.approx(discount)
        assert float(target_BT[b, t]) == pytest.approx(reward + discount * float(rows.value_BS[b, index]))
    assert ((affine.index_BT >= 0) & (affine.index_BT <= 11)).all() and affine.reward_BT.isfinite().all()


@pytest.mark.parametrize("rows", CASES)
@pytest.mark.parametrize("trace", [0.0, 0.3, 0.65, 1.0])
def test_lambda_against_the_recursion(rows: Rows, trace: float) -> None:
    """Bug: a trace that decays over carried steps, a value one step off, or a row's end that is not bootstrapped from."""
    found_BT = returns.lambda_target(*rows.fields[:2], rows.value_BS, *rows.fields[2:], trace)
    for b in range(len(rows.length_B)):
        expected = recursion(rows, b, trace)
        for t in range(int(rows.length_B[b])):
            if rows.mask_BT[b, t] > 0:
                assert float(found_BT[b, t]) == pytest.approx(expected[t])


@pytest.mark.parametrize("rows", CASES)
def test_reductions(rows: Rows) -> None:
    """Bug: two ways to the same target that differ, so that one of them is wrong.

    n = 1 and lambda = 0 are the one-step target of carried values; lambda = 1 and any n >= T are Monte-Carlo.
    """
    reward_BT, discount_BT, mask_BT, carry_BT = rows.fields
    decision_BT = mask_BT > 0
    carried_BS = returns.carried_value(rows.value_BS, reward_BT, discount_BT, carry_BT)
    one_BT = returns.one_step_target(reward_BT, discount_BT, carried_BS)[decision_BT]
    lambda_of = {
        trace: returns.lambda_target(reward_BT, discount_BT, rows.value_BS, mask_BT, carry_BT, trace)[decision_BT]
        for trace in (0.0, 1.0)
    }
    to_end_BT = returns.n_step(*rows.fields, None).at(rows.value_BS)[decision_BT]
    torch.testing.assert_close(returns.n_step(*rows.fields, 1).at(rows.value_BS)[decision_BT], one_BT)
    torch.testing.assert_close(lambda_of[0.0], one_BT)
    torch.testing.assert_close(lambda_of[1.0], to_end_BT)
    torch.testing.assert_close(returns.n_step(*rows.fields, 11).at(rows.value_BS)[decision_BT], to_end_BT)


def test_n_step_and_lambda_by_hand() -> None:
    """Bug: a return that is off by one in rewards, discounts or the value that closes it.

    Rewards 1 2 4 8, discounts 1/2, values 16 32 64 128 256. Two steps: 1 + 2/2 + 64/4 = 18; 2 + 4/2 + 128/4 = 36;
    4 + 8/2 + 256/4 = 72; and the last decision has one step left, 8 + 256/2 = 136.
    lambda = 1/2, backwards: G3 = 8 + 256/2 = 136; G2 = 4 + (128 + 136)/4 = 70; G1 = 2 + (64 + 70)/4 = 35.5;
    G0 = 1 + (32 + 35.5)/4 = 17.875.
    """
    reward_BT, discount_BT = torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.full((1, 4), 0.5)
    value_BS = torch.tensor([[16.0, 32.0, 64.0, 128.0, 256.0]])
    everywhere, nowhere = torch.ones(1, 4), torch.zeros(1, 4, dtype=torch.bool)
    two = returns.n_step(reward_BT, discount_BT, everywhere, nowhere, 2)
    assert two.index_BT.tolist() == [[2, 3, 4, 4]]
    assert two.reward_BT.tolist() == [[2.0, 4.0, 8.0, 8.0]] and two.discount_BT.tolist() == [[0.25, 0.25, 0.25, 0.5]]
    assert two.at(value_BS).tolist() == [[18.0, 36.0, 72.0, 136.0]]
    mixed = returns.lambda_target(reward_BT, discount_BT, value_BS, everywhere, nowhere, 0.5)
    assert mixed.tolist() == [[17.875, 35.5, 70.0, 136.0]]


def test_carried_steps_by_hand() -> None:
    """Bug: a partner's tokens that use up n, so that a dialogue's return is shorter than asked.

    Decisions at 0, 3 and 5, a partner at 1, 2 and 4 (discount 1) whose steps pay 1 each; decisions pay 10, discount 1/2.
    n = 1 from 0 ends at the decision 3: R = 10 + (1 + 1)/2 = 11, G = 1/2. n = 2 from 0 ends at 5:
    R = 11 + (10 + 1/2)/2 = 16.25, G = 1/4. n = 2 from 3: R = 10 + 1/2 + 10/2 = 15.5, G = 1/4, at the row's end, 6.
    """
    mask_BT = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0, 1.0]])
    carry_BT = mask_BT == 0
    reward_BT, discount_BT = torch.where(carry_BT, 1.0, 10.0), torch.where(carry_BT, 1.0, 0.5)
    one, two = (returns.n_step(reward_BT, discount_BT, mask_BT, carry_BT, n) for n in (1, 2))
    at = [0, 3, 5]
    assert one.index_BT[0, at].tolist() == [3, 5, 6] and two.index_BT[0, at].tolist() == [5, 6, 6]
    assert one.reward_BT[0, at].tolist() == [11.0, 10.5, 10.0] and one.discount_BT[0, at].tolist() == [0.5, 0.5, 0.5]
    assert two.reward_BT[0, at].tolist() == [16.25, 15.5, 10.0] and two.discount_BT[0, at].tolist() == [0.25, 0.25, 0.5]


@pytest.mark.fault("n-step returns running across a truncation")
def test_rows_end_stops_a_return() -> None:
    """Bug: an n-step return that runs into what lies behind a cut row (a fault of several public Rainbows).

    Row 0 is cut after two of four steps, row 1 ends there for good; gamma 1, rewards 1, value 7 at the end, n = 3.
    Row 0: 1 + 1 + 7 = 9 and 1 + 7 = 8. Row 1: 1 + 1 = 2 and 1. The last n - 1 = 2 decisions have targets: all of them.
    """
    mask_BT = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).repeat(2, 1)
    discount_BT = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    reward_BT = torch.tensor([[1.0, 1.0, 1e9, 1e9]]).repeat(2, 1)
    value_BS = torch.tensor([[0.0, 0.0, 7.0, 1e9, 1e9]]).repeat(2, 1)
    nowhere = torch.zeros(2, 4, dtype=torch.bool)
    for n in (3, None):
        target_BT = returns.n_step(reward_BT, discount_BT, mask_BT, nowhere, n).at(value_BS)
        assert target_BT[:, :2].tolist() == [[9.0, 8.0], [2.0, 1.0]]
    mixed_BT = returns.lambda_target(reward_BT, discount_BT, value_BS, mask_BT, nowhere, 1.0)
    assert mixed_BT[:, :2].tolist() == [[9.0, 8.0], [2.0, 1.0]]


def test_n_step_refuses_no_decision() -> None:
    """Bug: n = 0 taken for all or for one."""
    with pytest.raises(ValueError, match="at least one"):
        returns.n_step(*CASES[0].fields, 0)
    with pytest.raises(UserError, match=r"returns\.n "):
        rules.NStep(n=0)
    for trace in (-0.1, 1.1):
        with pytest.raises(UserError, match=r"returns\.trace"):
            rules.Lambda(trace=trace)


def test_classes_say_what_they_do() -> None:
    """Bug: a class whose `lookahead` or `affine` disagrees with its target: rows too short, or heads that learn another one."""
    rows = CASES[1]
    at = rows.mask_BT > 0
    for part, n in ((rules.OneStep(), 1), (rules.NStep(n=3), 3), (rules.MonteCarlo(), None)):
        expected = returns.n_step(*rows.fields, n).at(rows.value_BS)[at]
        assert part.lookahead == n and part.is_affine and part.bootstraps_inside == (n is not None)
        assert torch.equal(part.target(*rows.fields, rows.value_BS)[at], expected)
        assert torch.equal(part.affine(*rows.fields).at(rows.value_BS)[at], expected)
    mixed = rules.Lambda(trace=0.65)
    assert mixed.lookahead is None and not mixed.is_affine and mixed.bootstraps_inside
    first = mixed.target(*rows.fields, rows.value_BS)
    second = returns.lambda_target(*rows.fields[:2], rows.value_BS, *rows.fields[2:], 0.65)
    assert torch.equal(first[at], second[at])
    with pytest.raises(NotImplementedError, match="Lambda"):
        mixed.affine(*rows.fields)
