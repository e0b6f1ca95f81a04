"""Small networks of every kind, for the tests of networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dqnlm.networks.base import Body, QNetwork, TokenEncoder
from dqnlm.networks.projections import Dueling, Linear
from dqnlm.networks.recurrent import GRU
from dqnlm.networks.transformer import Transformer
from dqnlm.networks.window_mlp import WindowMLP

VOCABULARY = 11
ACTIONS = 7
CONTEXT = 9
WINDOW = 3

BODIES: dict[str, Callable[[], Body]] = {
    "window_mlp": lambda: WindowMLP(window=WINDOW, width=6, hidden=10, layers=2, context=CONTEXT),
    "window_of_one": lambda: WindowMLP(window=1, width=6, hidden=10, layers=1, context=CONTEXT),
    "gru": lambda: GRU(layers=2, width=8, context=CONTEXT),
    "transformer": lambda: transformer(),
}
PROJECTIONS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda features: Linear(features, ACTIONS, 1),
    "linear_of_three": lambda features: Linear(features, ACTIONS, 3),
    "dueling": lambda features: Dueling(features, ACTIONS, 3, hidden=0),
    "dueling_hidden": lambda features: Dueling(features, ACTIONS, 1, hidden=5),
}


def transformer(dropout: float = 0.0, tie_weights: bool = False) -> Transformer:
    return Transformer(layers=3, heads=2, width=8, context=CONTEXT, norm="layer", dropout=dropout, tie_weights=tie_weights)


def make(body: str | Body, projection: str = "linear") -> QNetwork:
    """A network in float64 and evaluation mode, whose weights are large enough that every part shows in the outputs."""
    torch.manual_seed(0)
    built = BODIES[body]() if isinstance(body, str) else body
    encoder = TokenEncoder(VOCABULARY, built.width, built.embedding_std)
    network = QNetwork(encoder, built, {"q": PROJECTIONS[projection](built.features)}).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
