"""Layers shared by several bodies: rotary positions, causal attention, the transformer block; range checks.

Axes besides those of `dqnlm.types`: `G` attention heads, `K` features a head, `M` slots of a cache, `P` = K / 2 pairs.

Measured (a training step of 4 layers, width 128, 16 x 64 tokens, one CPU thread): RMSNorm is ten small kernels
on the CPU where LayerNorm is one (112 against 84 ms a step), hence the choice between them. Rotary pairs are neighbouring
features, turned by one complex multiplication, instead of distant halves (1.1 ms a layer less).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dqnlm.errors import UserError

MOST_LAYERS = 1000


def require_at_least(key: str, value: int, least: int) -> None:
    """Raises a UserError that names the configuration key when `value` is below `least`."""
    if value < least:
        raise UserError(f"{key} is {value}; the least is {least}. Set {key}={least} or more.")


def require_sizes(**sizes: int) -> None:
    """Raises a UserError where a size of a network is below 1, or has more layers than anyone trains."""
    for name, value in sizes.items():
        require_at_least(f"network.{name}", value, 1)
    if sizes["layers"] > MOST_LAYERS:  # each is built, one by one: nothing would end a greater number but the memory
        raise UserError(f"network.layers is {sizes['layers']:,}; the most is {MOST_LAYERS:,}. Set network.layers=6, for example.")


def require_share(key: str, value: float) -> None:
    """Raises a UserError that names the configuration key when `value` lies outside [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise UserError(f"{key} is {value}; it must be at least 0 and below 1. Set {key}=0.0 to turn it off.")


def make_norm(kind: str, width: int) -> nn.Module:
    """`rms`: RMSNorm (Zhang and Sennrich 2019); `layer`: LayerNorm without bias (Ba et al. 2016), faster on the CPU."""
    return nn.RMSNorm(width, eps=1e-6) if kind == "rms" else nn.LayerNorm(width, bias=False)


def rotary_table(positions: int, head_width: int, base: float = 10_000.0) -> Tensor:
    """Cosines and sines of rotary position embedding (Su et al. 2021, section 3.2.2); pair i is features 2i and 2i + 1.

    Args:
        positions: M, how many positions to prepare.
        head_width: K, even.
        base: the angle of pair i at position p is p / base^(2 i / K).

    Returns:
        table_MP2, float32: (cosine, sine). Real, because `module.to(dtype)` would drop the imaginary half.
    """
    rate_P = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle_MP = torch.outer(torch.arange(positions, dtype=torch.float64), rate_P)
    return torch.stack([angle_MP.cos(), angle_MP.sin()], -1).float()


def rotate(x_BSGK: Tensor, table_SP2: Tensor) -> Tensor:
    """Rotates every pair of features by the angle of its position.

    Args:
        x_BSGK: queries or keys.
        table_SP2: rows of `rotary_table`; with S = 1 also table_E1P2, one position an environment.

    Returns:
        The same shape and dtype; computed in float32 at least.
    """
    dtype = torch.promote_types(x_BSGK.dtype, torch.float32)
    if torch.compiler.is_compiling():  # compilers have no complex numbers, and fuse the real ones
        return _rotate_real(x_BSGK.to(dtype), table_SP2.to(dtype)).to(x_BSGK.dtype)
    turn = torch.view_as_complex(table_SP2.to(dtype)).unsqueeze(-2)
    pairs = torch.view_as_complex(x_BSGK.to(dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x_BSGK.dtype)


def _rotate_real(x_BSGK: Tensor, table_SP2: Tensor) -> Tensor:
    """`rotate` in real numbers: (x + iy)(cos + i sin) = (x cos - y sin) + i (x sin + y cos)."""
    x_BSGP, y_BSGP = x_BSGK.unflatten(-1, (-1, 2)).unbind(-1)
    cosine_S1P, sine_S1P = table_SP2.unsqueeze(-3).unbind(-1)
    turned = (x_BSGP * cosine_S1P - y_BSGP * sine_S1P, x_BSGP * sine_S1P + y_BSGP * cosine_S1P)
    return torch.stack(turned, -1).flatten(-2)


class CachePlace(NamedTuple):
    """Where in the cache the next observation of each environment stands; the same for all blocks.

    Attributes:
        row_E: 0, 1, ... E - 1.
        position_E: int64, slot of each environment's observation.
        table_E1P2: rows of `rotary_table`.
        mask_E11M: bool, slots that hold an observation, this one included; M = `used`.
        used: slots that are read, from the first; behind them no environment has anything.
    """

    row_E: Tensor
    position_E: Tensor
    table_E1P2: Tensor
    mask_E11M: Tensor
    used: int


class Attention(nn.Module):
    """Causal multi-head self-attention with rotary positions and one fused projection for query, key and value.

    Args:
        width: D, a multiple of 2 * `heads`.
        heads: G.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BSD: Tensor, table_SP2: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Attention of the times `first` .. S-1 to all up to themselves: y_B(S-first)D, and key_BGSK, value_BGSK."""
        query_BGSK, key_BGSK, value_BGSK = self._project(x_BSD, table_SP2)
        mask_SS = None
        if first:
            query_BGSK = query_BGSK[:, :, first:]
            time = torch.arange(x_BSD.shape[1], device=x_BSD.device)
            mask_SS = time <= time[first:, None]
        dropout = self.dropout if self.training else 0.0
        y_BGSK = functional.scaled_dot_product_attention(
            query_BGSK, key_BGSK, value_BGSK, mask_SS, dropout_p=dropout, is_causal=mask_SS is None
        )
        return self.out(y_BGSK.transpose(1, 2).flatten(2)), key_BGSK, value_BGSK

    def step(self, x_ED: Tensor, cache_2EGMK: Tensor, place: CachePlace) -> Tensor:
        """One observation an environment: y_ED. Its key and value are written into the cache at `place`."""
        query_EGSK, key_EGSK, value_EGSK = self._project(x_ED[:, None], place.table_E1P2)
        dtype = cache_2EGMK.dtype
        written_E2GK = torch.stack([key_EGSK[:, :, 0], value_EGSK[:, :, 0]], 1)
        cache_2EGMK[:, place.row_E, :, place.position_E] = written_E2GK.to(dtype)
        key_EGMK, value_EGMK = cache_2EGMK[:, :, :, : place.used].unbind(0)
        y_EGSK = functional.scaled_dot_product_attention(query_EGSK.to(dtype), key_EGMK, value_EGMK, place.mask_E11M)
        return self.out(y_EGSK.flatten(1).to(x_ED.dtype))

    def _project(self, x_BSD: Tensor, table_SP2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = x_BSD.shape[-1]
        both_BSD, value_BSD = self.qkv(x_BSD).split([2 * width, width], -1)
        both_BGSK = rotate(both_BSD.unflatten(-1, (2 * self.heads, -1)), table_SP2).transpose(1, 2)
        query_BGSK, key_BGSK = both_BGSK.chunk(2, 1)
        return query_BGSK, key_BGSK, value_BSD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x)) with a GELU layer four times as wide.

    Args:
        width: D.
        heads: G.
        dropout: share of attention weights and of residual updates dropped in training.
        norm: `rms` or `layer`.
        std: standard deviation of the first weights of layers that read the residual stream.
        residual_std: the same for layers that write to it.
    """

    def __init__(self, width: int, heads: int, dropout: float, norm: str, *, std: float, residual_std: float) -> None:
        super().__init__()
        self.attention_norm = make_norm(norm, width)
        self.attention = Attention(width, heads, dropout)
        self.mlp_norm = make_norm(norm, width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        for reading in (self.attention.qkv, self.up):
            nn.init.normal_(reading.weight, std=std)
        for writing in (self.attention.out, self.down):
            nn.init.normal_(writing.weight, std=residual_std)

    def forward(self, x_BSD: Tensor, table_SP2: Tensor, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """x_BSD -> y_B(S-first)D, and the keys and values of all S observations, BGSK."""
        y_BSD, key_BGSK, value_BGSK = self.attention(self.attention_norm(x_BSD), table_SP2, first)
        return self._mlp(x_BSD[:, first:] + self.dropout(y_BSD)), key_BGSK, value_BGSK

    def step(self, x_ED: Tensor, cache_2EGMK: Tensor, place: CachePlace) -> Tensor:
        """One observation an environment: x_ED -> y_ED; the cache is written in place."""
        y_ED = self.attention.step(self.attention_norm(x_ED), cache_2EGMK, place)
        return self._mlp(x_ED + self.dropout(y_ED))

    def _mlp(self, x_BSD: Tensor) -> Tensor:
        return x_BSD + self.dropout(self.down(functional.gelu(self.up(self.mlp_norm(x_BSD)))))
