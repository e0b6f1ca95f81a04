"""Which characters may follow in a game of Wordle whose guesses are words of the list: a trie, read as an automaton."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dqnlm.problems.wordle import ALPHABET, LINE_BREAK


class LegalLetters:
    """The letters that continue a guess to a word of the list, and after its last letter the line break.

    A state is the guess so far. In two more states nothing is ruled out: while an answer is read, and behind letters that no
    word of the list begins with. An answer ends with its line break, and the next guess begins.

    Args:
        words: of the list, letters of ALPHABET each.
        alphabet: the A characters; ids are places in it.
    """

    def __init__(self, words: Sequence[str], alphabet: str = ALPHABET) -> None:
        self._reading, self._unknown = 0, 1
        utterances = [word + LINE_BREAK for word in words]
        begun = sorted({utterance[:end] for utterance in utterances for end in range(len(utterance))})
        self._state = {prefix: 2 + i for i, prefix in enumerate(begun)}
        number, size = {character: i for i, character in enumerate(alphabet)}, len(alphabet)
        self.legal_NA = torch.zeros(2 + len(begun), size, dtype=torch.bool)
        self.legal_NA[: self._unknown + 1] = True
        self._next_NA = torch.full((2 + len(begun), size), self._unknown)
        self._next_NA[self._reading] = self._reading
        self._next_NA[self._reading, number[LINE_BREAK]] = self._state[""]
        self._next_NA[self._unknown, number[LINE_BREAK]] = self._reading
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}
        for prefix in (utterance[:end] for utterance in utterances for end in range(1, len(utterance) + 1)):
            state, last = self._state[prefix[:-1]], number[prefix[-1]]
            self.legal_NA[state, last] = True
            self._next_NA[state, last] = self._state.get(prefix, self._reading)

    def of_rows(self, observation_BS: Tensor) -> Tensor:
        """legal_BSA, bool: what may follow each character (int64 ids) of games that are read from their opening on."""
        next_NA, legal_NA = self._tables(observation_BS.device)
        state_B = torch.full_like(observation_BS[:, 0], self._reading)
        states = []
        for character_B in observation_BS.unbind(1):
            state_B = next_NA[state_B, character_B]
            states.append(state_B)
        return legal_NA[torch.stack(states, 1)]

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both tables where the rows lie, copied there once."""
        if device not in self._on:
            self._on[device] = self._next_NA.to(device), self.legal_NA.to(device)
        return self._on[device]

    def of_guesses(self, written: Sequence[str | None]) -> Tensor:
        """legal_EA, bool: what may follow each guess so far; everything for None, where an answer is being read."""
        states = [self._reading if text is None else self._state.get(text, self._unknown) for text in written]
        return self.legal_NA[torch.tensor(states, dtype=torch.int64)]
