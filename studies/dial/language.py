"""Replies of a shop to complaints: a small made-up language in which two aims conflict, and what the best replies are.

A reply is one phrase of each of `SLOTS`, chosen independently with the probabilities that stand there: terse and cool phrases
are common, warm ones rare. Two rewards are computed from the text alone:

    reward_warm    how many different words of `WARM` are in it      (a word that comes again earns nothing)
    reward_short   minus its characters

each moved and divided by fixed numbers, so that both have about mean 0 and deviation 1 over replies so written. There are 2,500
replies for each prompt, so the best one of any mixture of both is known (`best`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

ITEMS = ("lamp", "desk", "sofa", "vase", "fork", "ring", "bike", "tent", "door", "rug", "pen", "cup")
PROBLEMS = ("late", "lost", "bent", "wet", "loud", "torn", "cold", "small")
WARM = frozenset(["dear", "friend", "sorry", "truly", "glad", "love", "care", "thanks", "warm", "kind"])
SLOTS: tuple[tuple[tuple[str, float], ...], ...] = (
    (("hi, ", 0.5), ("hello, ", 0.3), ("dear you, ", 0.05), ("hi friend, ", 0.1), ("dear friend, ", 0.05)),
    (("", 0.5), ("bad luck. ", 0.2), ("sorry! ", 0.1), ("so sorry to hear. ", 0.15), ("truly sorry. ", 0.05)),
    (("new ITEM sent. ", 0.45), ("a ITEM is on its way. ", 0.35), ("glad to send a ITEM. ", 0.1), ("a ITEM, with love. ", 0.1)),
    (("", 0.55), ("see our shop. ", 0.2), ("we care. ", 0.1), ("take care, friend. ", 0.1), ("we truly care. ", 0.05)),
    (("bye.", 0.55), ("regards.", 0.2), ("thanks.", 0.1), ("warm thanks.", 0.05), ("kind regards.", 0.1)),
)
WARM_MEAN, WARM_UNIT = 1.5, 1.2  # words
SHORT_MEAN, SHORT_UNIT = 43.0, 11.0  # characters


class Reply(NamedTuple):
    """A reply, its rewards, and the probability with which it is written."""

    text: str
    warm: float
    short: float
    probability: float


def reward_warm(reply: str) -> float:
    """Different warm words."""
    return (len(WARM & set(reply.translate(str.maketrans(",.!", "   ")).split())) - WARM_MEAN) / WARM_UNIT


def reward_short(reply: str) -> float:
    """Minus the characters."""
    return (SHORT_MEAN - len(reply)) / SHORT_UNIT


def prompts() -> list[str]:
    """All prompts."""
    return [f"{item} {problem}? " for item in ITEMS for problem in PROBLEMS]


def item_of(prompt: str) -> str:
    """The item that a prompt is about."""
    return prompt.split()[0]


def replies(prompt: str) -> Iterator[Reply]:
    """All replies to a prompt."""
    for phrases in itertools.product(*SLOTS):
        text, probability = "", 1.0
        for phrase, share in phrases:
            text, probability = text + phrase.replace("ITEM", item_of(prompt)), probability * share
        yield Reply(text, reward_warm(text), reward_short(text), probability)


def written(prompt: str, draw: random.Random) -> str:
    """A reply, as the writers of the log write."""
    phrases = (draw.choices([p for p, _ in slot], [share for _, share in slot])[0] for slot in SLOTS)
    return "".join(phrases).replace("ITEM", item_of(prompt))


def best(prompt: str, weight_warm: float, weight_short: float) -> Reply:
    """The reply to a prompt that earns most of a mixture."""
    return max(replies(prompt), key=lambda reply: weight_warm * reply.warm + weight_short * reply.short)
