"""Initial outputs on a pretrained trunk: `policy` starts as the model's own logits, Q-values start without noise.

A pretrained model's features are far from unit size, so outputs that start at random would start large.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dqnlm.errors import UserError
from dqnlm.networks.fixed_weights import fixed
from dqnlm.networks.projections import Dueling, Linear, LowRank


def own_policy(weight_AD: Tensor, bias_A: Tensor | None) -> Linear:
    """The model's own logits of A tokens, trainable; without a bias where the model has none."""
    projection = Linear(weight_AD.shape[1], weight_AD.shape[0], 1)
    projection.linear.weight = nn.Parameter(weight_AD.float())
    bias = None if bias_A is None else nn.Parameter(bias_A.float())
    projection.linear.register_parameter("bias", bias)
    return projection


class FixedLogits(nn.Module):
    """The model's own logits of A tokens, W h + b, with weights that never change and that all outputs share.

    Args:
        weight_AD: a parameter of the model; it is used as it is, not copied.
        bias_A: None where the model has none.
    """

    num_parameters = 1

    def __init__(self, weight_AD: Tensor, bias_A: Tensor | None) -> None:
        super().__init__()
        self.num_actions = len(weight_AD)
        self.linear = nn.Linear(1, 1, bias=False, device="meta")  # the names are those of `Linear`
        self.linear.weight = weight_AD if isinstance(weight_AD, nn.Parameter) else fixed(weight_AD)
        self.linear.register_parameter("bias", None if bias_A is None else fixed(bias_A))

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, 1)."""
        return self.linear(h_BSD.to(self.linear.weight.dtype)).float()[..., None]


class LogitQ(nn.Module):
    """raw = q(h) + T log softmax(W h + b), with q = 0 at first and W, b those of the model's logits.

    So Q starts at T (logit - logsumexp): at most 0, and greatest for the model's most likely token. T logsumexp(Q / T)
    is then 0.

    Args:
        logit: h -> the model's logits. Where they are learned, `value` need not depend on the action.
        value: h -> q, zeros at first, (..., A or 1, 1).
        temperature: T, raw units (return units with head.loss=squared or huber) a nat.
    """

    def __init__(self, logit: nn.Module, value: nn.Module, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.num_actions: int = logit.num_actions  # type: ignore[assignment]
        self.logit = logit
        self.value = value

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, 1)."""
        # Over the last axis: over the one before it, of as many numbers, the CPU takes several times as long.
        log_BSA1: Tensor = self.logit(h_BSD).squeeze(-1).log_softmax(-1)[..., None]
        raw: Tensor = self.value(h_BSD) + self.temperature * log_BSA1
        return raw


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
    elif isinstance(projection, LowRank):
        streams = [projection.up]
    elif isinstance(projection, Dueling):
        streams = [projection.value, projection.advantage]
    else:
        raise UserError(
            f"network=pretrained starts its outputs at zero, which a {type(projection).__name__} cannot; set projection=linear "
            "or dueling (or low_rank), and another head than implicit_quantile"
        )
    for stream in streams:
        last = stream[-1] if isinstance(stream, nn.Sequential) else stream
        assert isinstance(last, nn.Linear)
        yield last
