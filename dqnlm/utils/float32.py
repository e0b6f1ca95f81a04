"""Numbers of users' code, which the tensors of a run hold in 32 bits."""

from __future__ import annotations

import math
from typing import SupportsFloat

GREATEST = 3.4028234663852886e38


def as_float(value: SupportsFloat) -> float:
    """The number as Python's float; an integer beyond all of these is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
