"""Texts of folders and data sets stay the texts that stand there, whatever else stands in their column."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqnlm.data import hub
from dqnlm.data.pairs import records
from dqnlm.data.prompts import reading
from dqnlm.data.trajectories.files import read_hub
from dqnlm.errors import UserError

# Texts that a reader which guesses types turns into something else.
TEXTS = ["yes", "true", "null", "12", "007", "1e3", "2024-05-01", "2024-05-01T10:00:00Z", "12:30", "NaN", "", '"yes"', "[1]"]
Writer = Callable[[Path, list[dict[str, Any]]], object]


def _csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).to_parquet(str(file))


WRITERS: dict[str, Writer] = {
    "json": lambda file, rows: file.write_text(json.dumps(rows), encoding="utf-8"),
    "jsonl": lambda file, rows: file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"),
    "csv": _csv, "parquet": _parquet,
}  # fmt: skip


def folder_of(tmp_path: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    (tmp_path / "set").mkdir()
    WRITERS[kind](tmp_path / "set" / f"train.{kind}", rows)
    return str(tmp_path / "set")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("order", ["as written", "dates alone", "numbers alone"])
def test_texts_are_read_as_texts(tmp_path: Path, kind: str, order: str) -> None:
    """Bug: dates, numbers and quoted words become other values, or other texts, by the types of their neighbours."""
    texts = {"as written": TEXTS, "dates alone": ["2024-05-01", "2024-05-02"], "numbers alone": ["12", "007"]}[order]
    rows, _, _ = hub.rows_of(folder_of(tmp_path, kind, [{"text": text, "n": 1} for text in texts]), None, "train", None, "")
    assert [row["text"] for row in rows] == texts


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize("value", [True, 3, 1.5, ["a"], {"a": 1}])
def test_what_is_no_text_among_texts_is_named_and_changes_no_other(tmp_path: Path, kind: str, value: Any) -> None:
    """Bug: one `true` among texts turns every `yes` into `"yes"` with quotation marks, in silence."""
    name = folder_of(tmp_path, kind, [{"text": "yes"}, {"text": value}, {"text": "no"}])
    rows, _, _ = hub.rows_of(name, None, "train", None, "")
    assert [row["text"] for row in rows] == ["yes", value, "no"]
    with pytest.raises(UserError, match=r"data\.text_column: .*row 2 has"):
        hub.hub(name=name, config=None, split="train", text_column="text", revision=None)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_every_reader_of_data_sets(tmp_path: Path, kind: str) -> None:
    """Bug: the class is mended where texts are joined, and not for prompts, pairs and logs."""
    said = {"2024-05-01": "true", "2024-05-02": "12"}
    rows = [{"prompt": prompt, "completion": completion, "reward": 1} for prompt, completion in said.items()]
    name = folder_of(tmp_path, kind, rows)
    log, _ = read_hub(name=name, config=None, split="train", revision=None)
    assert {item.prompt: item.completion for item in log} == said
    assert [p.text for p in reading.read(None, name, None, "train", None)[0]] == ["2024-05-01", "2024-05-02"]
    splits = {"train": "train[:1]", "heldout": "train[1:]", "test": "train"}
    parts, _ = records.from_hub(name, None, None, splits, "prompt", "completion")
    assert [tuple(parts[part][0]) for part in ("train", "heldout")] == [("2024-05-01", "true"), ("2024-05-02", "12")]
    assert len(parts["test"]) == 2


def test_splits_columns_and_several_files(tmp_path: Path) -> None:
    """Bug: a slice counts rows of one file, a sum of splits loses one, a column that the first row lacks is lost."""
    (tmp_path / "data").mkdir()
    for number in range(2):
        WRITERS["jsonl"](tmp_path / "data" / f"train-{number}.jsonl", [{"text": f"{number}{i}"} for i in range(2)])
    WRITERS["jsonl"](tmp_path / "data" / "test.jsonl", [{"text": "t", "more": "x"}])

    def read(split: str) -> list[dict[str, Any]]:
        return [dict(row) for row in hub.rows_of(str(tmp_path), None, split, None, "")[0]]

    assert [row["text"] for row in read("train")] == ["00", "01", "10", "11"]
    assert [row["text"] for row in read("train[25%:75%]")] == ["01", "10"]
    assert read("train[3:]+test") == [{"text": "11", "more": None}, {"text": "t", "more": "x"}]


def test_what_the_card_of_a_set_says_is_heeded(tmp_path: Path) -> None:
    """Bug: the files are read here although the card of the set says that they are to be read in another way."""
    (tmp_path / "a.json").write_text('{"version": 1, "rows": [{"text": "one"}, {"text": "two"}]}')
    card = '---\nconfigs:\n- config_name: default\n  field: rows\n  data_files:\n  - split: verse\n    path: "a.json"\n---\n'
    (tmp_path / "README.md").write_text(card)
    assert [row["text"] for row in hub.rows_of(str(tmp_path), None, "verse", None, "")[0]] == ["one", "two"]


def test_a_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    """Bug: the message names a setting that was not typed, or no file."""
    (tmp_path / "train.json").write_text('[{"text": "one"')
    with pytest.raises(UserError, match=r"^data\.name: .*train\.json cannot be read as json"):
        hub.rows_of(str(tmp_path), None, "train", None, "")


def test_files_that_were_downloaded_are_read_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: offline the table is read that `datasets` made, with the types that it guessed, or nothing."""
    name = folder_of(tmp_path, "jsonl", [{"text": "yes"}, {"text": "2024-05-01"}])
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: name)
    rows, notes, _ = hub.rows_of("owner/set", None, "train", None, "")
    assert [row["text"] for row in rows] == ["yes", "2024-05-01"] and "DQNLM_OFFLINE is set" in notes[0]
