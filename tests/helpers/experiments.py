"""What each experiment needs beside its name, in small: texts, pairs, logs, prompts, and a model with random weights."""

from __future__ import annotations

import json
import os
import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.runs import write_text

REWARD = 'def score(prompts, completions, references):\n    return [float("a" in text) for text in completions]\n'


def sentences(folder: Path) -> list[str]:
    """Parallel files with the names of Multi30k's."""
    pytest.importorskip("tokenizers")
    for name in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            (folder / f"{name}.{language}").write_text("".join(f"{language} the {i} sea\n" for i in range(80)))
    return [f"data.path={folder}"]


def talk(folder: Path) -> list[str]:
    """A file in DailyDialog's format."""
    pytest.importorskip("tokenizers")
    (folder / "talk.txt").write_text("".join(f"the sea {i} ? __eou__ no {i} . __eou__\n" for i in range(80)))
    return [f"data.path={folder / 'talk.txt'}"]


def log(folder: Path) -> list[str]:
    """More rows than `+debug=smoke` reads, of which the completion `good` is rewarded."""
    return _log(folder, lambda word: {"reward": float(word == "good")})


def log_of_two(folder: Path) -> list[str]:
    """As `log`, with two rewards."""
    return _log(folder, lambda word: {"reward_warm": float(word == "good"), "reward_short": -float(len(word))})


def _log(folder: Path, rewards: Callable[[str], dict[str, float]]) -> list[str]:
    draw = random.Random(0)
    with (folder / "log.jsonl").open("w", encoding="utf-8") as file:
        for i in range(2000):
            word = "good" if draw.random() < 0.4 else "bad"
            file.write(json.dumps({"prompt": f"Day {i % 500} was", "completion": f" {word}."} | rewards(word)) + "\n")
    return [f"data.path={folder / 'log.jsonl'}"]


def walks(folder: Path) -> list[str]:
    """Walks among the nodes of env=random_walks; whether there are such edges does not matter."""
    draw = random.Random(0)
    with (folder / "walks.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(1000):
            steps = "".join(draw.choices("bcdefg", k=3)) + "a"
            file.write(json.dumps({"prompt": draw.choice("bcde"), "completion": steps, "reward": draw.random()}) + "\n")
    return [f"data.path={folder / 'walks.jsonl'}"]


def prompts(folder: Path) -> list[str]:
    """Prompts, and a reward of the user's own."""
    (folder / "prompts.txt").write_text("".join(f"Day {i} was\n" for i in range(600)), encoding="utf-8")
    (folder / "judge.py").write_text(REWARD, encoding="utf-8")
    return [f"data.path={folder / 'prompts.txt'}", f"reward.path={folder / 'judge.py'}:score"]


def model(folder: Path, alphabet: str = string.printable) -> list[str]:
    """A model of transformers with random weights."""
    pytest.importorskip("transformers")
    from studies import tiny_gpt2

    tiny_gpt2.write_model(folder / "model", alphabet, positions=300)
    return [f"network.name_or_path={folder / 'model'}"]


MADE: dict[str, list[Callable[[Path], list[str]]]] = {
    "dial": [log_of_two], "translation": [sentences], "dialogue": [talk], "logged": [log], "logged_pretrained": [log, model],
    "sentiment": [log, model], "prompts": [prompts, model], "prompts_replay": [prompts, model],
    "ilql": [walks, lambda folder: model(folder, "abcdefghijklmnopqrstu")],
}  # fmt: skip
OF_GYMNASIUM = ("cartpole", "cartpole_zoo")
PUBLIC = {"translation": "multi30k", "dialogue": "dailydialog"}  # the folder of $DQNLM_DATA_DIR that has the real data


def words(name: str, folder: Path) -> list[str]:
    """The words after `dqnlm train` that start an experiment; the real data where the machine has it."""
    if name in OF_GYMNASIUM:
        pytest.importorskip("gymnasium")
    public = Path(os.environ.get("DQNLM_DATA_DIR", "")) / PUBLIC.get(name, "none")
    makers = [] if public.is_dir() and name in PUBLIC else MADE.get(name, [])
    return [f"+experiment={name}", *(word for make in makers for word in make(folder))]


def text(folder: Path) -> list[str]:
    """A text of one's own that is longer than `+debug=smoke` reads."""
    return ["data=text_file", f"data.path={write_text(folder / 'text.txt', 300_000)}"]
