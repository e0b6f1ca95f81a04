"""Independent random streams of one run, each seeded by seed * 1000 + the stream's number."""

from __future__ import annotations

import torch

ENV, EXPLORATION, BUFFER, EVALUATION, PRETRAINING, DEMONSTRATIONS = 1, 2, 3, 4, 5, 6


def seed_of(seed: int, number: int) -> int:
    """The seed of one stream of the run with `seed`."""
    return seed * 1000 + number


def stream(device: torch.device, seed: int, number: int) -> torch.Generator:
    """A random generator for one use."""
    return torch.Generator(device).manual_seed(seed_of(seed, number))
