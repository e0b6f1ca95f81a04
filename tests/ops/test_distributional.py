"""Projection on atoms and regression of quantiles: by hand, against plain loops, and by what they are for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dqnlm.ops.distributional import project_categorical, quantile_huber
from dqnlm.ops.losses import huber


def random_distribution(*shape: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = spread * torch.randn(*shape, generator=generator).double()
    return z, torch.randn(*shape, generator=generator).double().softmax(-1)


def test_projection_by_hand() -> None:
    """Bug: neighbours exchanged, mass lost where a value lies on an atom, values outside thrown away.

    Atoms 0 1 2. The value 1/4 of mass .4 gives 3/4 of it to 0 and 1/4 to 1: .3 and .1. The value 1 of mass .2 stays.
    -5 of mass .1 goes to 0, and 9 of mass .3 to 2. Sum: 0: .4, 1: .3, 2: .3.
    """
    z_BTM, p_BTM = torch.tensor([[[0.25, 1.0, -5.0, 9.0]]]), torch.tensor([[[0.4, 0.2, 0.1, 0.3]]])
    found = project_categorical(z_BTM, p_BTM, torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(found, torch.tensor([[[0.4, 0.3, 0.3]]]))


@pytest.mark.parametrize(("low", "high", "atoms"), [(-1.0, 1.0, 51), (0.0, 1.0, 7), (-0.1, 0.3, 2), (-10.0, 10.0, 51)])
def test_projection_is_exact_at_atoms(low: float, high: float, atoms: int) -> None:
    """Bug: rounding in (z - low) / step that moves an atom's mass to its neighbour, or past the last atom, in float32."""
    support_K = torch.linspace(low, high, atoms)
    p_BTK = torch.rand(2, 3, atoms, generator=torch.Generator().manual_seed(1)).softmax(-1)
    assert torch.equal(project_categorical(support_K.expand(2, 3, atoms), p_BTK, support_K), p_BTK)


def test_projection_against_a_loop() -> None:
    """Bug: atoms mixed over rows or times, or mass added once where two values fall on one atom.

    Oracle: atom k gets p max(0, 1 - |clamp(z) - s_k| / step) of each value (Bellemare et al. 2017, equation 7).
    """
    support_K = torch.linspace(-1, 1, 5).double()
    z_BTM, p_BTM = random_distribution(3, 4, 9)
    expected = torch.zeros(3, 4, 5).double()
    for b in range(3):
        for t in range(4):
            for k in range(5):
                for z, p in zip(z_BTM[b, t].tolist(), p_BTM[b, t].tolist(), strict=True):
                    expected[b, t, k] += p * max(0.0, 1 - abs(min(max(z, -1.0), 1.0) - float(support_K[k])) / 0.5)
    torch.testing.assert_close(project_categorical(z_BTM, p_BTM, support_K), expected)


def test_projection_keeps_mass_and_mean() -> None:
    """Bug: a projection that shrinks or biases returns, which value iteration then multiplies.

    Mass is kept always; the mean where all values lie inside the support, evenly spaced or not.
    """
    for support_K in (torch.linspace(-1, 1, 6).double(), torch.tensor([-1.0, -0.9, 0.2, 1.0]).double()):
        z_BTM, p_BTM = random_distribution(3, 4, 9, spread=2.0)
        torch.testing.assert_close(project_categorical(z_BTM, p_BTM, support_K).sum(-1), p_BTM.sum(-1))
        inside_BTM = z_BTM.tanh()
        mean_BT = (project_categorical(inside_BTM, p_BTM, support_K) * support_K).sum(-1)
        torch.testing.assert_close(mean_BT, (inside_BTM * p_BTM).sum(-1))


def test_projection_of_one_atom_and_its_refusal() -> None:
    """Bug: a scalar target (one value, mass 1) that needs a case of its own; a support that has no neighbours."""
    one = torch.ones(1, 1, 1)
    assert project_categorical(0.5 * one, one, torch.tensor([0.0, 2.0])).tolist() == [[[0.75, 0.25]]]
    with pytest.raises(ValueError, match="two atoms"):
        project_categorical(one, one, torch.tensor([0.0]))


