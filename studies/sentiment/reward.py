"""The reward of the study: the sentiment of a completion by VADER (Hutto and Gilbert 2014), from -1 to 1."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def score(prompts: list[str], completions: list[str], references: list[str]) -> list[float]:
    """VADER's compound score of each completion alone."""
    return [float(_analyzer().polarity_scores(completion)["compound"]) for completion in completions]
