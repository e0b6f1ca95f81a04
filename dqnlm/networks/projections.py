"""Projections of a body's features to raw outputs, (..., A, N): N parameters for each of A actions.

The last layer starts small, so that the first Q-values lie close together and no logistic or clamped output saturates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dqnlm.errors import UserError
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

    def at_actions(self, h_BTD: Tensor, action_BT: Tensor) -> Tensor:
        """raw_BTN of one action each, from the rows of W that it needs."""
        raw_BTN = _rows_times(self.linear.weight, h_BTD, action_BT, self.num_parameters)
        if self.linear.bias is None:
            return raw_BTN
        return raw_BTN + nn.functional.embedding(action_BT, self.linear.bias.view(-1, self.num_parameters))


class StateValue(Linear):
    """raw = w h + b, one number a state for all actions: what tells actions apart are the model's own logits (`q_init: logits`).

    The features alone then change the policy, by adapters or by training the whole trunk, as in policy-gradient fine-tuning.
    `num_actions` is 1, which broadcasts over actions.

    Args:
        features, num_actions, num_parameters: as of `Linear`.
    """

    def __init__(self, features: int, num_actions: int, num_parameters: int) -> None:
        del num_actions
        super().__init__(features, 1, num_parameters)


class LowRank(nn.Module):
    """raw = U V h + c, with thin matrices U (A N x r) and V (r x D), and one constant c for all actions.

    With a vocabulary of tens of thousands, a full matrix for each Q-function is as large as the model's own output layer; this
    one has r / D of its numbers. Without a bias for each action it can be added to the output layer of a language model.

    Args:
        features: features of the body, D.
        num_actions: A.
        num_parameters: N, 1 for a scalar head.
        rank: r.

    Raises:
        UserError: a rank below 1.
    """

    def __init__(self, features: int, num_actions: int, num_parameters: int, *, rank: int) -> None:
        super().__init__()
        require_at_least("projection.rank", rank, 1)
        self.num_actions = num_actions
        self.num_parameters = num_parameters
        self.down = nn.Linear(features, rank, bias=False)
        self.up = nn.Linear(rank, num_actions * num_parameters, bias=False)
        self.constant_N = nn.Parameter(torch.zeros(num_parameters))
        nn.init.normal_(self.down.weight, std=features**-0.5)
        nn.init.normal_(self.up.weight, std=FIRST_OUTPUT_STD / rank**0.5)

    def forward(self, h_BSD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, N)."""
        raw_BSAN = self.up(self.down(h_BSD)).unflatten(-1, (self.num_actions, self.num_parameters))
        return raw_BSAN + self.constant_N

    def at_actions(self, h_BTD: Tensor, action_BT: Tensor) -> Tensor:
        """raw_BTN of one action each, from the rows of U that it needs."""
        return _rows_times(self.up.weight, self.down(h_BTD), action_BT, self.num_parameters) + self.constant_N


def _rows_times(weight_XD: Tensor, h_BTD: Tensor, action_BT: Tensor, num_parameters: int) -> Tensor:
    """W[a] h, BTN, with the N rows of W that belong to each action a."""
    rows_BTX = nn.functional.embedding(action_BT, weight_XD.view(-1, num_parameters * weight_XD.shape[1]))
    rows_BTND = rows_BTX.unflatten(-1, (num_parameters, -1))
    return (rows_BTND @ h_BTD[..., None].to(rows_BTND.dtype)).squeeze(-1)


def require_every_action(projection: nn.Module) -> nn.Module:
    """Returns the projection.

    Raises:
        UserError: it has one number for all actions, and nothing else tells these apart.
    """
    if isinstance(projection, StateValue):
        raise UserError(
            "projection=state_value has one number a state, which ranks no actions: it stands beside the logits of a pretrained "
            "model, network=pretrained network.q_init=logits network.q_temperature=1; or set projection=linear"
        )
    return projection


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