def test_quantile_huber_by_hand() -> None:
    """Bug: prediction and target exchanged in the sign, a mean where a sum is meant, kappa undivided.

    One prediction 0 at tau = 1/4, targets 3 and -1 of probability 1/4 and 3/4. kappa = 0: 1/4 * 1/4 * 3 + 3/4 * 3/4 * 1
    = 3/16 + 9/16 = 3/4. kappa = 2: L(3)/2 = 3 - 1 = 2, L(1)/2 = 1/4, so 1/4 * 1/4 * 2 + 3/4 * 3/4 / 4 = 17/64.
    Two predictions: the loss of both is their sum, here 2 * 3/4.
    """
    target, p = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.25, 0.75]])
    quarter = torch.tensor([0.25])
    assert quantile_huber(torch.zeros(1, 1), quarter, target, p, 0.0).tolist() == [0.75]
    assert quantile_huber(torch.zeros(1, 1), quarter, target, p, 2.0).tolist() == [17 / 64]
    assert quantile_huber(torch.zeros(1, 2), quarter.expand(2), target, p, 0.0).tolist() == [1.5]


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("own_levels", [False, True])
def test_quantile_huber_against_a_loop(kappa: float, own_levels: bool) -> None:
    """Bug: axes of predictions and targets mixed, or the levels of one row used for another."""
    target, p = random_distribution(2, 3, 5)
    generator = torch.Generator().manual_seed(4)
    prediction = torch.randn(2, 3, 4, generator=generator).double()
    tau = torch.rand((2, 3, 4) if own_levels else (4,), generator=generator).double()
    levels = tau.expand(2, 3, 4)
    expected = torch.zeros(2, 3).double()
    for b in range(2):
        for t in range(3):
            for n in range(4):
                for m in range(5):
                    u = float(target[b, t, m] - prediction[b, t, n])
                    size = abs(u)
                    if kappa > 0:
                        size = (u * u / 2 if abs(u) <= kappa else kappa * (abs(u) - kappa / 2)) / kappa
                    side = abs(float(levels[b, t, n]) - (1.0 if u < 0 else 0.0))
                    expected[b, t] += side * size * float(p[b, t, m])
    torch.testing.assert_close(quantile_huber(prediction, tau, target, p, kappa), expected)


def test_quantile_huber_reduces_to_known_losses() -> None:
    """Bug: a jump between kappa = 0 and small kappa; a middle quantile that is not half the Huber loss of the project."""
    target, p = random_distribution(6, 1)
    prediction = torch.linspace(-3, 3, 6).double()[:, None]
    half = torch.tensor([0.5]).double()
    middle = quantile_huber(prediction, half, target, p, 1.0)
    torch.testing.assert_close(middle, 0.5 * huber(prediction, target)[:, 0])
    small, plain = (quantile_huber(prediction, half, target, p, kappa) for kappa in (1e-9, 0.0))
    torch.testing.assert_close(small, plain)


def test_quantile_regression_finds_the_quantiles() -> None:
    """Bug: levels upside down: the prediction for tau = .9 must lie above that for .1.

    Values 1..8 in shuffled order with mass 1/8: the least v with F(v) >= tau is ceil(8 tau): 1, 4, 8 for .1, .45, .9.
    The loss over a grid of predictions is least there.
    """
    target, p = torch.tensor([[3.0, 1.0, 8.0, 5.0, 2.0, 7.0, 4.0, 6.0]]), torch.full((1, 8), 1 / 8)
    grid = torch.linspace(0, 9, 91)[:, None]
    for tau in (0.1, 0.45, 0.9):
        loss = quantile_huber(grid, torch.tensor([tau]), target.expand(91, 8), p.expand(91, 8), 0.0)
        assert grid[loss.argmin()].item() == pytest.approx(math.ceil(8 * tau), abs=0.01)
