"""The shape of what a part answers, checked where a user may write the part."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dqnlm.errors import UserError


def require_shape(tensor: Any, shape: Sequence[int], what: str) -> None:
    """Refuses an answer of another shape, which would be broadcast and train something else, or fail far from its cause.

    Args:
        tensor: the answer of a part that a user may write.
        shape: the shape of its contract.
        what: the answer in words, with its axes, such as `my_rewards.Fresh: reward_E of _advance`.

    Raises:
        UserError: it is no tensor, of another shape, or of another type than floating-point numbers.
    """
    if not isinstance(tensor, Tensor):
        raise UserError(f"{what} is {tensor!r:.60}, where a tensor of the shape {tuple(shape)} is meant")
    if not tensor.is_floating_point():
        raise UserError(f"{what} has the type {tensor.dtype}, where a floating-point type is meant: add .float()")
    if tuple(tensor.shape) != tuple(shape):
        raise UserError(f"{what} has the shape {tuple(tensor.shape)}, where {tuple(shape)} is meant")


def full_name(part: object) -> str:
    """`module.Class` of an object, as `_target_` writes it, and the file that holds it."""
    file = getattr(sys.modules.get(type(part).__module__), "__file__", None)
    return f"{type(part).__module__}.{type(part).__qualname__}{f' ({file})' if file else ''}"
