"""Wordle: rules by hand, word lists and what is refused in them, the logged player, and the search for good play."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dqnlm.errors import UserError
from dqnlm.problems import wordle, wordle_players, wordle_words
from tests.helpers.paths import ROOT

WORDS = ("crane", "eerie", "speed", "abide", "crate", "trace")


@pytest.mark.parametrize(
    ("secret", "guess", "expected"),
    [
        ("crane", "crane", "GGGGG"),
        ("crane", "trace", "BGGYG"),
        ("abide", "speed", "BBYYY"),  # one e in the secret, both of the guess are Y: repeats are not counted
        ("crane", "eerie", "YYYBG"),  # an e at its place does not use the letter up
        ("speed", "abide", "BBBYY"),
    ],
)
def test_feedback_by_hand(secret: str, guess: str, expected: str) -> None:
    """Bug: repeated letters counted as in the newspaper's game, or letter and place mixed up."""
    assert wordle.feedback(secret, guess) == expected


def test_judgement() -> None:
    """Bug: a word outside the list answered (it gives nothing away), a solved word paid -1, a cut word read as a guess."""
    words = frozenset(WORDS)
    assert wordle.judge("crane", "trace\n", words) == ("⒯RAⓒE\n", -1.0, False)
    assert wordle.judge("crane", "crane\n", words) == ("", 0.0, True)
    for text in ("other\n", "crane", "cran\n", "\n", "CRANE\n", "crane\n\n", "cranes"):
        assert wordle.judge("crane", text, words) == ("\n", -1.0, False), text


def test_answers_show_letter_and_mark() -> None:
    """Bug: two letters, or two marks of a letter, written alike; capitals and circles exchanged."""
    assert wordle.answer_to("crane", "GBYBG") == "C⒭ⓐ⒩E\n" and wordle.answer_to("azaza", "BBYYG") == "⒜⒵ⓐⓩA\n"
    assert len(wordle.ALPHABET) == len(set(wordle.ALPHABET)) == 1 + 4 * 26
    assert sorted(wordle.ALPHABET) == list(wordle.ALPHABET)


def test_candidates_are_what_the_answers_leave() -> None:
    """Bug: words that an answer rules out are kept. BGGYG of `trace` for `crane`: only `crane` has it among the six."""
    assert wordle.candidates(WORDS, [("trace", "BGGYG")]) == ["crane"]
    assert wordle.candidates(WORDS, [("speed", "BBYYB")]) == ["crane", "eerie", "crate", "trace"]
    assert wordle.candidates(WORDS, []) == list(WORDS)


def test_feedback_table_equals_the_rule() -> None:
    """Bug: the table of numbers is transposed, or counts repeats."""
    table = wordle_players.feedback_table(WORDS)
    digits = {"B": 0, "Y": 1, "G": 2}
    for (g, guess), (s, secret) in itertools.product(enumerate(WORDS), repeat=2):
        code = 0
        for character in wordle.feedback(secret, guess):
            code = 3 * code + digits[character]
        assert table[g, s] == code
    assert table[0, 0] == wordle_players.SOLVED


# Word lists


def test_the_bundled_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a word twice or of six letters; `auto` that fails without the data folder."""
    monkeypatch.delenv("DQNLM_DATA_DIR", raising=False)
    for option in ("auto", "bundled"):
        words, origin = wordle_words.word_list(option)
        assert len(words) == len(set(words)) == 240 and "come with dqnlm" in origin
        assert all(len(word) == 5 and set(word) <= set(wordle.LETTERS) for word in words)


def test_the_list_of_the_data_folder() -> None:
    """Bug: `auto` passes the data folder over. The file of LMRL-Gym has 431 words."""
    folder = os.environ.get("DQNLM_DATA_DIR")
    if not folder or not (Path(folder) / wordle_words.DATA_FILE).is_file():
        pytest.skip("DQNLM_DATA_DIR names no folder with wordle/words_430.txt")
    words, origin = wordle_words.word_list("auto")
    assert len(words) == 431 and "words_430.txt" in origin


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("crane\nbread\nCrane\n", r"list\.txt, line 3: 'Crane' is no word of 5 letters"),
        ("crane\n\ncranes\n", r"list\.txt, line 3: 'cranes' is no word"),
        ("crane\nnaïve\n", r"line 2: 'naïve' is no word"),
        ("crane\nbread\n\ncrane\n", r"line 4: 'crane' stands in line 1 already"),
        ("crane\n", r"has 1 words; there must be at least 2"),
    ],
)
def test_wrong_lists_name_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    """Bug: a wrong line is dropped or kept silently."""
    (tmp_path / "list.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        wordle_words.word_list(str(tmp_path / "list.txt"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Bug: a traceback for a missing file or for bytes that are no text; a good file is refused."""
    with pytest.raises(UserError, match=r"none\.txt cannot be read: No such file.*words=auto or bundled"):
        wordle_words.word_list(str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"crane\n\xff\n")
    with pytest.raises(UserError, match=r"bytes\.txt, line 2 is no UTF-8"):
        wordle_words.word_list(str(tmp_path / "bytes.txt"))
    (tmp_path / "good.txt").write_text("crane\r\n\n bread \n")
    assert wordle_words.word_list(str(tmp_path / "good.txt")).words == ("crane", "bread")


