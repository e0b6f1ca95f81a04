"""Diversity of generated texts: distinct-n and the share of the most frequent token."""

from __future__ import annotations

import torch


def distinct_share(tokens: list[list[int]], n: int) -> float:
    """distinct-n (Li et al. 2016): different n-grams over all n-grams of the texts together; 0 where there are none."""
    grams = [tuple(text[i : i + n]) for text in tokens for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def top_token_share(tokens: list[list[int]]) -> float:
    """Share of the most frequent token among all."""
    flat = torch.tensor([t for text in tokens for t in text], dtype=torch.int64)
    return float(flat.bincount().max() / len(flat)) if len(flat) else 0.0
