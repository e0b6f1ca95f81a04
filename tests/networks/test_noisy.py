"""Layers with noise of learned size: what the noise is, when it acts, and that copies keep what they should."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dqnlm.errors import UserError
from dqnlm.heads.implicit_quantile import ImplicitQuantile
from dqnlm.networks.base import QNetwork
from dqnlm.networks.noisy import Noisy, NoisyDueling, NoisyLinear, has_noise, resample_noise, set_noise
from dqnlm.networks.projections import Dueling, Linear
from dqnlm.types import Bounds
from tests.helpers.networks import BODIES, close, encoder_for, tokens

A = 4


def network(projection: nn.Module | None = None) -> QNetwork:
    torch.manual_seed(0)
    body = BODIES["gru"]()
    made = projection or NoisyDueling(body.features, A, 3, hidden=5, sigma=0.5)
    return QNetwork(encoder_for(body), body, {"q": made}).eval()


def noisy_layer(inputs: int = 3, outputs: int = 2, seed: int = 0) -> NoisyLinear:
    torch.manual_seed(seed)
    layer = NoisyLinear(inputs, outputs, 0.5, small=False)
    layer.active = True
    layer.resample()
    return layer


def squashed(noise: Tensor) -> Tensor:
    return noise.sign() * noise.abs() ** 0.5


def test_noise_is_factorised() -> None:
    """Bug: noise drawn for every weight, without the square root, without the sign, or with inputs and outputs exchanged.

    Oracle: e_in, then e_out are drawn; the noise of weight (i, j) is sigma_ij f(e_out_i) f(e_in_j), of bias i f(e_out_i).
    """
    layer = noisy_layer()
    torch.manual_seed(5)
    layer.resample()
    torch.manual_seed(5)
    f_in, f_out = squashed(torch.randn(3)), squashed(torch.randn(2))
    with torch.no_grad():
        layer.weight_sigma.copy_(torch.rand(2, 3))
        layer.bias_sigma.copy_(torch.rand(2))
    h = torch.randn(7, 3)
    expected = torch.zeros(7, 2)
    for x in range(7):
        for i in range(2):
            expected[x, i] = layer.bias[i] + layer.bias_sigma[i] * f_out[i]
            for j in range(3):
                expected[x, i] += (layer.weight[i, j] + layer.weight_sigma[i, j] * f_out[i] * f_in[j]) * h[x, j]
    torch.testing.assert_close(layer(h), expected)
    disturbance = (layer(torch.eye(3)) - layer(torch.zeros(1, 3))).T - layer.weight
    ratio = disturbance / layer.weight_sigma
    assert torch.linalg.matrix_rank(ratio.detach(), rtol=1e-4) == 1


def test_inactive_is_the_mean_and_the_first_state() -> None:
    """Bug: evaluation with noise, noise that train and eval mode switch, or noise that is on before anyone asked."""
    noisy, observation = network(), tokens(2, 5)
    mean = noisy(observation)["q"]
    resample_noise(noisy)
    for mode in (True, False):
        close(noisy.train(mode)(observation)["q"], mean)
    set_noise(noisy, True)
    with_noise = noisy(observation)["q"]
    assert (with_noise - mean).abs().max() > 1e-2
    close(noisy.train()(observation)["q"], with_noise)
    set_noise(noisy, False)
    close(noisy.eval()(observation)["q"], mean)


def test_mean_weights_are_the_mean_over_the_noise() -> None:
    """Bug: noise that is not centred, such as |e| without its sign: evaluation would then be of another network.

    An output's noise here has a standard deviation below 1; the mean of 4,000 draws lies within 0.05, three of its own.
    """
    layer, h = noisy_layer(), torch.randn(3)
    total = torch.zeros(2)
    with torch.no_grad():
        for _ in range(4000):
            layer.resample()
            total += layer(h)
        layer.active = False
        torch.testing.assert_close(total / 4000, layer(h), atol=0.05, rtol=0)


def test_noise_stays_until_it_is_drawn_anew() -> None:
    """Bug: noise drawn in each forward, so that a step is not what the forward says, or never drawn again."""
    noisy, observation = network(), tokens(3, 5)
    set_noise(noisy, True)
    resample_noise(noisy)
    first = noisy(observation)["q"]
    close(noisy(observation)["q"], first)
    state = noisy.initial_state(3, "cpu")
    for time in range(5):
        output, state = noisy.step(observation[:, time], state)
    torch.testing.assert_close(output["q"], first[:, -1])
    torch.testing.assert_close(noisy(observation[1:2])["q"], first[1:2])  # one noise for all rows
    resample_noise(noisy)
    assert (noisy(observation)["q"] - first).abs().max() > 1e-2
    torch.manual_seed(3)
    resample_noise(noisy)
    again = noisy(observation)["q"]
    torch.manual_seed(3)
    resample_noise(noisy)
    close(noisy(observation)["q"], again)


def test_layers_have_different_noise() -> None:
    """Bug: one noise for all layers, so that value and advantage move together."""
    noisy = network()
    resample_noise(noisy)
    drawn = [module.noise_in for module in noisy.modules() if isinstance(module, NoisyLinear)]
    assert len(drawn) == 4
    assert len({float(noise[0]) for noise in drawn}) == 4


def test_gradient_reaches_the_size_of_the_noise() -> None:
    """Bug: noise that is not learned. d y_i / d S_ij = f(e_out_i) f(e_in_j) h_j, and with the noise off there is none."""
    layer, h = noisy_layer(), torch.randn(3)
    layer(h).sum().backward()
    assert layer.weight_sigma.grad is not None and layer.bias_sigma.grad is not None
    torch.testing.assert_close(layer.weight_sigma.grad, torch.outer(layer.noise_out, layer.noise_in) * h)
    torch.testing.assert_close(layer.bias_sigma.grad, layer.noise_out)
    layer.zero_grad()
    layer.active = False
    layer(h).sum().backward()
    assert layer.weight_sigma.grad is None and layer.weight.grad is not None


def test_noise_drawn_between_forward_and_backward_is_harmless() -> None:
    """Bug: noise written in place, so that acting between a forward and its backward breaks the gradient."""
    layer, h = noisy_layer(), torch.randn(3)
    old = torch.outer(layer.noise_out, layer.noise_in)
    out = layer(h).sum()
    layer.resample()
    out.backward()
    assert layer.weight_sigma.grad is not None
    torch.testing.assert_close(layer.weight_sigma.grad, old * h)


def test_copies_and_saved_weights() -> None:
    """Bug: a target network that shares its noise with the online one, or noise among the saved weights."""
    noisy, observation = network(), tokens(2, 5)
    set_noise(noisy, True)
    resample_noise(noisy)
    expected = noisy(observation)["q"]
    assert not any("noise" in name for name in noisy.state_dict())
    copied = copy.deepcopy(noisy)
    close(copied(observation)["q"], expected)
    resample_noise(copied)
    assert (copied(observation)["q"] - expected).abs().max() > 1e-2
    close(noisy(observation)["q"], expected)
    fresh = network()
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    fresh.load_state_dict(noisy.state_dict())
    set_noise(noisy, False)
    close(fresh(observation)["q"], noisy(observation)["q"])  # a loaded network starts without noise


def test_has_noise() -> None:
    """Bug: a noisy network taken for a quiet one (it would not explore), also where the head wraps its projection."""
    head = ImplicitQuantile(Bounds(0.0, 1.0), num_quantiles=4, embedding=6, kappa=1.0)
    wrapped = head.project(lambda d, a, n: Noisy(d, a, n, sigma=0.5), 8, A)
    assert has_noise(network()) and has_noise(network(Noisy(8, A, 1, sigma=0.5))) and has_noise(network(wrapped))
    for quiet in (Linear(8, A, 1), Dueling(8, A, 1, hidden=0)):
        assert not has_noise(network(quiet))
        resample_noise(network(quiet))  # nothing to do


@pytest.mark.parametrize("make", [Noisy, NoisyDueling])
def test_first_outputs(make: type[nn.Module]) -> None:
    """Bug: first Q-values that saturate a bounded head, and a key `sigma` without effect.

    With features of unit size the mean weights give about 0.1 (dueling: V and A, so up to 0.15). The noise of a layer at
    sigma 0.5 is 0.5 f(e_out) (f(e_in) h / sqrt(D) + 1 / sqrt(D)) of variance 1/4 * 0.8 * (0.8 + 1 / D): about 0.4 a layer.
    """
    torch.manual_seed(0)
    hidden = {} if make is Noisy else {"hidden": 0}
    sizes = []
    for sigma in (0.0, 0.5):
        module, h = make(64, A, 3, sigma=sigma, **hidden), torch.randn(200, 64)
        set_noise(module, False)
        assert 0.08 < float(module(h).detach().std()) < 0.16
        set_noise(module, True)
        mean_square = []
        for _ in range(100):
            resample_noise(module)
            mean_square.append(float(module(h).detach().square().mean()))
        sizes.append((sum(mean_square) / 100) ** 0.5)
    assert sizes[0] < 0.16 and 0.3 < sizes[1] < 0.7
    with pytest.raises(UserError, match=r"projection\.sigma"):
        make(64, A, 3, sigma=-1.0, **hidden)


def test_sizes_start_at_sigma_over_the_root_of_inputs() -> None:
    """Bug: sigma divided by the outputs, or not at all: 0.5 / sqrt(16) = 0.125; the paper's W lies within 1/4."""
    layer = NoisyLinear(16, 3, 0.5, small=False)
    assert (layer.weight_sigma == 0.125).all() and (layer.bias_sigma == 0.125).all()
    assert 0.2 < float(layer.weight.detach().abs().max()) <= 0.25


def test_noisy_dueling_averages_over_actions_within_a_parameter() -> None:
    """Bug: a mean over atoms, or over both: with noise too, the mean over actions of each atom must be that atom's V."""
    torch.manual_seed(0)
    module, h = NoisyDueling(4, 5, 3, hidden=6, sigma=0.5), torch.randn(2, 7, 4)
    set_noise(module, True)
    resample_noise(module)
    torch.testing.assert_close(module(h).mean(-2), module.value(h))
