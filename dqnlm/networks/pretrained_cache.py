"""A key-value cache for models of transformers with a separate position for each row.

The library's caches append one column for all rows. Here each row writes at its own position, and a mask of four axes hides
later slots, so that a row is reset by setting its position to 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class RowLayer(DynamicLayer):
    """One layer's preallocated keys and values, (E, G, M, K) each; `update` writes one column.

    Args:
        key_EGMK, value_EGMK: written in place.
        position_E: the column of each row that is written.
    """

    def __init__(self, key_EGMK: Tensor, value_EGMK: Tensor, position_E: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.position_E = key_EGMK, value_EGMK, position_E
        self.dtype, self.device = key_EGMK.dtype, key_EGMK.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes one new column per row, (E, G, 1, K) each; returns all columns."""
        row_E = torch.arange(key_states.shape[0], device=key_states.device)
        assert self.keys is not None and self.values is not None
        self.keys[row_E, :, self.position_E] = key_states[:, :, 0].to(self.keys.dtype)
        self.values[row_E, :, self.position_E] = value_states[:, :, 0].to(self.values.dtype)
        return self.keys.to(key_states.dtype), self.values.to(value_states.dtype)


def row_cache(layers: list[tuple[Tensor, Tensor]], position_E: Tensor) -> Cache:
    """Builds a cache over given memory, for one step."""
    return Cache(layers=[RowLayer(key, value, position_E) for key, value in layers])


def column_mask(position_E: Tensor, slots: int, dtype: torch.dtype) -> Tensor:
    """(E, 1, 1, M), to be added to attention scores: 0 up to each row's position, the most negative number beyond."""
    slot_M = torch.arange(slots, device=position_E.device)
    hidden_EM = slot_M > position_E[:, None]
    return torch.zeros(hidden_EM.shape, dtype=dtype, device=position_E.device).masked_fill_(
        hidden_EM, torch.finfo(dtype).min
    )[:, None, None]


def keys_and_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, BGSK.

    Raises:
        TypeError: a layer keeps something else (a recurrent state, a sliding window).
    """
    found = []
    for layer in cache.layers:
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None or layer.keys.dim() != 4:
            raise TypeError(f"a layer keeps a {type(layer).__name__}")
        found.append((layer.keys, layer.values))
    return found
