"""What raw numbers mean: Q in return units, and losses whose minimum is the mean return."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.heads.normalised import Normalised
from dqnlm.heads.scalar import Scalar
from dqnlm.types import Bounds
from tests.helpers.learners import BOUNDS, HEADS

A = 5
WIDE = Bounds(-3.0, 5.0)


def scalar(loss: Any, bounds: Bounds = WIDE, match: bool = False) -> Scalar:
    return Scalar(bounds, match, loss=loss, initial_return=None)


def normalised(high: float = 2.0, value_weight: float = 1.0) -> Normalised:
    return Normalised(Bounds(0.0, high), False, value_weight=value_weight)


def random_raw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, A, 1, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gradient_taken(head: Head, raw_BTAN: Tensor, action_BT: Tensor, target_BT: Tensor) -> Tensor:
    [gradient] = torch.autograd.grad(head.loss_taken(raw_BTAN, action_BT, target_BT).sum(), raw_BTAN)
    return gradient.squeeze(-1)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_minimiser_is_the_mean_return(loss: str) -> None:
    """Guards a logistic loss that finds a median, a mode, or the mean of something scaled otherwise.

    Targets -3, 0 and 5 (the bounds among them) with mean 2/3: the slope there is 0, and of opposite signs around it.
    """
    head, target_BT = scalar(loss), torch.tensor([[-3.0, 0.0, 5.0]])
    mean = 2 / 3
    raw = mean if loss == "squared" else math.log((mean + 3) / (5 - mean))  # logit of (mean - low) / (high - low)

    def slope(at: float) -> float:
        raw_BTAN = torch.full((1, 3, A, 1), at, requires_grad=True)
        return float(gradient_taken(head, raw_BTAN, torch.zeros(1, 3, dtype=torch.int64), target_BT).sum())

    assert float(head.value(torch.full((1, A, 1), raw))[0, 0]) == pytest.approx(mean)
    assert slope(raw) == pytest.approx(0, abs=1e-6)
    assert slope(raw - 0.1) < -1e-2 and slope(raw + 0.1) > 1e-2


def test_bounds_are_in_return_units() -> None:
    """Guards logits shown as Q: raw 0 is the middle of -3 and 5, very large and small ones the bounds."""
    raw_XAN = torch.tensor([0.0, 50.0, -50.0])[:, None]
    assert scalar("logistic").value(raw_XAN).tolist() == [1.0, 5.0, -3.0]
    assert scalar("squared").value(raw_XAN).tolist() == [0.0, 50.0, -50.0]


def test_targets_outside_are_clamped_and_counted() -> None:
    """Guards a soft label outside [0, 1], whose loss has no minimum, and a count that misses it or counts rounding."""
    head = scalar("logistic")
    target_BT = torch.tensor([[-4.0, -3.0, 0.0, 5.00001, 7.0]])
    assert head.clamped(target_BT).tolist() == [[1.0, 0.0, 0.0, 0.0, 1.0]]
    action_BT = torch.zeros(1, 5, dtype=torch.int64)
    inside = head.loss_taken(random_raw(1, 5), action_BT, target_BT.clamp(-3, 5))
    torch.testing.assert_close(head.loss_taken(random_raw(1, 5), action_BT, target_BT), inside)
    assert scalar("squared").clamped(target_BT).sum() == 0  # nothing is clamped there


@pytest.mark.parametrize("name", sorted(HEADS))
def test_loss_of_all_is_the_sum_of_the_losses_of_each(name: str) -> None:
    """Guards a mean over actions instead of a sum, which would make the learning rate depend on the vocabulary."""
    head, raw_BTAN = HEADS[name](), random_raw(2, 3)
    target_BTA = 2 * torch.rand(2, 3, A, generator=torch.Generator().manual_seed(1))
    each = [head.loss_taken(raw_BTAN, torch.full((2, 3), a), target_BTA[..., a]) for a in range(A)]
    torch.testing.assert_close(head.loss_all(raw_BTAN, target_BTA), torch.stack(each).sum(0))


@pytest.mark.parametrize("name", ["squared", "huber", "logistic"])
def test_loss_taken_reads_only_the_action_taken(name: str) -> None:
    """Guards a loss that also moves, or looks at, the other actions."""
    raw_BTAN, action_BT = random_raw(2, 3), torch.tensor([[0, 1, 2], [3, 4, 0]])
    gradient_BTA = gradient_taken(HEADS[name](), raw_BTAN, action_BT, torch.full((2, 3), 1.5))
    taken_BTA = torch.nn.functional.one_hot(action_BT, A).bool()
    assert (gradient_BTA[~taken_BTA] == 0).all() and (gradient_BTA[taken_BTA] != 0).all()


def test_normalised_values_sum_to_one_and_the_future() -> None:
    """Guards a value stream outside its bounds or different for the actions: sum_a Q = 1 + A v, 0 <= v <= high - 1."""
    raw_XAN = 3 * random_raw(50).detach()
    q_XA = normalised(high=2.0).value(raw_XAN)
    assert float(q_XA.min()) >= 0 and float(q_XA.max()) <= 2
    v_X = (q_XA.sum(-1) - 1) / A
    assert float(v_X.min()) >= 0 and float(v_X.max()) <= 1
    torch.testing.assert_close(q_XA - v_X[:, None], raw_XAN.squeeze(-1).softmax(-1))
    shifted_X = (normalised(high=2.0).value(raw_XAN + 1.0).sum(-1) - 1) / A
    assert (shifted_X > v_X).all()  # the level of the outputs is the value stream


def test_normalised_at_gamma_0_is_the_bandit_likelihood() -> None:
    """Guards a loss that learns something else where nothing follows. With the return's bounds 0 and 1 there is no v:
    a reward r of the action taken has the probability p_a^r (1 - p_a)^(1 - r)."""
    raw_BTAN = random_raw(3, 4)
    action_BT = torch.randint(A, (3, 4), generator=torch.Generator().manual_seed(1))
    reward_BT = torch.randint(2, (3, 4), generator=torch.Generator().manual_seed(2)).float()
    found = gradient_taken(normalised(high=1.0), raw_BTAN, action_BT, reward_BT)
    p_BT = raw_BTAN.squeeze(-1).softmax(-1).gather(-1, action_BT[..., None]).squeeze(-1)
    likelihood_BT = torch.where(reward_BT == 1, p_BT, 1 - p_BT)
    [expected] = torch.autograd.grad(-likelihood_BT.log().sum(), raw_BTAN)
    torch.testing.assert_close(found, expected.squeeze(-1))
    assert (found.abs().amax(-1) > 1e-3).all()


def test_normalised_separates_probabilities_and_value() -> None:
    """Guards each stream fitting the other's error: the probabilities move only differences between outputs, the value
    stream only their mean."""
    raw_BTAN, action_BT = random_raw(3, 4), torch.zeros(3, 4, dtype=torch.int64)
    target_BT = torch.full((3, 4), 1.3)
    without = gradient_taken(normalised(value_weight=0.0), raw_BTAN, action_BT, target_BT)
    with_value = gradient_taken(normalised(value_weight=2.0), raw_BTAN, action_BT, target_BT)
    torch.testing.assert_close(without.sum(-1), torch.zeros(3, 4), atol=1e-6, rtol=0)
    assert without.abs().max() > 0.01
    value = with_value - without
    torch.testing.assert_close(value, value[..., :1].expand_as(value), atol=1e-6, rtol=1e-4)
    assert value.abs().min() > 1e-4
    once = gradient_taken(normalised(value_weight=1.0), raw_BTAN, action_BT, target_BT)
    torch.testing.assert_close(value, 2 * (once - without), atol=1e-6, rtol=1e-4)


def test_normalised_is_at_rest_at_the_truth() -> None:
    """Guards a biased split of the target: r is 1 in 3 of 10 cases, the future is worth 0.4; then p_a = 0.3 and v = 0.4
    have no gradient, and other values have."""
    head = normalised(high=2.0)

    def slopes(p: float, v: float) -> Tensor:
        # The head adds its own bias to the mean of the outputs; find the mean that gives v by bisection.
        low, high = -20.0, 20.0
        other = math.log((1 - p) / (A - 1))
        shape_A = torch.tensor([math.log(p)] + [other] * (A - 1))
        for _ in range(60):
            middle = (low + high) / 2
            raw_AN = (shape_A - shape_A.mean() + middle)[:, None]
            found = float(head.value(raw_AN)[0]) - p
            low, high = (middle, high) if found < v else (low, middle)
        raw_BTAN = raw_AN.expand(1, 10, A, 1).clone().requires_grad_()
        target_BT = torch.tensor([[1.4] * 3 + [0.4] * 7])
        return gradient_taken(head, raw_BTAN, torch.zeros(1, 10, dtype=torch.int64), target_BT).sum((0, 1))

    torch.testing.assert_close(slopes(0.3, 0.4), torch.zeros(A), atol=1e-4, rtol=0)
    assert slopes(0.2, 0.4).abs().max() > 0.1 and slopes(0.3, 0.6).abs().max() > 0.05


@pytest.mark.parametrize("size", [20.0, 200.0])
def test_normalised_stays_finite_when_certain(size: float) -> None:
    """Guards log 0 where a probability rounds to 1 or 0: the loss of a certain wrong guess must not become infinite."""
    raw_BTAN = torch.zeros(1, 2, A, 1)
    raw_BTAN[:, :, 0] = size
    raw_BTAN.requires_grad_()
    for action in (0, 1):
        for target in (0.0, 1.0):
            action_BT, target_BT = torch.full((1, 2), action), torch.full((1, 2), target)
            loss = normalised(1.0).loss_taken(raw_BTAN, action_BT, target_BT)
            assert loss.isfinite().all()
            assert gradient_taken(normalised(1.0), raw_BTAN, action_BT, target_BT).isfinite().all()


def test_probability_only_where_q_is_one() -> None:
    """Guards sampling from Q where Q is no probability of being the rewarded action."""
    raw_XAN = random_raw(4)
    match = scalar("logistic", Bounds(0, 1), match=True)
    log_XA = match.log_probability(raw_XAN)
    assert match.is_probability and log_XA is not None
    torch.testing.assert_close(log_XA.exp(), match.value(raw_XAN))
    assert scalar("logistic", Bounds(0, 1)).log_probability(raw_XAN) is None
    assert scalar("squared", Bounds(0, 1), match=True).log_probability(raw_XAN) is None
    of_normalised = normalised().log_probability(raw_XAN)
    torch.testing.assert_close(of_normalised.exp().sum(-1), torch.ones(4))


def test_bounds_travel_with_the_weights() -> None:
    """Guards a loaded policy whose Q is in other units."""
    state = scalar("logistic").state_dict()
    assert (float(state["low"]), float(state["high"])) == WIDE
    assert float(HEADS["logistic"]().low) == BOUNDS.low


def test_infinite_bounds_are_refused() -> None:
    """Guards NaN in the first update: inf * sigmoid, or a label of inf / inf."""
    endless = Bounds(0.0, math.inf)
    with pytest.raises(UserError, match=r"head\.loss=logistic needs finite bounds"):
        scalar("logistic", endless)
    with pytest.raises(UserError, match=r"head=normalised needs a finite bound"):
        normalised(math.inf)
    assert scalar("huber", endless).value(torch.zeros(A, 1)).isfinite().all()


def test_initial_return_is_where_q_starts() -> None:
    """Guards head.initial_return: raw numbers of 0 must mean that return, for each loss, and the gradient must not change."""
    raw = torch.zeros(2, 3, 4, 1)
    for loss in ("squared", "huber", "logistic"):
        head = Scalar(Bounds(0.0, 2.0), False, loss=loss, initial_return=0.25)
        torch.testing.assert_close(head.value(raw), torch.full((2, 3, 4), 0.25))
        leaf = raw.clone().requires_grad_()
        at_rest = head.loss_taken(leaf, torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), 0.25)).sum()
        at_rest = at_rest + head.loss_all(leaf, torch.full((2, 3, 4), 0.25)).sum()
        [slope] = torch.autograd.grad(at_rest, leaf)
        assert float(slope.abs().max()) < 1e-6, "the losses read the same Q"
    with pytest.raises(UserError, match="initial_return"):
        Scalar(Bounds(0.0, 2.0), False, loss="logistic", initial_return=2.0)
