"""Baselines of text: uniform, unigram and bigram models of the training part."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def baselines(train_ids: Tensor, heldout_ids: Tensor, vocabulary_size: int) -> dict[str, tuple[float, float]]:
    """Accuracy of the most likely next token, and nats per token, on every held-out position but the first.

    The n-gram models add one to every count (Laplace). Uniform: its accuracy is that of a blind guess, 1 / A.

    Args:
        train_ids: 1-D token ids.
        heldout_ids: 1-D token ids, at least two.

    Returns:
        name -> (accuracy, nats).
    """
    train, heldout = train_ids.long(), heldout_ids.long()
    before, after = heldout[:-1], heldout[1:]
    unigram_A = torch.bincount(train, minlength=vocabulary_size).double() + 1
    result = {"uniform": (1.0 / vocabulary_size, math.log(vocabulary_size))}
    log_A = (unigram_A / unigram_A.sum()).log()
    result["unigram"] = (float((after == unigram_A.argmax()).float().mean()), float(-log_A[after].mean()))
    if vocabulary_size > 4096:
        return result  # the dense table of pairs would be large and mostly zeros
    pair = train[:-1] * vocabulary_size + train[1:]
    bigram_AA = torch.bincount(pair, minlength=vocabulary_size**2).view(vocabulary_size, vocabulary_size).double() + 1
    log_AA = (bigram_AA / bigram_AA.sum(1, keepdim=True)).log()
    hit = bigram_AA.argmax(1)[before] == after
    result["bigram"] = (float(hit.float().mean()), float(-log_AA[before, after].mean()))
    return result