# Players


def test_logged_games_follow_the_rules() -> None:
    """Bug: verdicts that the rules deny, a game that goes on after its end, words that fit drawn from the wrong ones.

    That a game has one secret: the solving guess explains every verdict in it.
    """
    words = wordle_words.WORDS
    games = list(wordle_players.logged_games(3, 2000, words))
    assert games[:5] == list(wordle_players.logged_games(3, 5, words)) != list(wordle_players.logged_games(4, 5, words))
    solved = [turns for turns in games if turns[-1].verdict.solved]
    assert all(len(turns) == 6 for turns in games if not turns[-1].verdict.solved) and 1000 < len(solved) < 1600
    for turns in solved:
        secret = turns[-1].utterance.strip()
        assert [turn.verdict for turn in turns] == [wordle.judge(secret, turn.utterance, set(words)) for turn in turns]
        assert not any(turn.verdict.solved for turn in turns[:-1]) and len(turns) <= 6
    unknown = [turn for turns in games for turn in turns if turn.utterance.strip() not in words]
    assert unknown and all(turn.verdict == ("\n", -1.0, False) for turn in unknown)


def test_the_log_is_poor() -> None:
    """Bug: a log so good that there is nothing left to learn. Its mean is to be at most -4; the deviation of a game is 2."""
    returns = [
        sum(t.verdict.reward for t in turns) for turns in wordle_players.logged_games(0, 4000, wordle_words.WORDS)
    ]
    assert sum(returns) / 4000 == pytest.approx(-4.1, abs=4 * 2 / 4000**0.5)


def test_random_return_by_hand() -> None:
    """Bug: the try that solves is paid, or tries are one off.

    Two words, two tries: -1 with 1/2 for the first, -1 with 1/4 for the second.
    """
    assert wordle_players.random_return(2, 2) == pytest.approx(-0.75)


def _best_by_force(words: tuple[str, ...], fitting: tuple[str, ...], tries: int) -> float:
    """Greatest total return over the secrets, by trying everything: the naive oracle."""
    if tries == 0 or not fitting:
        return 0.0
    best = float("-inf")
    for guess in words:
        total, classes = 0.0, dict[str, tuple[str, ...]]()
        for secret in fitting:
            if secret != guess:
                total -= 1.0
                answer = wordle.feedback(secret, guess)
                classes[answer] = (*classes.get(answer, ()), secret)
        if len(classes) == 1 and len(next(iter(classes.values()))) == len(fitting):
            continue  # a useless guess never helps, and would be tried for ever
        best = max(best, total + sum(_best_by_force(words, c, tries - 1) for c in classes.values()))
    return best


@pytest.mark.parametrize("words", [WORDS, ("aback", "abate", "abbey", "abbot", "cabby"), wordle_words.WORDS[:9]])
def test_the_exhaustive_search_is_optimal(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """Bug: a bound that cuts the best guess off, tries counted wrongly, values kept for another number of tries."""
    words = tuple(words)
    for tries in (1, 2, 3, 6):
        monkeypatch.setattr(wordle, "TRIES", tries)
        exact = wordle_players.Searcher(words, len(words)).mean_return()
        assert exact == pytest.approx(_best_by_force(words, words, tries) / len(words))
        assert wordle_players.Searcher(words, 1).mean_return() <= exact + 1e-9


def test_search_in_the_bundled_list() -> None:
    """Bug: another value for the list than the script printed (-1.6708 at width 1 and at width 10)."""
    told: list[tuple[int, int]] = []
    searcher = wordle_players.Searcher(wordle_words.WORDS, 3)
    assert searcher.mean_return(lambda done, total: told.append((done, total))) == pytest.approx(-1.6708, abs=1e-4)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_script(tmp_path: Path) -> None:
    """Bug: the script does not run, calls a bound exact, or answers a wrong list with a traceback."""
    (tmp_path / "list.txt").write_text("\n".join(WORDS))
    command = [sys.executable, "-m", "studies.wordle_optimal", "--words", str(tmp_path / "list.txt")]
    done = subprocess.run([*command, "--width", "1", "all"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "the optimum is at least this" in done.stdout and "every guess tried: the optimum" in done.stdout
    wrong = subprocess.run([*command, "--width", "0"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --width 0") and "Traceback" not in wrong.stderr
