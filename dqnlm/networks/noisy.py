"""Noisy layers: weights perturbed by noise of learned scale, which explores in place of random actions.

One noise sample is used for a whole forward: every row and time is read by the same perturbed network, so that exploration
is consistent. The actor and the learner turn the noise on and sample it (`set_noise`, `resample_noise`); a network is built
with the noise off, and a copy keeps its current noise. Train and eval mode do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from dqnlm.errors import UserError
from dqnlm.networks.layers import require_at_least
from dqnlm.networks.projections import FIRST_OUTPUT_STD, duel


class NoisyLinear(nn.Module):
    """y = (W + S * f(e_out) f(e_in)^T) h + b + s * f(e_out),  f(e) = sign(e) sqrt|e|,  e ~ N(0, 1), elementwise *.

    Factorised Gaussian noise (Fortunato et al. 2018, equations 9 to 11): inputs + outputs numbers a draw, not their
    product. S and s start at sigma / sqrt(inputs). The noise is not saved.

    Args:
        inputs: features in.
        outputs: features out.
        sigma: first size of the noise in units of 1 / sqrt(inputs), 0 or more.
        small: W and b start as those of `projections.Linear`, for the last layer; else uniform in +- 1 / sqrt(inputs),
            as in the paper.
    """

    without_decay = ("weight_sigma", "bias_sigma")  # decay would end exploration, whatever is learned
    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float, small: bool) -> None:
        super().__init__()
        self.active = False
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma / inputs**0.5))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma / inputs**0.5))
        self.register_buffer("noise_in", torch.zeros(inputs), persistent=False)
        self.register_buffer("noise_out", torch.zeros(outputs), persistent=False)
        if small:
            nn.init.normal_(self.weight, std=FIRST_OUTPUT_STD / inputs**0.5)
        else:
            nn.init.uniform_(self.weight, -(inputs**-0.5), inputs**-0.5)
            nn.init.uniform_(self.bias, -(inputs**-0.5), inputs**-0.5)

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., inputs) -> (..., outputs)."""
        if not self.active:
            return functional.linear(h_BSD, self.weight, self.bias)
        weight = self.weight + self.weight_sigma * torch.outer(self.noise_out, self.noise_in)
        return functional.linear(h_BSD, weight, self.bias + self.bias_sigma * self.noise_out)

    @torch.no_grad()
    def resample(self) -> None:
        """Samples new noise from torch's global generator; new tensors keep older graphs valid for backward.
        """
        self.noise_in, self.noise_out = _noise_like(self.noise_in), _noise_like(self.noise_out)


def _noise_like(old: Tensor) -> Tensor:
    noise = torch.randn_like(old)
    return noise.sign() * noise.abs().sqrt()


class Noisy(nn.Module):
    """One noisy layer from features to raw outputs.

    Args:
        features: features of the body.
        num_actions: A.
        num_parameters: N, 1 for a scalar head.
        sigma: first size of the noise, in units of 1 / sqrt(features).

    Raises:
        UserError: `sigma` is negative.
    """

    def __init__(self, features: int, num_actions: int, num_parameters: int, *, sigma: float) -> None:
        super().__init__()
        _check_sigma(sigma)
        self.num_actions = num_actions
        self.num_parameters = num_parameters
        self.linear = NoisyLinear(features, num_actions * num_parameters, sigma, small=True)

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, N)."""
        raw_BSX: Tensor = self.linear(h_BSD)
        return raw_BSX.unflatten(-1, (self.num_actions, self.num_parameters))


class NoisyDueling(nn.Module):
    """As `projections.Dueling`, of noisy layers (Hessel et al. 2018).

    Args:
        features: features of the body.
        num_actions: A.
        num_parameters: N, 1 for a scalar head.
        hidden: width of one ReLU layer in front of each of the two streams; 0 for none.
        sigma: first size of the noise, in units of 1 / sqrt(a layer's inputs).

    Raises:
        UserError: `hidden` or `sigma` is negative.
    """

    has_value_stream = True

    def __init__(self, features: int, num_actions: int, num_parameters: int, *, hidden: int, sigma: float) -> None:
        super().__init__()
        require_at_least("projection.hidden", hidden, 0)
        _check_sigma(sigma)
        self.num_actions = num_actions
        self.num_parameters = num_parameters
        self.value = _stream(features, hidden, num_parameters, sigma)
        self.advantage = _stream(features, hidden, num_actions * num_parameters, sigma)

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, N)."""
        advantage_BSAN = self.advantage(h_BSD).unflatten(-1, (self.num_actions, self.num_parameters))
        return duel(self.value(h_BSD), advantage_BSAN)


def has_noise(network: nn.Module) -> bool:
    """Whether any layer below has noise, active or not."""
    return any(True for _ in _layers(network))


def set_noise(network: nn.Module, active: bool) -> None:
    """Turns the noise of all layers below on or off; off leaves the mean weights. See `resample_noise`.
    """
    for layer in _layers(network):
        layer.active = active


def resample_noise(network: nn.Module) -> None:
    """Samples noise for every layer below from torch's global generator. Before the first sample the noise is 0."""
    for layer in _layers(network):
        layer.resample()


def _layers(network: nn.Module) -> Iterator[NoisyLinear]:
    return (module for module in network.modules() if isinstance(module, NoisyLinear))


def _stream(features: int, hidden: int, outputs: int, sigma: float) -> nn.Module:
    if hidden == 0:
        return NoisyLinear(features, outputs, sigma, small=True)
    first = NoisyLinear(features, hidden, sigma, small=False)
    return nn.Sequential(first, nn.ReLU(), NoisyLinear(hidden, outputs, sigma, small=True))


def _check_sigma(sigma: float) -> None:
    if not sigma >= 0:
        raise UserError(f"projection.sigma is {sigma}; it cannot be below 0. Set projection.sigma=0.5, the usual size.")
