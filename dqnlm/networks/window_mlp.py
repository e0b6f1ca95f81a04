"""A multilayer perceptron over the last few tokens: the simplest network for texts of any length."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dqnlm.networks.base import Body, State
from dqnlm.networks.layers import require_sizes


class WindowMLP(Body):
    """Concatenates the embeddings of the last `window` tokens, then ReLU layers (Bengio et al. 2003).

    h_t = mlp([x_{t-window+1}, ..., x_t]), with one learned vector in place of every token before the row's start.

    Args:
        window: tokens in the input, the newest included.
        width: features a token.
        hidden: features a hidden layer.
        layers: hidden layers.
        context: longest T in transitions that training and scoring give it; it has no limit of its own.
        norm: `layer` normalises (LayerNorm, Ba et al. 2016) in front of each ReLU, which keeps Q-learning without replay
            stable (Gallici et al. 2024); `none` does not.

    Raises:
        UserError: a value below 1.
    """

    def __init__(
        self, *, window: int, width: int, hidden: int, layers: int, context: int, norm: Literal["none", "layer"]
    ) -> None:
        super().__init__()
        require_sizes(window=window, width=width, hidden=hidden, layers=layers, context=context)
        self.window = window
        self.left_context, self.receptive_field = window - 1, window
        self.width = width
        self.features = hidden
        self.context = context
        self.padding_D = nn.Parameter(torch.randn(width))
        modules: list[nn.Module] = []
        for index in range(layers):
            modules.append(nn.Linear(hidden if index else window * width, hidden))
            if norm == "layer":
                modules.append(nn.LayerNorm(hidden))
            modules.append(nn.ReLU())
        self.mlp = nn.Sequential(*modules)

    def forward(self, x_BSD: Tensor, first: int = 0) -> Tensor:
        """h_B(S-first)D, reading only the tokens of the required windows."""
        length = x_BSD.shape[1]
        reach = self.window - 1
        x_BSD = x_BSD[:, max(0, first - reach) :]
        missing = length - first + reach - x_BSD.shape[1]
        padding = self.padding_D.to(x_BSD.dtype).expand(x_BSD.shape[0], missing, -1)
        return self._windows(torch.cat([padding, x_BSD], 1))

    def initial_state(self, num_envs: int, device: torch.device | str, dtype: torch.dtype) -> State:
        """The state `recent`: the padding vector in each of the last `window` - 1 places, (E, window - 1, width)."""
        padding = self.padding_D.detach().to(device=device, dtype=dtype)
        return {"recent": padding.repeat(num_envs, self.window - 1, 1)}

    def step(self, x_ED: Tensor, state: State) -> tuple[Tensor, State]:
        """One more observation an environment: h_ED and a new state."""
        h_ESD, state = self.prefill(x_ED[:, None], state)
        return h_ESD[:, 0], state

    def prefill(self, x_ESD: Tensor, state: State) -> tuple[Tensor, State]:
        """S more observations an environment: h_ESD and a new state. Goes on from any state."""
        x_ESD = torch.cat([state["recent"].to(x_ESD.dtype), x_ESD], 1)
        recent = x_ESD[:, x_ESD.shape[1] - self.window + 1 :]
        return self._windows(x_ESD), {"recent": recent.to(state["recent"].dtype)}

    def reset(self, state: State, mask_E: Tensor) -> State:
        """Puts the padding vector in all places of the masked environments, in a new state."""
        recent = state["recent"]
        return {"recent": torch.where(mask_E[:, None, None], self.padding_D.detach().to(recent.dtype), recent)}

    def _windows(self, x_BSD: Tensor) -> Tensor:
        """x_B(window-1+S)D -> h_BSD."""
        # Joined slices, not `unfold`, whose backward takes several times as long.
        length = x_BSD.shape[1] - self.window + 1
        return self.mlp(torch.cat([x_BSD[:, start : start + length] for start in range(self.window)], -1))
