"""A decoder-only transformer (Vaswani et al. 2017) with rotary positions and a static key-value cache for acting.

The cache holds `context + 1` observations in memory that is allocated once. Every environment has its own position in
it, so an episode is reset by setting its position to 0: slots from the position on are masked out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dqnlm.errors import UserError
from dqnlm.networks.base import Body, State
from dqnlm.networks.layers import Block, CachePlace, make_norm, require_share, require_sizes, rotary_table

_STD = 0.02


class Transformer(Body):
    """A transformer over up to `context + 1` observations.

    Args:
        layers: blocks.
        heads: attention heads a block.
        width: features a token, a multiple of 2 * heads.
        context: longest T in transitions.
        norm: `rms` (RMSNorm) or `layer` (LayerNorm without bias).
        dropout: share of attention weights and of residual updates dropped in training.
        tie_weights: the q projection shares the embedding's matrix (done by `QNetwork`).

    Raises:
        UserError: a value outside its range.
    """

    rotary: Tensor
    embedding_std = _STD
    steps_in_place = True

    def __init__(
        self,
        *,
        layers: int,
        heads: int,
        width: int,
        context: int,
        norm: Literal["rms", "layer"],
        dropout: float,
        tie_weights: bool,
    ) -> None:
        super().__init__()
        require_sizes(layers=layers, heads=heads, width=width, context=context)
        require_share("network.dropout", dropout)
        if width % (2 * heads):
            nearest = max(round(width / (2 * heads)), 1) * 2 * heads
            raise UserError(
                f"network.width is {width}, which {heads} heads (network.heads) cannot share: each needs an even "
                f"number of features. Set network.width={nearest}."
            )
        self.width = self.features = width
        self.heads = heads
        self.context = context
        self.max_observations: int = context + 1
        self.tie_weights = tie_weights
        self.dropout = nn.Dropout(dropout)
        # As GPT-2 (Radford et al. 2019): the residual stream's variance does not grow with the number of layers.
        residual_std = _STD / (2 * layers) ** 0.5
        self.blocks = nn.ModuleList(
            Block(width, heads, dropout, norm, std=_STD, residual_std=residual_std) for _ in range(layers)
        )
        self.norm = make_norm(norm, width)
        self.register_buffer("rotary", rotary_table(context + 1, width // heads), persistent=False)

    def forward(self, x_BSD: Tensor, first: int = 0) -> Tensor:
        """Features h_B(S-first)D; the last block computes no more than these.

        Raises:
            UserError: S is above `context + 1`.
        """
        return self._read(x_BSD, first)[0]

    def initial_state(self, num_envs: int, device: torch.device | str, dtype: torch.dtype) -> State:
        """`cache` (layers, 2, E, heads, context + 1, features a head), zeros, and `position` int64 E."""
        shape = (len(self.blocks), 2, num_envs, self.heads, self.max_observations, self.width // self.heads)
        return {
            "cache": torch.zeros(shape, device=device, dtype=dtype),
            "position": torch.zeros(num_envs, device=device, dtype=torch.int64),
        }

    @torch.no_grad()
    def step(self, x_ED: Tensor, state: State) -> tuple[Tensor, State]:
        """One more observation an environment, h_ED; the state is updated in place.

        Raises:
            UserError: an environment's cache is full (on the CPU; a CUDA device reports an index out of range).
        """
        position_E = state["position"]
        used = self._used(position_E)
        mask_EM = torch.arange(used, device=x_ED.device) <= position_E[:, None]
        row_E = torch.arange(len(position_E), device=x_ED.device)
        place = CachePlace(row_E, position_E, self.rotary[position_E][:, None], mask_EM[:, None, None], used)
        x_ED = self.dropout(x_ED)
        for block, cache_2EGMK in zip(self._blocks(), state["cache"].unbind(0), strict=True):
            x_ED = block.step(x_ED, cache_2EGMK, place)
        position_E += 1
        return self.norm(x_ED), state

    @torch.no_grad()
    def prefill(self, x_ESD: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads S observations into an initial state with one causal forward, h_ESD; the state is updated in place.

        Raises:
            ValueError: an environment has read something since its last reset (noticed on the CPU only).
        """
        if x_ESD.device.type == "cpu" and bool(state["position"].any()):
            raise ValueError("prefill begins at the first observation: every environment must have been reset")
        h_ESD, keys_values = self._read(x_ESD, 0)
        length = x_ESD.shape[1]
        for cache_2EGMK, (key_EGSK, value_EGSK) in zip(state["cache"], keys_values, strict=True):
            cache_2EGMK[0, :, :, :length] = key_EGSK
            cache_2EGMK[1, :, :, :length] = value_EGSK
        state["position"].fill_(length)
        return h_ESD, state

    @torch.no_grad()
    def prefill_apart(self, x_EPD: Tensor, length_E: Tensor, state: State) -> tuple[Tensor, State]:
        """As `Body.prefill_apart`, in one forward: causal attention never reads entries behind a row's end."""
        h_EPD, state = self.prefill(x_EPD, state)
        state["position"].copy_(length_E)
        return h_EPD[torch.arange(len(length_E), device=length_E.device), length_E - 1], state

    def reset(self, state: State, mask_E: Tensor) -> State:
        """Sets the position of the masked environments to 0, in place; old cache entries are never read again."""
        state["position"].masked_fill_(mask_E, 0)
        return state

    def _read(self, x_BSD: Tensor, first: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Features of the times from `first` on, and every block's key_BGSK and value_BGSK."""
        length = x_BSD.shape[1]
        if length > self.max_observations:
            raise UserError(self._too_long(f"{length} observations"))
        table_SP2 = self.rotary[:length]
        x_BSD = self.dropout(x_BSD)
        keys_values = []
        for block in self._blocks():
            # Later blocks read all times; only the last one may leave out the queries that nobody asked for.
            start = first if block is self.blocks[-1] else 0
            x_BSD, key_BGSK, value_BGSK = block(x_BSD, table_SP2, start)
            keys_values.append((key_BGSK, value_BGSK))
        return self.norm(x_BSD), keys_values

    def _blocks(self) -> Iterator[Block]:
        return cast("Iterator[Block]", iter(self.blocks))

    def _used(self, position_E: Tensor) -> int:
        """Slots of the cache that the next observation reads, at most."""
        # Asking an accelerator would wait for it: there all slots are read, and writing out of range fails by itself.
        used = int(position_E.max()) + 1 if position_E.device.type == "cpu" else self.max_observations
        if used > self.max_observations:
            raise UserError(self._too_long(f"{self.max_observations + 1} observations or more"))
        return used

    def _too_long(self, what: str) -> str:
        return (
            f"The transformer was given {what} of one episode; it reads at most {self.max_observations} "
            f"(network.context={self.context}, plus 1). Set network.context to the longest row of the environment "
            "(for text: prompt_length - 1 + horizon), or shorten the episodes."
        )
