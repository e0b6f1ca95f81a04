"""The partner in Wordle: draws the secret word and gives the feedback; rules in dqnlm/problems/wordle.py."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.partners.base import Answer, Partner
from dqnlm.problems import wordle, wordle_players, wordle_words
from dqnlm.problems.wordle_letters import LegalLetters
from dqnlm.types import Bounds
from dqnlm.utils.context import RunContext
from dqnlm.utils.paths import PathOrName


class Wordle(Partner):
    """Draws a secret word for each game, uniformly from the list, and answers each guess with its feedback.

    Args:
        dialogues: games at once.
        seed: of the generator that draws the secrets.
        evaluating: game i has the i-th word of the list as its secret (modulo), every time.
        words: which list, see `wordle_words.word_list`.
        legal_words: whether guesses are restricted to the words of the list, letter by letter.

    Raises:
        UserError: a list that cannot be read or has a line that is no such word.
    """

    guesses_words = True  # `dqnlm chat` plays the game with a person
    alphabet = wordle.ALPHABET
    longest_opening = len(wordle.OPENING)
    longest_answer = wordle.UTTERANCE_LENGTH
    reward_bounds = Bounds(wordle.TURN_REWARD, wordle.SOLVED_REWARD)

    def __init__(
        self, dialogues: int, seed: int, evaluating: bool, *, words: Literal["auto", "bundled"] | PathOrName, legal_words: bool
    ) -> None:
        self.list_name = words
        self.words, self.origin = wordle_words.word_list(words)
        self._known = frozenset(self.words)
        self._letters = LegalLetters(self.words) if legal_words else None
        self.evaluating = evaluating
        self._generator = torch.Generator().manual_seed(seed)
        self._secret = [i % len(self.words) for i in range(dialogues)]  # of each game, its number in the list

    def check(self, context: RunContext) -> None:
        """See `Partner.check`.

        Raises:
            UserError: the logged games have another list of words.
        """
        logged = context.data.get("words")
        if logged not in (None, self.list_name):
            raise UserError(
                f"data.words={logged} logs games with another list than env.partner.words={self.list_name} plays; set both alike"
            )

    def begin(self, places: list[int]) -> list[str]:
        if not self.evaluating:
            drawn = torch.randint(len(self.words), (len(places),), generator=self._generator).tolist()
            for place, number in zip(places, drawn, strict=True):
                self._secret[place] = number
        return [wordle.OPENING] * len(places)

    def answer(self, places: list[int], utterances: list[str]) -> list[Answer]:
        answers = []
        for place, utterance in zip(places, utterances, strict=True):
            answers.append(Answer(*wordle.judge(self.words[self._secret[place]], utterance, self._known)))
        return answers

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        return None if self._letters is None else self._letters.of_rows(observation_BS)

    def legal_next(self, written: Sequence[str | None]) -> Tensor | None:
        return None if self._letters is None else self._letters.of_guesses(written)

    def references(self) -> dict[str, float]:
        """Mean return of a player who knows the list and splits it best with each guess, and of random guesses."""
        return {
            "knows the list": wordle_players.Searcher(self.words, 1).mean_return(),
            "random words": wordle_players.random_return(len(self.words), wordle.TRIES),
        }

    def notes(self) -> list[str]:
        told = "" if self._letters is None else "; each guess is restricted to them, letter by letter (env.partner.legal_words)"
        return [f"Wordle is played with {self.origin}{told}."]

    def contents(self) -> dict[str, str]:
        return {"words": hashlib.sha256(" ".join(self.words).encode()).hexdigest()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "words": " ".join(self.words), "secret": list(self._secret), "generator": self._generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where the word list differs from the saved one."""
        if state["words"] != " ".join(self.words):
            raise UserError(
                f"Wordle was played with another list of {len(state['words'].split())} words; now there are {self.origin}. Put "
                "the list back, or name where it lies now with env.partner.words=FILE (and data.words=FILE where logged games "
                "are learned from)"
            )
        self._secret = list(state["secret"])
        self._generator.set_state(state["generator"].cpu())
