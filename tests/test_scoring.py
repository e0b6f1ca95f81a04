"""Held-out text is scored whole: every position once, in order."""

from __future__ import annotations

import pytest
import torch

from dqnlm.text_positions import windows


@pytest.mark.parametrize("lookback", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("length", [1, 4, 5, 8, 23, 24])
def test_every_position_is_scored_once_after_what_stands_before_it(length: int, lookback: int) -> None:
    """Guards against dropped ends, positions scored twice, and windows that begin without their lookback."""
    inputs, scored = torch.arange(length), []
    for block_BS, first in windows(inputs, 4, lookback):
        for row in block_BS:
            assert (row[1:] == row[:-1] + 1).all()
            assert first == min(lookback, int(row[first]) if first else 0)
            scored += row[first:].tolist()
    assert scored == list(range(length))
