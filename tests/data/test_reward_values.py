"""Rewards that are no plain numbers: words and the advice to give them numbers, shares, truth values."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from dqnlm.commands import init
from dqnlm.config.composition import compose
from dqnlm.data.trajectories.files import read_file
from dqnlm.data.trajectories.forms import FormSettings, form_settings
from dqnlm.errors import UserError

HARD = ["★★★", "", "1,000", "it's ok", "{a}", "${x}", "score: 5", "true", "False", "null", "1_000", "a\nb", '"', "\\", "a\x85b"]


def put(folder: Path, rewards: list[Any], name: str = "a.jsonl", column: str = "reward") -> str:
    rows = [{"prompt": "a", "completion": "b", column: reward} for reward in rewards]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def advised(path: str, ratings: dict[Any, float], folder: Path) -> dict[Any, float]:
    """`data.ratings` of a configuration made as the message says, with 7 for every number."""
    with pytest.raises(UserError) as caught:
        read_file(path, form_settings(None, [1.0, 0.0], ratings, "every"))
    said = str(caught.value).replace("NUMBER", "7")
    if "dqnlm init" not in said:
        (override,) = shlex.split(said.partition("each a number: ")[2])
        return compose(["+experiment=logged", override])[0]["data"]["ratings"]  # type: ignore[no-any-return]
    file = folder / "my_logged.yaml"
    file.unlink(missing_ok=True)
    init.main(["logged", str(file)])
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("\ndata:\n", f"\ndata:\n{said.splitlines()[-1]}\n"), encoding="utf-8")
    return compose(["+experiment=my_logged"], file)[0]["data"]["ratings"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("word", [*HARD, "good", "no", "very good", "5 stars", "A+", "n/a", "50%", "v1.5"])
def test_the_advice_about_a_word_does_what_it_says(word: str, tmp_path: Path) -> None:
    """Bug: the printed words, typed or written to a file as they stand, were refused or meant another text."""
    path, before = put(tmp_path, [word]), {"fair": 0.25}
    ratings = advised(path, before, tmp_path)
    items, _ = read_file(path, form_settings(None, [1.0, 0.0], ratings, "every"))
    assert [sum(item.rewards) for item in items] == [7.0] and ratings["fair"] == 0.25


def test_words_are_given_numbers_ten_at_a_time(tmp_path: Path) -> None:
    """Bug: the second advice left out what the first had given, so that following it never ended."""
    path, ratings = put(tmp_path, [*HARD, "good", "so so"]), dict[Any, float]()
    for _ in range(2):
        ratings = advised(path, ratings, tmp_path)
    items, _ = read_file(path, form_settings(None, [1.0, 0.0], ratings, "every"))
    assert len(items) == len(HARD) + 2


@pytest.mark.parametrize(
    ("key", "text"), [(True, "true"), (True, "Yes"), (False, "OFF"), (5, "5"), (1.5, "1.5"), (None, "null"), (" ok ", "ok")]
)
def test_a_key_of_another_type_stands_for_its_text(key: Any, text: str, tmp_path: Path) -> None:
    """Bug: `{true: 1}` of a command or a YAML file stood for the text True."""
    items, _ = read_file(put(tmp_path, [text]), form_settings(None, [1.0, 0.0], {key: 7.0}, "every"))
    assert sum(items[0].rewards) == 7.0


def test_typed_keys_of_other_types_are_composed() -> None:
    """Bug: refused as no texts."""
    assert compose(["+experiment=logged", "data.ratings={true: 1, 5: 2}"])[0]["data"]["ratings"] == {True: 1, 5: 2}


def test_long_texts_are_no_ratings(tmp_path: Path) -> None:
    """Bug: whole texts in the message, and the advice to give each a number."""
    with pytest.raises(UserError, match="These are no ratings: rename the field") as caught:
        read_file(put(tmp_path, ["word " * 1000, "other " * 1000]), FormSettings())
    assert len(str(caught.value)) < 600
