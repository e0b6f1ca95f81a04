"""Rewards built from plain configurations, and slow oracles for them; used by test_rewards.py."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dqnlm.rewards.base import Reward
from dqnlm.rewards.exact_match import ExactMatch
from dqnlm.rewards.mixture import Mixture
from dqnlm.rewards.similarity import build_similarity

A = 3  # few tokens, so that matches, repeats and clipped counts are common


def build(config: dict[str, Any], num_actions: int = A) -> Reward:
    """What the builder does with a reward group."""
    options = {key: value for key, value in config.items() if key != "_target_"}
    if config["_target_"].endswith("Mixture"):
        return Mixture(num_actions, lambda part: build(part, num_actions), **options)
    maker: dict[str, Callable[..., Reward]] = {"ExactMatch": ExactMatch, "build_similarity": build_similarity}
    return maker[config["_target_"].rsplit(".", 1)[1]](num_actions, **options)


EXACT = {"_target_": "dqnlm.rewards.exact_match.ExactMatch", "match": 1.0, "mismatch": -0.25}
EDIT = {"_target_": "dqnlm.rewards.similarity.build_similarity", "kind": "edit", "max_n": None}
NGRAM = {"_target_": "dqnlm.rewards.similarity.build_similarity", "kind": "ngram_f1", "max_n": 3}
MIXTURE = {
    "_target_": "dqnlm.rewards.mixture.Mixture",
    "parts": {"exact": {**EXACT, "weight": 2.0}, "edit": {**EDIT, "weight": -0.5}, "grams": {**NGRAM, "weight": 1}},
}


def levenshtein(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        swap = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
        table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, swap)
    return table[-1][-1]


def ngram_f1(said: list[int], reference: list[int], max_n: int) -> float:
    total = 0.0
    for n in range(1, max_n + 1):
        left, right = (Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (said, reference))
        total += 2 * sum((left & right).values()) / (sum(left.values()) + sum(right.values()))
    return total / max_n


def similarity(config: dict[str, Any], said: list[int], reference: list[int]) -> float:
    if config["kind"] == "edit":
        return 1 - levenshtein(said, reference) / max(len(said), len(reference))
    return ngram_f1(said, reference, config["max_n"])


def oracle(config: dict[str, Any], said: list[int], reference: list[int]) -> float:
    """The reward of the last token of `said`."""
    if "parts" in config:
        return sum(part["weight"] * oracle(part, said, reference) for part in config["parts"].values())
    if "match" in config:
        return config["match"] if said[-1] == reference[len(said) - 1] else config["mismatch"]
    return similarity(config, said, reference) - similarity(config, said[:-1], reference)


def random_ids(*shape: int, seed: int) -> Tensor:
    return torch.randint(A, shape, generator=torch.Generator().manual_seed(seed))
