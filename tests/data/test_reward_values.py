"""Rewards that are no plain numbers: words and the advice to give them numbers, shares, truth values."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from dqnlm.commands import init
from dqnlm.config.coerce import conform
from dqnlm.config.composition import compose
from dqnlm.data.trajectories.dataset import trajectories
from dqnlm.data.trajectories.files import read_file
from dqnlm.data.trajectories.forms import FormSettings, RewardColumns, form_settings
from dqnlm.data.trajectories.log import logged
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
    ratings = compose(["+experiment=logged", "data.ratings={true: 1, 5: 2}"])[0]["data"]["ratings"]
    for target in (logged, trajectories):
        assert conform(ratings, get_type_hints(target)["ratings"]) == {True: 1.0, "5": 2.0}

    with pytest.raises(UserError, match=r'data\.ratings: a key null .* "null": 1'):
        compose(["+experiment=logged", "data.ratings={null: 1}"])


def test_long_texts_are_no_ratings(tmp_path: Path) -> None:
    """Bug: whole texts in the message, and the advice to give each a number."""
    with pytest.raises(UserError, match="These are no ratings: rename the field") as caught:
        read_file(put(tmp_path, ["word " * 1000, "other " * 1000]), FormSettings())
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("column", ["reward", "score", "rating"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, True, 2], "line 2: {} is true or false, true, and a number before: 0.5 .*line 1"),
        ([False, 3], "line 2: {} is a number, 3, and true or false before: false"),
        (["4/5", "4"], "line 2: {} is a number, 4, and a share before: 4/5 .*line 1.* all as a share, such as 4/5"),
        (["5", "4/5", "4"], "line 2: {} is a share, 4/5"),
        (["1_000", 3], "line 1: {} is '1_000', which is no number"),
        (["1_0/2"], "line 1: {} is '1_0/2', which is no number"),
    ],
)
def test_rewards_written_in_two_ways(column: str, values: list[Any], message: str, tmp_path: Path) -> None:
    """Bug: true among numbers was 1, and 4 beside 4/5 five times as much as 4/5, without a word."""
    with pytest.raises(UserError, match=message.format(column)):
        read_file(put(tmp_path, values, column=column))


def test_rewards_written_in_two_ways_over_files(tmp_path: Path) -> None:
    """Guards a folder and held-out files, and columns of several rewards, each of which is by itself."""
    put(tmp_path, ["4/5"], "a.jsonl")
    put(tmp_path, [4], "b.jsonl")
    with pytest.raises(UserError, match=r"b.jsonl, line 1: reward is a number, 4, and a share before: 4/5 .*a.jsonl, line 1"):
        read_file(str(tmp_path))
    settings = FormSettings()
    read_file(str(tmp_path / "a.jsonl"), settings)
    with pytest.raises(UserError, match="reward is a number, 4, and a share"):
        read_file(str(tmp_path / "b.jsonl"), settings.anew())
    rows = [{"prompt": "a", "completion": "b", "x": 2, "y": "1/2"}, {"prompt": "a", "completion": "b", "x": 3, "y": "3/4"}]
    several = tmp_path / "c.jsonl"
    several.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = RewardColumns(("x", "y"), None)
    assert [item.more[0][-1] for item in read_file(str(several), FormSettings(columns=columns))[0]] == [0.5, 0.75]
    several.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"y": True}]))
    with pytest.raises(UserError, match="line 3: y is true or false, true, and a share before: 1/2"):
        read_file(str(several), FormSettings(columns=columns))


def test_truth_values_alone_are_labels(tmp_path: Path) -> None:
    """Guards columns of true and false, which may also have ratings."""
    assert [sum(item.rewards) for item in read_file(put(tmp_path, [True, False]))[0]] == [1.0, 0.0]
    settings = form_settings(None, [1.0, 0.0], {True: 3.0}, "every")
    assert [sum(item.rewards) for item in read_file(put(tmp_path, [True, 2]), settings)[0]] == [3.0, 2.0]


@pytest.mark.parametrize(
    ("row", "note"),
    [
        ({"reward": 1, "score": 5}, "2 rows have reward and score: reward is learned from"),
        ({"score": 1, "rating": 5, "label": True}, "2 rows have score, rating and label: score is learned from"),
        ({"reward": 1, "label": False}, "2 rows have reward and label: reward is learned from"),
        ({"rewards": [1], "score": 0}, "2 rows have rewards and score: rewards is learned from"),
        ({"chosen": "b c", "rejected": "d", "reward": 3}, "2 rows have chosen, rejected and reward: chosen and rejected are"),
        ({"turns": [{"text": "a", "agent": False}, {"text": "b", "agent": True, "reward": 1}], "label": True},
         "2 rows have turns and label: turns is learned from"),
    ],
)  # fmt: skip
def test_fields_that_could_be_the_reward_too_are_named(row: dict[str, Any], note: str, tmp_path: Path) -> None:
    """Bug: one of two rewards of a row was taken without a word."""
    whole = row if "turns" in row else {"prompt": "a", **row} if "chosen" in row else {"prompt": "a", "completion": "b", **row}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(whole)}\n" * 2)
    assert any(told.startswith(note) for told in read_file(str(tmp_path / "a.jsonl"))[1].notes)
