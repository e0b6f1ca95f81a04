"""Figures of answers to prompts with references: each answer is compared with the reference of its own prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqnlm.data.tokenizers.base import CharacterTokenizer
from dqnlm.evaluation.answers import PairEvaluator
from dqnlm.evaluation.scores import scores

REFERENCES = ["aaaa aaab", "bbbb bbba", "cccc ccca", "never asked"]


def figures(answers: list[str]) -> dict[str, float]:
    tokenizer = CharacterTokenizer("".join(REFERENCES) + "\n")
    texts = [tokenizer.encode(answer + "\n").tolist() for answer in answers]
    nothing_E = torch.zeros(len(answers))
    collector: Any = SimpleNamespace(returns=lambda: nothing_E, steps=lambda: nothing_E, texts=lambda: texts)
    policy: Any = SimpleNamespace(tokenizer=tokenizer)
    env: Any = SimpleNamespace(references=dict)
    return PairEvaluator(lambda: env, 1.0, [], 1, False, REFERENCES)._metrics(collector, policy)


def test_each_answer_is_compared_with_its_own_reference() -> None:
    """Bug: references in another order, those of prompts that were not asked, or the line break as part of an answer."""
    right, turned = figures(REFERENCES[:3]), figures([*REFERENCES[1:3], REFERENCES[0]])
    assert right["eval/chrf"] == pytest.approx(100.0) and right["eval/length_ratio"] == 1.0
    assert turned["eval/chrf"] < 50 and turned["eval/length_ratio"] == 1.0
    assert figures(["aaaa", "bbbb", "cccc"])["eval/length_ratio"] == pytest.approx(12 / 27)
    # chrF2 weighs recall twice: what an answer lacks costs more than what it has beside the reference.
    short, long = scores(["abcd"], ["abcdefgh"])[0], scores(["abcdefgh"], ["abcd"])[0]
    assert short["eval/chrf"] < long["eval/chrf"] - 1
