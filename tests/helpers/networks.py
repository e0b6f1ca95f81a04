"""Small networks of every kind, for the tests of networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dqnlm.heads.implicit_quantile import ImplicitQuantile
from dqnlm.networks.base import Body, OneHotEncoder, QNetwork, TokenEncoder
from dqnlm.networks.noisy import Noisy, NoisyDueling, resample_noise, set_noise
from dqnlm.networks.projections import Dueling, Linear
from dqnlm.networks.recurrent import GRU
from dqnlm.networks.table import Table
from dqnlm.networks.transformer import Transformer
from dqnlm.networks.window_mlp import WindowMLP
from dqnlm.types import Bounds

VOCABULARY = 11
ACTIONS = 7
CONTEXT = 9
WINDOW = 3

BODIES: dict[str, Callable[[], Body]] = {
    "window_mlp": lambda: window_mlp(WINDOW, layers=2),
    "window_mlp_with_norm": lambda: window_mlp(WINDOW, layers=2, norm="layer"),
    "window_of_one": lambda: window_mlp(1, layers=1),
    "gru": lambda: GRU(layers=2, width=8, context=CONTEXT),
    "transformer": lambda: transformer(),
    "table": lambda: Table(VOCABULARY, context=CONTEXT),
}
PROJECTIONS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda features: Linear(features, ACTIONS, 1),
    "linear_of_three": lambda features: Linear(features, ACTIONS, 3),
    "dueling": lambda features: Dueling(features, ACTIONS, 3, hidden=0),
    "dueling_hidden": lambda features: Dueling(features, ACTIONS, 1, hidden=5),
    "noisy": lambda features: Noisy(features, ACTIONS, 3, sigma=0.5),
    "noisy_dueling": lambda features: NoisyDueling(features, ACTIONS, 1, hidden=5, sigma=0.5),
    "implicit_quantile": lambda features: implicit_quantile().project(linear, features, ACTIONS),
}
# N, the last axis of what they give; 1 where not said.
PARAMETERS = {"linear_of_three": 3, "dueling": 3, "noisy": 3, "implicit_quantile": 8}


def implicit_quantile() -> ImplicitQuantile:
    return ImplicitQuantile(Bounds(0.0, 1.0), num_quantiles=4, embedding=6, kappa=1.0)


def linear(features: int, num_actions: int, num_parameters: int) -> Linear:
    return Linear(features, num_actions, num_parameters)


def window_mlp(window: int, layers: int, norm: Literal["none", "layer"] = "none") -> WindowMLP:
    return WindowMLP(window=window, width=6, hidden=10, layers=layers, context=CONTEXT, norm=norm)


def transformer(dropout: float = 0.0, tie_weights: bool = False) -> Transformer:
    return Transformer(
        layers=3, heads=2, width=8, context=CONTEXT, norm="layer", dropout=dropout, tie_weights=tie_weights
    )


def make(body: str | Body, projection: str = "linear") -> QNetwork:
    """A network in float64 and evaluation mode, whose weights are large enough that every part shows in the outputs.

    Noise, where there is any, is on.
    """
    torch.manual_seed(0)
    built = BODIES[body]() if isinstance(body, str) else body
    network = QNetwork(encoder_for(built), built, {"q": PROJECTIONS[projection](built.features)}).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    set_noise(network, True)
    resample_noise(network)
    return network


def encoder_for(body: Body) -> nn.Module:
    if body.one_hot:
        return OneHotEncoder(VOCABULARY)
    return TokenEncoder(VOCABULARY, body.width, body.embedding_std)


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


class WithDropout(GRU):
    """The features of another body, each dropped with probability 1/2 in training."""

    def __init__(self, body: GRU) -> None:
        super().__init__(layers=1, width=body.width, context=body.context)
        self.inside = body

    def forward(self, x_BSD: Tensor, first: int = 0) -> Tensor:
        return nn.functional.dropout(self.inside(x_BSD, first), 0.5, self.training)
