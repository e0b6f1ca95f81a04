"""`dqnlm chat`: games of Wordle and talk, with piped lines, by subprocess and in this process."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm import cli
from dqnlm.agent.policy import Policy
from dqnlm.builder import launch
from dqnlm.commands import chat
from dqnlm.config import composition, validation
from dqnlm.errors import UserError
from dqnlm.problems import wordle, wordle_words
from tests.helpers import runs as tools

SMALL = [
    "network=gru", "network.width=8", "network.layers=1", "device=cpu", "threads=1", "logger=none", "evaluation.samples=1",
    "progress=false", "evaluation.episodes=2", "trainer.batch_size=4", "head.loss=huber",
]  # fmt: skip


@pytest.fixture(scope="module")
def wordle_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has hardly learned."""
    folder = tmp_path_factory.mktemp("wordle") / "run"
    folder.mkdir()
    typed = [
        "env=dialogue",
        "env.partner.words=bundled",
        "data=none",
        "trainer.rollouts=1",
        "network.context=66",
        *SMALL,
    ]
    composed, _ = composition.compose(typed)
    launch.start(validation.validate(composed, {}, typed), folder, choices={}, command_line=[])
    return folder


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    tools.start(folder / "run", tools.write_text(folder / "text.txt"), "trainer.rollouts=2")
    return folder / "run"


class Speller:
    """Stands for `Policy.generate`: writes these guesses, and keeps the pages that it was given."""

    def __init__(self, *guesses: str) -> None:
        self.guesses, self.pages = list(guesses), list[str]()

    def __call__(self, prompt: str, max_tokens: int, **options: Any) -> list[str]:
        self.pages.append(prompt)
        return [(self.guesses.pop(0) + "\nrest")[:max_tokens].split(options["stop"])[0]]


def talk(monkeypatch: pytest.MonkeyPatch, run: Path, lines: str, *options: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return chat.main([str(run), "--device", "cpu", *options])


def test_the_program_plays_a_secret(wordle_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Bug: a page that differs from what the environment shows, marks of another word, a game that goes on when solved.

    `actor` for `above` is GBBYB; `zzzzz` is not in the list, and `abovef` is cut without a line break: no marks.
    """
    speller = Speller("actor", "zzzzz", "abovef", "above")
    monkeypatch.setattr(Policy, "generate", speller)
    assert talk(monkeypatch, wordle_run, "", "--secret", "above") == 0
    assert capsys.readouterr().out.splitlines() == [
        "1: actor  GBBYB", "2: 'zzzzz'  not in the list", "3: 'abovef'  not in the list", "4: above  GGGGG", "solved in 4",
    ]  # fmt: skip
    assert speller.pages == [
        "\n", "\nactor\nA⒞⒯ⓞ⒭\n", "\nactor\nA⒞⒯ⓞ⒭\nzzzzz\n\n", "\nactor\nA⒞⒯ⓞ⒭\nzzzzz\n\nabovef\n"
    ]  # fmt: skip


def test_six_tries(wordle_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Bug: a seventh try, or a lost game called solved."""
    monkeypatch.setattr(Policy, "generate", Speller(*["actor"] * 6))
    assert talk(monkeypatch, wordle_run, "", "--secret", "above") == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 7 and out[-1] == "not solved; it was above"


def test_a_person_answers(wordle_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Bug: marks in small letters not read, a wrong line taken for an answer, a person asked about a word not in the list."""
    speller = Speller("actor", "zzzzz", "above")
    monkeypatch.setattr(Policy, "generate", speller)
    assert talk(monkeypatch, wordle_run, "gbbybb\n gbbyb\nGGGGG\n") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "solved in 3" and speller.pages[1] == "\nactor\nA⒞⒯ⓞ⒭\n"
    assert "'gbbybb' is no answer to actor: type five of g, y and b, or quit" in captured.err
    assert "Think of a word" in captured.err


@pytest.mark.parametrize("lines", ["gbbyb\n", "gbbyb\nquit\nGGGGG\n"])
def test_leaving(wordle_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, lines: str) -> None:
    """Bug: the end of the input is an endless loop, or a traceback."""
    monkeypatch.setattr(Policy, "generate", Speller("actor", "above"))
    assert talk(monkeypatch, wordle_run, lines) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the game was left after 2 guesses"


def test_the_page_is_the_environment_s(wordle_run: Path, capsys: Any) -> None:
    """Bug: chat guesses otherwise than the evaluation: the same policy greedily, against the same word, step by step."""
    from dqnlm.builder.loading import load_policy
    from dqnlm.envs.dialogue import Dialogue
    from dqnlm.evaluation.episodes import play_greedily
    from dqnlm.partners.wordle import Wordle

    policy = load_policy(wordle_run, device="cpu")
    env = Dialogue(
        torch.device("cpu"), lambda node: Wordle(1, 0, True, words="bundled", legal_words=False),
        num_envs=1, utterance_length=6, max_turns=6, partner={},
    )  # fmt: skip
    rows = next(r for r in play_greedily(env, policy, 1.0).rows if len(r.length_B))
    ids = rows.observation_BS[0, : int(rows.length_B[0]) + 1].tolist()
    assert chat.main([str(wordle_run), "--device", "cpu", "--secret", wordle_words.WORDS[0], "--policy", "greedy"]) == 0
    played = [line.split("'")[1] for line in capsys.readouterr().out.splitlines() if "not in the list" in line]
    page = "\n"
    for guess in played:
        page += (guess if len(guess) == 6 else guess + "\n") + "\n"
    assert "".join(wordle.ALPHABET[i] for i in ids).startswith(page[:-1]) and len(played) == 6


def test_pipes(wordle_run: Path, text_run: Path) -> None:
    """Bug: prompts in a pipe's output, a traceback at the end of the input, nothing flushed."""
    command = [sys.executable, "-m", "dqnlm", "chat"]
    done = subprocess.run(
        [*command, str(text_run), "--max-tokens", "7", "--policy", "greedy"],
        input="the sea\nheat\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and all(len(line) <= 7 for line in done.stdout.splitlines())
    assert "you:" not in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_text_goes_on_from_each_line(text_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Bug: what was said before is read too, or the line break is left out."""
    speller = Speller("sea", "hen")
    monkeypatch.setattr(Policy, "generate", speller)
    assert talk(monkeypatch, text_run, "the\n\nquit\nten\n") == 0
    assert capsys.readouterr().out == "sea\nhen\n" and speller.pages == ["the\n", "\n"]


def test_mistakes(wordle_run: Path, text_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Bug: a secret that the game has not, an option that this run does not read, a character that it does not know."""
    with pytest.raises(UserError, match="--secret 'zzzzz' is none of the 240 words"):
        talk(monkeypatch, wordle_run, "", "--secret", "zzzzz")
    with pytest.raises(UserError, match="this run does not play Wordle"):
        talk(monkeypatch, text_run, "", "--secret", "above")
    with pytest.raises(UserError, match="--max-tokens must be at least 1"):
        talk(monkeypatch, text_run, "", "--max-tokens", "0")
    assert talk(monkeypatch, text_run, "Z\n") == 2 and "error:" in capsys.readouterr().err
    assert cli.main(["chat", str(text_run / "nothing")]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "utf-16"])
def test_input_that_is_no_text_in_its_encoding_is_one_message(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Bug: `echo é | PYTHONIOENCODING=ascii dqnlm chat RUN` ends in a UnicodeDecodeError."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é é\n".encode()), encoding))
    with pytest.raises(UserError, match=f"no text in the encoding {encoding}"):
        chat._ask("")
