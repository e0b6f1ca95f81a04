"""A table of Q-values by the latest observation (tabular Q-learning), for environments whose states are tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from dqnlm.networks.base import Body, State
from dqnlm.networks.layers import require_at_least


class Table(Body):
    """One-hot features: with projection=linear (whose bias `QNetwork` drops), Q(o, a) = W[a, o].

    An update of one pair then changes no other. The table has no memory of tokens before the latest one.

    Args:
        num_tokens: tokens that can be observed.
        context: longest T in transitions that training and scoring give it; it has no limit of its own.

    Raises:
        UserError: `context` below 1.
    """

    one_hot = True
    receptive_field = 1

    def __init__(self, num_tokens: int, *, context: int) -> None:
        super().__init__()
        require_at_least("network.context", context, 1)
        self.width = self.features = num_tokens
        self.context = context

    def forward(self, x_BSD: Tensor, first: int = 0) -> Tensor:
        """h_B(S-first)D, the input."""
        return x_BSD[:, first:]

    def initial_state(self, num_envs: int, device: torch.device | str, dtype: torch.dtype) -> State:
        """An empty state."""
        return {}

    def step(self, x_ED: Tensor, state: State) -> tuple[Tensor, State]:
        """h_ED, the input, and the same state."""
        return x_ED, state

    def prefill(self, x_ESD: Tensor, state: State) -> tuple[Tensor, State]:
        """h_ESD, the input, and the same state."""
        return x_ESD, state

    def reset(self, state: State, mask_E: Tensor) -> State:
        """The same, empty state."""
        return state
