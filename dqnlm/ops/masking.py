"""Selecting between two tensors by a mask over rows."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_where(mask_E: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` in the rows where the mask is True, `old` elsewhere.

    Args:
        mask_E: bool.
        new: (E, ...), any dtype.
        old: as `new`; where both are the same object, it is returned without work.
    """
    return new if new is old else torch.where(mask_E.view(-1, *[1] * (new.dim() - 1)), new, old)
