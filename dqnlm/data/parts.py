"""The three parts of the data: training sees the first, evaluations of a run the second, `dqnlm eval` the third.

`heldout_fraction` is the share that is never trained on; `test_fraction` the share of that, at its end, that no evaluation
during training reads and that chooses nothing. By default .1 and .5: 90 % training, 5 % validation, 5 % test.
"""

from __future__ import annotations

from math import floor
from typing import Literal

from dqnlm.errors import UserError

Part = Literal["train", "validation", "test"]  # what a policy is scored on


def first_of_test(heldout: int, test_fraction: float) -> int:
    """The number of the `heldout` items, from the first, that are the validation part; the rest is the test part.

    Raises:
        UserError: the fraction is not in [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise UserError(
            f"data.test_fraction is the share of the held-out part that is kept for the test, 0 or more and below 1, not "
            f"{test_fraction}"
        )
    # The small term keeps a whole number whole: 10 * (1 - 0.9) is 0.99999... in floating point.
    return floor(heldout * (1 - test_fraction) + 1e-9)
