"""Wordle players that know the word list: the behaviour policy of the log, and a search that bounds optimal play.

Feedback as a number: the base-3 digits of its characters, 0 absent, 1 elsewhere, 2 at its place; all `G` is 242.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dqnlm.problems import wordle

LATEST_LOOK = 8  # a logged game is played blindly before a turn that is drawn from 2 to here
SOLVED = 3**wordle.LENGTH - 1


class Turn(NamedTuple):
    """One try: the text written, and the verdict on it."""

    utterance: str
    verdict: wordle.Verdict


def feedback_table(words: Sequence[str]) -> NDArray[np.uint8]:
    """code_GS: the feedback's number for each guess G and secret S, both of `words`."""
    letter_NL = np.array([[ord(c) for c in word] for word in words])
    code_GS = np.zeros((len(words), len(words)), np.int64)
    for place in range(wordle.LENGTH):
        guessed_G1 = letter_NL[:, place, None]
        here_GS = guessed_G1 == letter_NL[None, :, place]
        anywhere_GS = (guessed_G1[:, None] == letter_NL[None]).any(-1)
        code_GS = 3 * code_GS + np.where(here_GS, 2, anywhere_GS.astype(np.int64))
    return code_GS.astype(np.uint8)


def random_return(words: int, tries: int) -> float:
    """Mean return when each guess is any word of the list: -sum over k = 1..tries of P(the first k fail)."""
    return -sum((1 - 1 / words) ** k for k in range(1, tries + 1))


def logged_games(seed: int, games: int, words: Sequence[str]) -> Iterator[list[Turn]]:
    """Games of a suboptimal behaviour policy, which ignores the answers in its first turns.

    From a turn on that is drawn for each game, evenly from 2 to `LATEST_LOOK`, each guess is a random one of the words that
    fit all answers so far. Before that it is any word, and one in 50 of these is misspelt (one letter drawn anew, so that
    it mostly is no word).

    Args:
        seed: of the games; the same seed gives the same games, and more of them the same first ones.
        games: how many.
        words: the list; the secret is one of them, drawn evenly.
    """
    source, code_GS = random.Random(seed), feedback_table(words)
    known, every = dict.fromkeys(words), np.arange(len(words))
    place = {word: i for i, word in enumerate(words)}
    for _ in range(games):
        secret, looks_from = source.choice(words), source.randint(2, LATEST_LOOK)
        fitting, turns = every, list[Turn]()
        while len(turns) < wordle.TRIES and not (turns and turns[-1].verdict.solved):
            looks = len(turns) + 1 >= looks_from
            guess = words[int(source.choice(fitting))] if looks else source.choice(words)
            if not looks and source.random() < 0.02:
                at = source.randrange(wordle.LENGTH)
                guess = guess[:at] + source.choice(wordle.LETTERS) + guess[at + 1 :]
            turns.append(Turn(guess + wordle.LINE_BREAK, wordle.judge(secret, guess + wordle.LINE_BREAK, known)))
            if guess in known:
                code_S = code_GS[place[guess]]
                fitting = fitting[code_S[fitting] == code_S[place[secret]]]
        yield turns


class Searcher:
    """Least total of turns over all secrets, searching the `width` most promising guesses at each node.

    A guess is promising when the classes into which it divides the remaining words are small (least expected size;
    of equals one that may itself be the word). With `width` 1 this is the greedy player; with all words it is exact. The
    result is the return of one fixed player, so optimal play is at least as good.

    Args:
        words: the list; every secret is equally likely.
        width: guesses tried at each point.
    """

    def __init__(self, words: Sequence[str], width: int) -> None:
        self.width, self.code_GS = width, feedback_table(words)
        self._known: dict[tuple[bytes, int], float] = {}

    def mean_return(self, progress: Callable[[int, int], None] = lambda done, total: None) -> float:
        """Mean return over all secrets; `progress(done, total)` is called after each first guess."""
        every_S = np.arange(len(self.code_GS))
        first, best = self._guesses(every_S), float("-inf")
        for done, guess in enumerate(first, 1):
            best = max(best, self._after(int(guess), every_S, wordle.TRIES, best))
            progress(done, len(first))
        return best / len(every_S)

    def _value(self, fitting_S: NDArray[np.int64], tries: int) -> float:
        """Greatest total return over the remaining secrets, with this number of tries left."""
        if tries == 0:
            return 0.0
        if len(fitting_S) <= 2:  # name one, then the other
            return wordle.TURN_REWARD * (len(fitting_S) - 1)
        key = (fitting_S.tobytes(), tries)
        if key not in self._known:
            best = float("-inf")
            for guess in self._guesses(fitting_S):
                best = max(best, self._after(int(guess), fitting_S, tries, best))
            self._known[key] = best
        return self._known[key]

    def _guesses(self, fitting_S: NDArray[np.int64]) -> NDArray[np.int64]:
        """The `width` most promising guesses, best first."""
        code_GF = self.code_GS[:, fitting_S].astype(np.int64)
        offset_G1 = np.arange(len(code_GF))[:, None] * (SOLVED + 1)
        size_GK = np.bincount((code_GF + offset_G1).ravel(), minlength=len(code_GF) * (SOLVED + 1))
        size_GK = size_GK.reshape(len(code_GF), -1).astype(np.float64)
        expected_G = (size_GK**2).sum(1) - 0.5 * size_GK[:, SOLVED]
        return np.argsort(expected_G, kind="stable")[: self.width]

    def _after(self, guess: int, fitting_S: NDArray[np.int64], tries: int, least: float) -> float:
        """Total return after this guess; -inf as soon as it cannot exceed `least`."""
        code_F = self.code_GS[guess, fitting_S]
        classes = [fitting_S[code_F == code] for code in np.unique(code_F) if code != SOLVED]
        if any(len(members) == len(fitting_S) for members in classes):
            return float("-inf")  # nothing was learned
        left = sum(len(members) for members in classes)
        # In each class at best one secret is named next, and every other takes a turn more.
        bound = -float(left) - (left - len(classes)) * (tries > 1)
        if bound <= least:
            return float("-inf")
        total = -float(left)
        for members in classes:
            total += self._value(members, tries - 1)
        return total
