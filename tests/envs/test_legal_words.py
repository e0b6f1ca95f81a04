"""Guesses that are restricted to the words of the list: the mask of letters against a naive search of the list."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from dqnlm.envs.dialogue import Dialogue
from dqnlm.partners.wordle import Wordle
from dqnlm.problems import wordle, wordle_words
from dqnlm.problems.wordle_letters import LegalLetters
from dqnlm.types import DECISION

WORDS = wordle_words.WORDS


def make(num_envs: int, legal_words: bool = True) -> Dialogue:
    settings: dict[str, Any] = {"num_envs": num_envs, "utterance_length": 6, "max_turns": 6, "partner": {}}
    return Dialogue(
        torch.device("cpu"), lambda node: Wordle(num_envs, 0, False, words="bundled", legal_words=legal_words), **settings
    )


def naive(page: str) -> list[bool]:
    """What may follow the page: lines are guesses and answers by turns, behind the opening."""
    *lines, begun = page.split("\n")
    if len(lines) % 2 == 0:  # the opening and as many guesses as answers: an answer is being read
        return [True] * len(wordle.ALPHABET)
    following = {(word + "\n")[len(begun)] for word in WORDS if word.startswith(begun)}
    return [character in following for character in wordle.ALPHABET]


def play(env: Dialogue, steps: int) -> tuple[list[str], list[tuple[str, Tensor, bool]]]:
    """Random legal characters: the utterances, and at each step (page, mask of the environment, whether it was a decision)."""
    generator = torch.Generator().manual_seed(0)
    pages = [env.alphabet[int(i)] for i in env.reset()]
    said, asked = [""] * env.num_envs, []
    finished = []
    for _ in range(steps):
        legal_EA = env.legal_next(torch.zeros(env.num_envs, dtype=torch.int64))
        assert legal_EA is not None
        action_E = torch.multinomial(legal_EA.float(), 1, generator=generator)[:, 0]
        step = env.step(action_E)
        for e in range(env.num_envs):
            decision = bool(step.flag_E[e] & DECISION)
            asked.append((pages[e], legal_EA[e], decision))
            character = env.alphabet[int(step.observation_E[e])]
            pages[e] += character
            said[e] += character if decision else ""
            if said[e].endswith("\n"):
                finished.append(said[e])
                said[e] = ""
            if step.episode_end_E[e]:
                pages[e], said[e] = env.alphabet[int(step.next_observation_E[e])], ""
    return finished, asked


def test_only_words_of_the_list_are_written() -> None:
    """Bug: a prefix that no word has, a word without its line break, a mask that is one letter late."""
    finished, asked = play(make(8), 200)
    assert len(finished) > 100 and all(word.removesuffix("\n") in WORDS for word in finished)
    assert len(set(finished)) > 50  # not one path of the trie alone
    for page, legal_A, _ in asked:  # where the partner speaks nothing is ruled out, in play as in rows
        assert legal_A.tolist() == naive(page), page


def test_rows_are_masked_as_the_game_was() -> None:
    """Bug: learning under another mask than acting. Rows are whole pages; what is asked at each character is compared."""
    _, asked = play(make(4), 150)
    env = make(1)
    for page, _, decision in asked:
        if decision:
            row_BS = torch.tensor([[env.alphabet.index(character) for character in page]])
            mask = env.legal(row_BS)
            assert mask is not None and mask.shape == (1, len(page), len(env.alphabet))
            for end in range(1, len(page) + 1):
                assert mask[0, end - 1].tolist() == naive(page[:end]), page[:end]


def test_rows_of_different_games_are_apart() -> None:
    """Bug: the state of one row that is used for another."""
    letters, source = LegalLetters(WORDS), random.Random(1)
    pages = []
    for _ in range(6):
        guesses = source.sample(WORDS, 3)
        answers = [wordle.answer_to(guess, wordle.feedback(guesses[2], guess)) for guess in guesses[:2]]
        pages.append(f"\n{guesses[0]}\n{answers[0]}{guesses[1]}\n{answers[1]}{guesses[2]}")
    ids = torch.tensor([[wordle.ALPHABET.index(character) for character in page] for page in pages])
    together = letters.of_rows(ids)
    for b, page in enumerate(pages):
        for end in range(1, len(page) + 1):
            assert together[b, end - 1].tolist() == naive(page[:end])


def test_a_guess_outside_the_list_rules_nothing_out() -> None:
    """Bug: no legal character at all, so that every Q is -inf and losses are NaN."""
    letters = LegalLetters(["crane"])
    assert letters.of_guesses(["cz", None, "cra", "crane"]).sum(1).tolist() == [len(wordle.ALPHABET)] * 2 + [1, 1]
    ids = torch.tensor([[wordle.ALPHABET.index(character) for character in "\nczzzz\n\ncr"]])
    assert letters.of_rows(ids)[0].sum(1).tolist() == [1, 1] + [len(wordle.ALPHABET)] * 5 + [1, 1, 1]


def test_the_header_says_so() -> None:
    """Bug: two figures that differ by what may be written, under the same name."""
    assert any("env.partner.legal_words" in note for note in make(1).notes())
    assert not any("legal_words" in note for note in make(1, legal_words=False).notes())
    assert make(1, legal_words=False).legal(torch.zeros(1, 3, dtype=torch.int64)) is None
