"""Masks over rows and over the decisions of a row."""

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


def after_burn_in(learn_BT: Tensor, burn_in: int) -> Tensor:
    """`learn_BT` (float, 1 at learned decisions) without the first `burn_in` of each row (Kapturowski et al. 2019)."""
    return learn_BT if burn_in == 0 else learn_BT * (learn_BT.cumsum(1) > burn_in)
