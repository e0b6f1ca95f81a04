"""Wordle as in LMRL-Gym (Abdulhai et al. 2023): guess a secret five-letter word in six tries.

Each letter of a guess gets a mark: `G` it is at its place, `Y` it is elsewhere in the word, `B` it is not in the word.
Repeats are not counted: each `e` of `eerie` is `Y` or `G` where the secret has any. The answer repeats the guess with each
letter written by its mark, so that one character gives the letter and its mark:

    crane
    C⒭ⓐ⒩E      c and e are at their places (capitals), a is elsewhere (in a circle), r and n are not in it (in brackets)

A turn has reward -1, or 0 when it solves the word, which ends the game. A guess outside the list uses a try, has reward
-1, and is answered by an empty line.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LENGTH = 5  # letters in a word
TRIES = 6
HERE, ELSEWHERE, ABSENT = "G", "Y", "B"
# How a letter with a mark is written: A-Z; a-z in circles (from U+24D0); a-z in brackets (from U+249C).
FIRST_OF = {HERE: ord("A"), ELSEWHERE: 0x24D0, ABSENT: 0x249C}
MARKED = {mark: "".join(chr(first + i) for i in range(26)) for mark, first in FIRST_OF.items()}
LINE_BREAK = "\n"
OPENING = LINE_BREAK  # what stands on the page before the first guess
ALPHABET = "".join(sorted([LINE_BREAK, *LETTERS, *"".join(MARKED.values())]))
UTTERANCE_LENGTH = LENGTH + 1  # a guess and its line break
TURN_REWARD, SOLVED_REWARD = -1.0, 0.0


class Verdict(NamedTuple):
    """The result of a guess: the answer with its line break ("" when the game is over), the reward, and success.
    """

    answer: str
    reward: float
    solved: bool


def feedback(secret: str, guess: str) -> str:
    """The mark of each letter of the guess."""
    return "".join(
        HERE if letter == at else ELSEWHERE if letter in secret else ABSENT
        for letter, at in zip(guess, secret, strict=True)
    )


def answer_to(guess: str, marks: str) -> str:
    """The line that answers a guess: its letters, written by their marks."""
    return "".join(MARKED[mark][LETTERS.index(letter)] for letter, mark in zip(guess, marks, strict=True)) + LINE_BREAK


def word_of(utterance: str) -> str | None:
    """The five letters before a closing line break; None for any other text."""
    word = utterance.removesuffix(LINE_BREAK)
    if word == utterance or len(word) != LENGTH or not set(word) <= set(LETTERS):
        return None
    return word


def judge(secret: str, utterance: str, words: Collection[str]) -> Verdict:
    """The verdict on one try, by the rules above.

    Args:
        secret: one of `words`.
        utterance: the guess as written, its line break included.
        words: the allowed guesses; a set or a dictionary, as it is asked for each guess.
    """
    word = word_of(utterance)
    if word is None or word not in words:
        return Verdict(LINE_BREAK, TURN_REWARD, False)
    if word == secret:
        return Verdict("", SOLVED_REWARD, True)
    return Verdict(answer_to(word, feedback(secret, word)), TURN_REWARD, False)


def candidates(words: Collection[str], guesses: list[tuple[str, str]]) -> list[str]:
    """Words that are consistent with all answers so far.

    Args:
        words: all words.
        guesses: (guess, feedback without its line break) of the tries that were answered.
    """
    return [word for word in words if all(feedback(word, guess) == answer for guess, answer in guesses)]
