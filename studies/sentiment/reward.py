"""The reward of the study: the sentiment of a completion by VADER (Hutto and Gilbert 2014), from -1 to 1.

    reward=function reward.path=studies/sentiment/reward.py:score reward.low=-1 reward.high=1
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _analyzer() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the sentiment needs the package vaderSentiment: pip install vaderSentiment, or the extra `sentiment` of dqnlm"
        ) from error
    return SentimentIntensityAnalyzer()


def score(prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
    """VADER's compound score of each completion alone: the prompt's words do not count."""
    return [float(_analyzer().polarity_scores(completion)["compound"]) for completion in completions]
