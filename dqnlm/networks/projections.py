"""Projections of a body's features to raw outputs, (..., A, N): N parameters for each of A actions.

The last layer starts small, so that the first Q-values lie close together and no logistic or clamped output saturates.
"""

from __future__ import annotations

from torch import Tensor, nn

from dqnlm.networks.layers import require_at_least

# With features of unit size the first outputs have a standard deviation of 0.1.
FIRST_OUTPUT_STD = 0.1


class Linear(nn.Module):
    """raw = W h + b.

    Args:
        features: features of the body.
        num_actions: A.
        num_parameters: N, 1 for a scalar head.
    """

    def __init__(self, features: int, num_actions: int, num_parameters: int) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.num_parameters = num_parameters
        self.linear = _small(nn.Linear(features, num_actions * num_parameters))

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, N)."""
        return self.linear(h_BSD).unflatten(-1, (self.num_actions, self.num_parameters))


class Dueling(nn.Module):
    """Q = V + A - mean_a A (Wang et al. 2016, equation 9), for each of the N parameters.

    Args:
        features: features of the body.
        num_actions: A.
        num_parameters: N, 1 for a scalar head.
        hidden: width of one ReLU layer in front of each of the two streams; 0 for none.

    Attributes:
        has_value_stream: the mean of the outputs over actions is a stream of its own, V; projections without it need not
            say so.

    Raises:
        UserError: `hidden` is negative.
    """

    has_value_stream = True

    def __init__(self, features: int, num_actions: int, num_parameters: int, *, hidden: int) -> None:
        super().__init__()
        require_at_least("projection.hidden", hidden, 0)
        self.num_actions = num_actions
        self.num_parameters = num_parameters
        self.value = _stream(features, hidden, num_parameters)
        self.advantage = _stream(features, hidden, num_actions * num_parameters)

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, N)."""
        advantage_BSAN = self.advantage(h_BSD).unflatten(-1, (self.num_actions, self.num_parameters))
        return duel(self.value(h_BSD), advantage_BSAN)


def duel(value_BSN: Tensor, advantage_BSAN: Tensor) -> Tensor:
    """V + A - mean_a A, (..., A, N)."""
    return advantage_BSAN + (value_BSN - advantage_BSAN.mean(-2)).unsqueeze(-2)


def _stream(features: int, hidden: int, outputs: int) -> nn.Module:
    if hidden == 0:
        return _small(nn.Linear(features, outputs))
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), _small(nn.Linear(hidden, outputs)))


def _small(linear: nn.Linear) -> nn.Linear:
    nn.init.normal_(linear.weight, std=FIRST_OUTPUT_STD / linear.in_features**0.5)
    nn.init.zeros_(linear.bias)
    return linear
