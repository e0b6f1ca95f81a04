"""Initial outputs on a pretrained trunk: `policy` starts as the model's own logits, Q-values start without noise.

A pretrained model's features are far from unit size, so outputs that start at random would start large.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dqnlm.errors import UserError
from dqnlm.networks.projections import Dueling, Linear


def own_policy(weight_AD: Tensor, bias_A: Tensor | None) -> Linear:
    """The model's own logits of A tokens, trainable; without a bias where the model has none."""
    projection = Linear(weight_AD.shape[1], weight_AD.shape[0], 1)
    projection.linear.weight = nn.Parameter(weight_AD.clone())
    bias = None if bias_A is None else nn.Parameter(bias_A.clone())
    projection.linear.register_parameter("bias", bias)
    return projection


class LogitQ(nn.Module):
    """raw = v(h) + T log softmax(W h + b), with v = 0 at first and W, b those of the model's logits.

    So Q starts at T (logit - logsumexp): at most 0, and greatest for the model's most likely token. T logsumexp(Q / T)
    is v, so any Q can be reached.

    Args:
        weight_AD, bias_A: of the model's logits.
        temperature: T, raw units (return units with head.loss=squared or huber) a nat.
    """

    def __init__(self, weight_AD: Tensor, bias_A: Tensor | None, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.logit = own_policy(weight_AD, bias_A)
        self.value = zeroed(Linear(weight_AD.shape[1], 1, 1))

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, 1)."""
        return self.value(h_BSD) + self.temperature * self.logit(h_BSD).log_softmax(-2)


def zeroed(projection: nn.Module) -> nn.Module:
    """Sets the last layer to zeros: all outputs start at 0 (the head adds `initial_return`).

    Raises:
        UserError: a projection whose outputs are not those of a linear layer.
    """
    with torch.no_grad():
        for layer in _last_layers(projection):
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()
    return projection


def _last_layers(projection: nn.Module) -> Iterator[nn.Linear]:
    if isinstance(projection, Linear):
        streams: list[nn.Module] = [projection.linear]
    elif isinstance(projection, Dueling):
        streams = [projection.value, projection.advantage]
    else:
        raise UserError(
            f"network=pretrained starts its outputs at zero, which a {type(projection).__name__} cannot; set projection=linear "
            "or dueling, and another head than implicit_quantile"
        )
    for stream in streams:
        last = stream[-1] if isinstance(stream, nn.Sequential) else stream
        assert isinstance(last, nn.Linear)
        yield last
