"""Distributions of returns: their mean is Q, their loss is least at the target's distribution, and descent finds it."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable

import pytest
import torch
import yaml
from torch import Tensor, nn

from dqnlm.config.moved import renewed_config
from dqnlm.errors import UserError
from dqnlm.heads.categorical import Categorical
from dqnlm.heads.distributional import DistributionalHead
from dqnlm.heads.implicit_quantile import AtLevels, ImplicitQuantile
from dqnlm.heads.quantile import Quantile
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear
from dqnlm.networks.recurrent import GRU
from dqnlm.types import Bounds
from tests.helpers.networks import close, linear, tokens
from tests.helpers.paths import CONFIGS

A, N = 4, 3
BOUNDS = Bounds(0.0, 2.0)
ENDLESS = Bounds(-math.inf, math.inf)


def categorical(low: float | None = None, high: float | None = None, atoms: int = N, eta: float | None = None) -> Categorical:
    return Categorical(BOUNDS, low=low, high=high, num_atoms=atoms, temperature=eta)


def quantile(number: int = N, kappa: float = 1.0) -> Quantile:
    return Quantile(ENDLESS, num_quantiles=number, kappa=kappa)


def implicit(number: int = N, kappa: float = 1.0) -> ImplicitQuantile:
    return ImplicitQuantile(ENDLESS, num_quantiles=number, embedding=8, kappa=kappa)


HEADS: dict[str, Callable[[], DistributionalHead]] = {
    "categorical": categorical,
    "quantile": quantile,
    "implicit_quantile": implicit,
}
every_head = pytest.mark.parametrize("name", HEADS)


def random_raw(head: DistributionalHead, *shape: int) -> Tensor:
    """raw_XAN; for sampled levels, the second half lies in [0, 1)."""
    generator = torch.Generator().manual_seed(0)
    raw_XAN = torch.randn(*shape, A, head.num_parameters, generator=generator)
    if isinstance(head, ImplicitQuantile):
        raw_XAN[..., head.num_quantiles :] = torch.rand(*shape, 1, head.num_quantiles, generator=generator)
    return raw_XAN.requires_grad_()


def descend(raw_BTAN: Tensor, loss: Callable[[], Tensor], steps: int = 800, lr: float = 0.05) -> list[float]:
    """Minimises `loss` over `raw_BTAN`, the rate falling to 0; returns the losses on the way."""
    optimizer = torch.optim.Adam([raw_BTAN], lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(found.detach()))
    return losses


# All heads


def test_means_by_hand() -> None:
    """Bug: a mean over the wrong numbers, such as levels taken for quantiles, or probabilities without the support.

    Atoms 0 1 2 with probabilities .2 .3 .5: .3 + 1 = 1.3. Quantiles 1 2 6: 9 / 3 = 3, whatever their levels.
    """
    assert float(categorical().value(torch.tensor([0.2, 0.3, 0.5]).log())) == pytest.approx(1.3)
    assert float(quantile().value(torch.tensor([1.0, 2.0, 6.0]))) == pytest.approx(3.0)
    assert float(implicit().value(torch.tensor([1.0, 2.0, 6.0, 0.1, 0.5, 0.9]))) == pytest.approx(3.0)


def test_soft_values_by_hand() -> None:
    """Bug: a temperature that divides where it should multiply, or a log left out. Atoms 0 1 2 with probabilities .2 .3 .5:

    eta 1/2: log(.2 + .3 e^2 + .5 e^4) / 2 = 1.69584. eta 1000: the mean and half the variance over eta, 1.3 + .61 / 2000. eta
    1/1000: the greatest atom plus eta log of its probability, 2 - .000693, and 0 where that probability is none.
    """
    raw_N = torch.tensor([0.2, 0.3, 0.5]).log()
    for eta, expected in ((0.5, 1.69584), (1000.0, 1.300305), (1e-3, 2 - 6.93e-4)):
        assert float(categorical(eta=eta).value(raw_N)) == pytest.approx(expected, abs=2e-4)
    assert float(categorical(eta=1e-3).value(torch.tensor([0.0, -math.inf, -math.inf]))) == 0.0
    assert categorical(eta=0.5).value(torch.randn(2, 5, A, N)).shape == (2, 5, A)
    assert categorical(eta=0.5).value(raw_N.bfloat16()).dtype == torch.float32


def test_the_soft_value_of_a_divided_return_is_off_by_the_distance_of_atoms() -> None:
    """Bug: a documented bias that is not the head's. A return halfway between atoms d apart is half of each: its soft value is
    eta log cosh(d / (2 eta)) too high, about d^2 / (8 eta); here d = 1 and eta = 2, which is 0.0619 of 0.0625."""
    head, raw = categorical(eta=2.0), torch.zeros(1, 1, A, N, requires_grad=True)
    descend(raw, lambda: head.loss_taken(raw, torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1), 1.5)).sum(), 600, 0.2)
    assert float(head.value(raw.detach())[0, 0, 0]) - 1.5 == pytest.approx(2 * math.log(math.cosh(0.25)), abs=2e-3)


def test_the_temperature_does_not_reach_the_loss() -> None:
    """Bug: a distribution that is learned otherwise because Q is read otherwise."""
    raw_BTAN, action_BT = random_raw(categorical(), 2, 3), torch.zeros(2, 3, dtype=torch.int64)
    losses = [head.loss_taken(raw_BTAN, action_BT, torch.ones(2, 3)) for head in (categorical(), categorical(eta=0.1))]
    assert losses[0].equal(losses[1])


@pytest.mark.parametrize("eta", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_cannot_be(eta: float) -> None:
    """Bug: Q that is infinite or not a number."""
    with pytest.raises(UserError, match=r"head\.temperature is .*; it must be above 0 and finite"):
        categorical(eta=eta)


def test_a_head_of_an_earlier_run_has_no_temperature() -> None:
    """Bug: a run saved before the setting that can no longer be read, or that acts by another Q."""
    old = {"head": {"_target_": "dqnlm.heads.categorical.Categorical", "low": None, "high": None, "num_atoms": 3}}
    assert renewed_config(old)["head"] == old["head"] | {"temperature": None}


@every_head
def test_value_is_the_mean_of_the_atoms(name: str) -> None:
    """Bug: what is bootstrapped from is another distribution than what Q is the mean of; probabilities that miss mass."""
    head = HEADS[name]()
    raw_BTAN = random_raw(head, 2, 5)
    q_BTA = head.value(raw_BTAN)
    assert q_BTA.shape == (2, 5, A)
    for action in range(A):
        z_BTM, p_BTM = head.atoms(raw_BTAN[:, :, action])
        assert z_BTM.shape == p_BTM.shape == (2, 5, N)
        torch.testing.assert_close(p_BTM.sum(-1), torch.ones(2, 5))
        torch.testing.assert_close((z_BTM * p_BTM).sum(-1), q_BTA[:, :, action])


@every_head
def test_loss_reads_and_moves_only_the_action_taken(name: str) -> None:
    """Bug: a gather along the wrong axis, or a gradient into the levels, which are given and not learned."""
    head = HEADS[name]()
    raw_BTAN, action_BT = random_raw(head, 2, 3), torch.tensor([[0, 1, 2], [3, 1, 0]])
    loss_BT = head.loss_taken(raw_BTAN, action_BT, torch.full((2, 3), 1.5))
    assert loss_BT.shape == (2, 3)
    [gradient_BTAN] = torch.autograd.grad(loss_BT.sum(), raw_BTAN)
    taken_BTA = nn.functional.one_hot(action_BT, A).bool()
    assert (gradient_BTAN[~taken_BTA] == 0).all()
    assert (gradient_BTAN[taken_BTA][:, :N] != 0).all()
    assert (gradient_BTAN[taken_BTA][:, N:] == 0).all()


@every_head
def test_a_number_is_a_distribution_of_one_atom(name: str) -> None:
    """Bug: a scalar target treated otherwise than the distribution it is; four atoms at one place are that place."""
    head = HEADS[name]()
    raw_BTAN, action_BT = random_raw(head, 2, 3), torch.zeros(2, 3, dtype=torch.int64)
    target_BT = torch.tensor([[0.3, 1.0, 1.9], [0.0, 2.0, 0.5]])
    p_BTM = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(2, 3, 4)
    expected = head.loss_atoms(raw_BTAN, action_BT, target_BT[..., None].expand(2, 3, 4), p_BTM)
    torch.testing.assert_close(head.loss_taken(raw_BTAN, action_BT, target_BT), expected)


@every_head
def test_half_precision_is_widened(name: str) -> None:
    """Bug: means and losses in bfloat16, whose steps near 1 are 1/128."""
    head = HEADS[name]()
    raw_BTAN = random_raw(head, 2, 3).detach().bfloat16()
    assert head.value(raw_BTAN).dtype == torch.float32
    loss_BT = head.loss_taken(raw_BTAN, torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3))
    assert loss_BT.dtype == torch.float32 and loss_BT.isfinite().all()


@every_head
def test_projection_has_the_numbers_that_the_head_reads(name: str) -> None:
    """Bug: a projection of one number an action under a head that reads many; no other loss than that of the taken one."""
    head = HEADS[name]()
    raw_BTAN = head.project(linear, 6, A)(torch.randn(2, 5, 6))
    assert raw_BTAN.shape == (2, 5, A, head.num_parameters)
    assert head.value(raw_BTAN).shape == (2, 5, A)
    with pytest.raises(NotImplementedError):
        head.loss_all(raw_BTAN, torch.zeros(2, 5, A))


# Categorical


def test_categorical_loss_by_hand() -> None:
    """Bug: a loss against unprojected returns, or the divergence the wrong way round.

    Atoms 0 1 2, predicted .2 .3 .5. The target 1/2 is half on 0, half on 1: loss -(log .2 + log .3) / 2. The target
    3/2 with probability .4, and 7, moved to 2, with .6: .2 on 1 and .8 on 2.
    """
    raw_BTAN, action_BT = torch.tensor([0.2, 0.3, 0.5]).log().view(1, 1, 1, 3), torch.zeros(1, 1, dtype=torch.int64)
    found = categorical().loss_taken(raw_BTAN, action_BT, torch.tensor([[0.5]]))
    assert float(found) == pytest.approx(-0.5 * (math.log(0.2) + math.log(0.3)))
    z_BTM, p_BTM = torch.tensor([[[1.5, 7.0]]]), torch.tensor([[[0.4, 0.6]]])
    found = categorical().loss_atoms(raw_BTAN, action_BT, z_BTM, p_BTM)
    assert float(found) == pytest.approx(-(0.2 * math.log(0.3) + 0.8 * math.log(0.5)))


def test_categorical_is_at_rest_at_the_target() -> None:
    """Bug: a loss whose minimum is elsewhere. Predicting the target itself has no slope, and costs its entropy; every
    other prediction costs more."""
    head = categorical(atoms=11)
    raw_BTAN, action_BT = random_raw(head, 3, 4), torch.full((3, 4), 2)
    z_BTM, p_BTM = head.atoms(raw_BTAN[:, :, 2].detach())
    loss_BT = head.loss_atoms(raw_BTAN, action_BT, z_BTM, p_BTM)
    [gradient_BTAN] = torch.autograd.grad(loss_BT.sum(), raw_BTAN)
    torch.testing.assert_close(gradient_BTAN, torch.zeros_like(gradient_BTAN), atol=1e-6, rtol=0)
    torch.testing.assert_close(loss_BT, -(p_BTM * p_BTM.log()).sum(-1))
    other_BT = head.loss_atoms(raw_BTAN.flip(-1), action_BT, z_BTM, p_BTM)
    assert (other_BT > loss_BT + 1e-3).all()


def test_categorical_learns_the_mean() -> None:
    """Bug: a loss that falls while Q goes somewhere else.

    Returns 0.1 with probability 3/4 and 1.7 with 1/4, neither on an atom: the mean is .075 + .425 = 0.5.
    """
    head = categorical(atoms=11)
    raw_BTAN = torch.zeros(1, 1, A, 11, requires_grad=True)
    z_BTM, p_BTM = torch.tensor([[[0.1, 1.7]]]), torch.tensor([[[0.75, 0.25]]])
    action_BT = torch.ones(1, 1, dtype=torch.int64)
    losses = descend(raw_BTAN, lambda: head.loss_atoms(raw_BTAN, action_BT, z_BTM, p_BTM).sum(), 400, 0.1)
    assert losses[-1] < losses[100] < losses[0] == pytest.approx(math.log(11))
    assert head.value(raw_BTAN.detach())[0, 0].tolist() == pytest.approx([1.0, 0.5, 1.0, 1.0], abs=0.01)


def test_categorical_starts_near_uniform() -> None:
    """Bug: first weights that are certain of something: all atoms must be near 1/K, and Q near the middle."""
    torch.manual_seed(0)
    head = categorical(atoms=51)
    raw_XAN = head.project(linear, 32, A)(torch.randn(100, 32)).detach()
    _, p_XAM = head.atoms(raw_XAN)
    assert float(p_XAM.min()) > 0.5 / 51 and float(p_XAM.max()) < 2 / 51
    assert float((head.value(raw_XAN) - 1.0).abs().max()) < 0.1


def test_categorical_support_and_its_refusals() -> None:
    """Bug: keys that nothing reads, NaN atoms from infinite bounds, targets outside that are not counted."""
    assert categorical(low=-1.0, atoms=4).support_K.tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert categorical().clamped(torch.tensor([-0.1, 0.0, 2.0, 2.1])).tolist() == [1.0, 0.0, 0.0, 1.0]
    narrow = categorical(low=0.5, high=1.0)
    assert narrow.clamped(torch.tensor([0.4, 0.7, 1.1])).tolist() == [1.0, 0.0, 1.0]
    half_open = Bounds(0.0, math.inf)
    assert Categorical(half_open, low=None, high=4.0, num_atoms=3, temperature=None).support_K.tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(UserError, match=r"head\.high is inf.*head\.high"):
        Categorical(half_open, low=None, high=None, num_atoms=3, temperature=None)
    with pytest.raises(UserError, match=r"head\.low is 3\.0 and head\.high 2\.0"):
        categorical(low=3.0)
    with pytest.raises(UserError, match=r"head\.num_atoms is 1"):
        categorical(atoms=1)


def test_categorical_support_travels_with_the_weights() -> None:
    """Bug: a policy loaded without its environment, from the saved bounds, whose atoms lie elsewhere."""
    state = categorical(low=-1.0, high=3.0).state_dict()
    assert set(state) == {"low", "high"}
    saved = Bounds(float(state["low"]), float(state["high"]))
    loaded = Categorical(saved, low=None, high=None, num_atoms=N, temperature=None)
    assert torch.equal(loaded.support_K, categorical(low=-1.0, high=3.0).support_K)


# Quantiles


def test_quantile_loss_by_hand() -> None:
    """Bug: levels other than the midpoints, or given to the wrong quantiles.

    Quantiles 0 and 1 stand for levels 1/4 and 3/4, the target is 3 and kappa 0: 1/4 * 3 + 3/4 * 2 = 9/4. For the target
    -1: 3/4 * 1 + 1/4 * 2 = 5/4.
    """
    raw_BTAN = torch.tensor([0.0, 1.0]).expand(1, 2, 1, 2)
    action_BT = torch.zeros(1, 2, dtype=torch.int64)
    assert quantile(2, 0.0).loss_taken(raw_BTAN, action_BT, torch.tensor([[3.0, -1.0]])).tolist() == [[2.25, 1.25]]
    levels = torch.tensor([0.0, 1.0, 0.25, 0.75]).expand(1, 2, 1, 4)
    assert implicit(2, 0.0).loss_taken(levels, action_BT, torch.tensor([[3.0, -1.0]])).tolist() == [[2.25, 1.25]]


def exponential(atoms: int) -> tuple[Tensor, Tensor]:
    """Values of an exponential distribution with mean 1, each of the same probability: z = -log(1 - level)."""
    level_M = (torch.arange(atoms) + 0.5) / atoms
    return -(1 - level_M).log().view(1, 1, -1), torch.full((1, 1, atoms), 1 / atoms)


@pytest.mark.parametrize("kappa", [0.0, 0.01])
def test_descent_finds_the_quantiles(kappa: float) -> None:
    """Bug: levels mirrored (for 1 - tau), or a loss that finds expectiles. Of the exponential distribution the quantile at
    level tau is -log(1 - tau): 0.105, 0.357, 0.693, 1.204, 2.303 at 0.1, 0.3, 0.5, 0.7, 0.9."""
    head, raw_BTAN = quantile(5, kappa), torch.zeros(1, 1, A, 5, requires_grad=True)
    z_BTM, p_BTM = exponential(500)
    action_BT = torch.full((1, 1), 3)
    losses = descend(raw_BTAN, lambda: head.loss_atoms(raw_BTAN, action_BT, z_BTM, p_BTM).sum())
    assert losses[-1] < losses[0]
    expected = [-math.log(1 - tau) for tau in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert raw_BTAN.detach()[0, 0, 3].tolist() == pytest.approx(expected, abs=0.03)
    assert raw_BTAN.detach()[0, 0, :3].abs().max() == 0


def test_quantiles_are_at_rest_at_their_own_distribution() -> None:
    """Bug: a target network's own distribution that pulls the online network away from it.

    The slope at quantile i of the loss against the same N quantiles, kappa 0, is the share of atoms below less the level:
    i / N below and the atom itself undecided, level (i + 1/2) / N; so at most half an atom, 1 / (2N). Targets 1/2 higher, which
    is 7/4 of the distance between atoms, have two fewer below: slope -3 / (2N), where there are two.
    """
    head = quantile(8, 0.0)
    raw_BTAN = torch.linspace(-1, 1, 8).expand(1, 1, A, 8).clone().requires_grad_()
    action_BT = torch.zeros(1, 1, dtype=torch.int64)
    z_BTM, p_BTM = head.atoms(raw_BTAN[:, :, 0].detach())
    [at_rest] = torch.autograd.grad(head.loss_atoms(raw_BTAN, action_BT, z_BTM, p_BTM).sum(), raw_BTAN)
    [moved] = torch.autograd.grad(head.loss_atoms(raw_BTAN, action_BT, z_BTM + 0.5, p_BTM).sum(), raw_BTAN)
    assert at_rest.abs().max() <= 1 / 16 + 1e-6
    assert (moved[0, 0, 0, 1:] < -1 / 8).all()


def test_quantile_refusals() -> None:
    """Bug: a message without the key, or a bound asked for where none is needed."""
    assert quantile().clamped(torch.tensor([-1e9, 1e9])).tolist() == [0.0, 0.0]
    assert implicit().clamped(torch.tensor([-1e9, 1e9])).tolist() == [0.0, 0.0]
    for build in (quantile, implicit):
        with pytest.raises(UserError, match=r"head\.num_quantiles is 0"):
            build(0)
        with pytest.raises(UserError, match=r"head\.kappa is -1"):
            build(2, -1.0)
    with pytest.raises(UserError, match=r"head\.embedding is 0"):
        ImplicitQuantile(ENDLESS, num_quantiles=2, embedding=0, kappa=1.0)


# Sampled levels


def test_levels_are_random_in_training_and_midpoints_in_evaluation() -> None:
    """Bug: acting that is random, one set of levels for all positions, or levels that differ between actions."""
    torch.manual_seed(0)
    module = implicit(4).project(linear, 6, A)
    h_BSD = torch.randn(2, 5, 6)
    levels = module(h_BSD)[..., 4:]
    assert (levels >= 0).all() and (levels < 1).all()
    assert torch.equal(levels, levels[:, :, :1].expand_as(levels))  # one set for all actions
    assert len(levels[:, :, 0].unique()) == 2 * 5 * 4  # of each position its own
    assert not torch.equal(module(h_BSD)[..., 4:], levels)
    torch.manual_seed(0)
    again = implicit(4).project(linear, 6, A)
    torch.randn(2, 5, 6)
    torch.testing.assert_close(again(h_BSD)[..., 4:], levels)  # the global generator is the only source
    module.eval()
    before = torch.get_rng_state()
    raw_BSAN = module(h_BSD)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(module(h_BSD), raw_BSAN)
    close(raw_BSAN[..., 4:], torch.tensor([0.125, 0.375, 0.625, 0.875]).expand(2, 5, A, 4))


def test_quantiles_belong_to_their_levels() -> None:
    """Bug: axes of levels, actions and features exchanged, or another embedding than the paper's.

    Oracle: for one level at a time, projection(h * relu(W cos(pi j tau) + b)), j = 0 .. embedding - 1.
    """
    torch.manual_seed(0)
    module = implicit(4).project(linear, 6, A)
    assert isinstance(module, AtLevels)
    h_BSD = torch.randn(2, 5, 6)
    raw_BSAN = module(h_BSD).detach()
    for row in range(2):
        for time in range(5):
            for i in range(4):
                tau = float(raw_BSAN[row, time, 0, 4 + i])
                cosines = torch.tensor([math.cos(math.pi * j * tau) for j in range(8)])
                phi_D = (module.phi.weight @ cosines + module.phi.bias).clamp(min=0)
                expected_A = module.projection(h_BSD[row, time] * phi_D)[:, 0]
                torch.testing.assert_close(raw_BSAN[row, time, :, i], expected_A)


def test_step_equals_forward_in_evaluation() -> None:
    """Bug: levels that depend on how many observations are read at once, so that acting is not what was learned."""
    torch.manual_seed(0)
    head, body = implicit(), GRU(layers=1, width=6, context=8)
    network = QNetwork(TokenEncoder(11, 6, 1.0), body, {"q": head.project(linear, 6, A)}).eval()
    observation_BS = tokens(3, 6)
    expected = network(observation_BS)["q"]
    state = network.initial_state(3, "cpu")
    for time in range(6):
        output, state = network.step(observation_BS[:, time], state)
        torch.testing.assert_close(output["q"], expected[:, time])


def test_descent_over_random_levels_finds_the_whole_quantile_function() -> None:
    """Bug: levels and quantiles paired wrongly in the loss. Uniform returns on [-1, 1]: the quantile at tau is 2 tau - 1;
    asked in evaluation at eight levels of which training had at most near ones."""
    torch.manual_seed(0)
    head = implicit(8, 0.0)
    module = head.project(linear, 16, A)
    z_BTM, p_BTM = torch.linspace(-1, 1, 101).expand(16, 1, 101), torch.full((16, 1, 101), 1 / 101)
    action_BT, h_BTD = torch.ones(16, 1, dtype=torch.int64), torch.ones(16, 1, 16)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(400):
        optimizer.zero_grad()
        head.loss_atoms(module(h_BTD), action_BT, z_BTM, p_BTM).mean().backward()
        optimizer.step()
    raw_AN = module.eval()(h_BTD)[0, 0].detach()
    torch.testing.assert_close(raw_AN[1, :8], 2 * raw_AN[1, 8:] - 1, atol=0.1, rtol=0)
    assert float(head.value(raw_AN)[1]) == pytest.approx(0.0, abs=0.05)


def test_levels_keep_their_precision_in_a_half_precision_network() -> None:
    """Bug: levels in bfloat16, of which the 51 midpoints of N = 51 are no longer evenly spaced."""
    torch.manual_seed(0)
    module = implicit(51).project(linear, 6, A).bfloat16().eval()
    levels = module(torch.randn(2, 6).bfloat16())[0, 0, 51:]
    torch.testing.assert_close(levels.diff(), torch.full((50,), 1 / 51), atol=1e-5, rtol=0)


# Configuration


@pytest.mark.parametrize("name", ["categorical", "quantile", "implicit_quantile"])
def test_configuration_and_constructor_have_the_same_keys(name: str) -> None:
    """Bug: a key that nothing reads, and a default that stands in two places."""
    path = CONFIGS / "head" / f"{name}.yaml"
    assert path.read_text().startswith(f"# {name}: ")
    values = yaml.safe_load(path.read_text())
    module, class_name = values.pop("_target_").rsplit(".", 1)
    target = getattr(importlib.import_module(module), class_name)
    parameters = inspect.signature(target).parameters.values()
    assert {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} == set(values)
    assert all(p.default is p.empty for p in parameters)
    head = target(BOUNDS, **values)
    assert isinstance(head, DistributionalHead)
    assert isinstance(head.project(linear, 4, A), Linear | AtLevels)
