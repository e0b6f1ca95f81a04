"""A gated recurrent unit (Cho et al. 2014): constant memory, any sequence length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dqnlm.networks.base import Body, State
from dqnlm.networks.layers import require_sizes


class GRU(Body):
    """Stacked recurrent layers.

    Args:
        layers: recurrent layers.
        width: features a token and a layer.
        context: longest T in transitions that training and scoring give it; it has no limit of its own.

    Raises:
        UserError: a value below 1.
    """

    is_recurrent = True

    def __init__(self, *, layers: int, width: int, context: int) -> None:
        super().__init__()
        require_sizes(layers=layers, width=width, context=context)
        self.width = self.features = width
        self.layers = layers
        self.context = context
        self.gru = nn.GRU(width, width, layers, batch_first=True)

    def forward(self, x_BSD: Tensor, first: int = 0) -> Tensor:
        """h_B(S-first)D. All times are computed, as each depends on the one before."""
        return self.gru(x_BSD)[0][:, first:]

    def initial_state(self, num_envs: int, device: torch.device | str, dtype: torch.dtype) -> State:
        """The state `hidden`: zeros, (E, layers, width)."""
        return {"hidden": torch.zeros(num_envs, self.layers, self.width, device=device, dtype=dtype)}

    def step(self, x_ED: Tensor, state: State) -> tuple[Tensor, State]:
        """One more observation an environment: h_ED and a new state."""
        h_ESD, state = self.prefill(x_ED[:, None], state)
        return h_ESD[:, 0], state

    def prefill(self, x_ESD: Tensor, state: State) -> tuple[Tensor, State]:
        """S more observations an environment: h_ESD and a new state. Goes on from any state."""
        h_ESD, hidden = self.gru(x_ESD, state["hidden"].transpose(0, 1).contiguous())
        return h_ESD, {"hidden": hidden.transpose(0, 1)}

    def reset(self, state: State, mask_E: Tensor) -> State:
        """Zeros the masked environments' hidden features, in a new state."""
        return {"hidden": state["hidden"].masked_fill(mask_E[:, None, None], 0.0)}
