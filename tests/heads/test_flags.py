"""Flags of the heads."""

from __future__ import annotations

import pytest
import torch

from dqnlm.heads.base import Head
from dqnlm.heads.categorical import Categorical
from dqnlm.heads.normalised import Normalised
from dqnlm.heads.quantile import Quantile
from dqnlm.heads.scalar import Scalar
from dqnlm.types import Bounds

BOUNDS = Bounds(-2.0, 3.0)
HEADS = [
    Scalar(BOUNDS, False, loss="logistic", initial_return=None), Scalar(BOUNDS, False, loss="huber", initial_return=1.0),
    Normalised(Bounds(0.0, 3.0), True, value_weight=1.0), Categorical(BOUNDS, low=None, high=None, num_atoms=5, temperature=None),
    Categorical(BOUNDS, low=-9.0, high=9.0, num_atoms=5, temperature=None), Quantile(BOUNDS, num_quantiles=5, kappa=1.0),
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_flags_tell_what_the_head_does(head: Head) -> None:
    """Bug: rewards are added to where Q is clamped by their bounds, or logits are cloned into numbers that are no Q."""
    raw_XAN = 50 * torch.randn(200, 4, head.num_parameters, generator=torch.Generator().manual_seed(0))
    q_XA = head.value(raw_XAN)
    low, high = (-2.0, 3.0) if type(head) is not Normalised else (0.0, 3.0)
    assert head.is_scaled_by_bounds == bool(((q_XA >= low) & (q_XA <= high)).all())
    if head.num_parameters == 1:
        offset_XA = q_XA - raw_XAN[..., 0]
        assert head.raw_is_q == torch.allclose(offset_XA, offset_XA[:1, :1].expand_as(offset_XA), atol=1e-4)
    assert head.is_distributional == hasattr(head, "atoms")
