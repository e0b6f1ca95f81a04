"""Data sets of the Hub, read from local folders and with no network."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dqnlm.data.hub import hub
from dqnlm.data.text.reading import TextSource
from dqnlm.errors import UserError

ROWS = [{"text": "one\r\nline", "n": 1}, {"text": None, "n": 2}, {"text": "zwei 漢", "n": 3}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "plays"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    (folder / "test.jsonl").write_text(json.dumps({"text": "held", "n": 4}), encoding="utf-8")
    return folder


def read(
    name: str | Path | None,
    split: str = "train",
    text_column: str = "text",
    config: str | None = None,
    revision: str | None = None,
) -> TextSource:
    return hub(
        name=None if name is None else str(name), config=config, split=split, text_column=text_column, revision=revision
    )


def test_rows_are_joined_by_a_blank_line(folder: Path) -> None:
    """Guards order and separator, rows without a value, and line breaks; all changes stand in the notes."""
    source = read(folder)
    assert source.text == "one\nline\n\nzwei 漢"
    assert len(source.notes) == 2 and "1 of 3" in source.notes[0] and "Carriage" in source.notes[1]
    assert str(folder) in source.origin and "split train" in source.origin


def test_splits(folder: Path) -> None:
    """Guards the split against being ignored."""
    assert read(folder, split="test").text == "held"
    assert read(folder, split="train[2:]").text == "zwei 漢"


def test_parquet_and_text_folders(tmp_path: Path) -> None:
    """Guards the other file types."""
    import datasets

    (tmp_path / "p").mkdir()
    (tmp_path / "t").mkdir()
    datasets.Dataset.from_dict({"body": ["a", "b"]}).to_parquet(str(tmp_path / "p" / "train.parquet"))
    (tmp_path / "t" / "train.txt").write_text("first\nsecond\n")
    assert read(tmp_path / "p", text_column="body").text == "a\n\nb"
    assert read(tmp_path / "t").text == "first\n\nsecond"


def test_a_changed_folder_is_read_anew(folder: Path) -> None:
    """Guards against a stale copy in the user's cache."""
    read(folder, split="test")
    (folder / "test.jsonl").write_text(json.dumps({"text": "HELD", "n": 4}), encoding="utf-8")
    assert read(folder, split="test").text == "HELD"


def test_nothing_stays_in_the_working_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the working folder; a relative name works too."""
    monkeypatch.chdir(tmp_path)
    assert read("plays", split="test").text == "held"
    assert [entry.name for entry in tmp_path.iterdir()] == ["plays"]


def test_wrong_names_say_what_there_is(folder: Path, tmp_path: Path) -> None:
    """Guards the messages: each names the key and what exists."""
    with pytest.raises(UserError, match=r"trian.*\['train', 'test'\]|trian.*\['test', 'train'\]"):
        read(folder, split="trian")
    with pytest.raises(UserError, match=r"no column 'txt'; it has text, n\. Did you mean data\.text_column=text"):
        read(folder, text_column="txt")
    with pytest.raises(UserError, match=r"'n' of .* is no text"):
        read(folder, text_column="n")
    with pytest.raises(UserError, match=r"data\.config=verse"):
        read(folder, config="verse")
    with pytest.raises(UserError, match=r"no folder .*Did you mean .*plays"):
        read(tmp_path / "palys")
    with pytest.raises(UserError, match="data=text_file"):
        read(folder / "train.jsonl")
    with pytest.raises(UserError, match=r"add data\.name"):
        read(None)


def test_folders_without_text(tmp_path: Path) -> None:
    """Guards empty folders and rows that hold nothing."""
    with pytest.raises(UserError, match="data files"):
        read(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"text": " "}\n{"text": null}\n')
    with pytest.raises(UserError, match="has no text"):
        read(tmp_path)


def test_unreachable_hub_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against the 23 s of retries that `datasets` makes of a missing network."""
    from huggingface_hub import constants

    for variable in ("DQNLM_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 does not answer.*no copy of it"):
        read("dqnlm-test/no-such-data-set")
    assert time.monotonic() - start < 8
    assert not constants.HF_HUB_OFFLINE, "the switch must be put back"


def test_offline_variables_ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards DQNLM_OFFLINE for the Hub."""
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(UserError, match="DQNLM_OFFLINE is set"):
        read("dqnlm-test/no-such-data-set")


def test_a_copy_from_an_earlier_run_is_used_and_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the offline path where `datasets` still has the set, and a wrong split there against a wrong message."""
    import datasets

    monkeypatch.setattr("dqnlm.utils.hub.why_not", lambda *_: "the network is down")
    cache = str(tmp_path / "cache")
    for name in ("load_dataset", "load_dataset_builder"):
        load = getattr(datasets, name)
        monkeypatch.setattr(datasets, name, lambda _, *a, load=load, **k: load(str(folder), *a, **(k | {"cache_dir": cache})))
    source = read("owner/plays", split="test")
    assert source.text == "held" and "the network is down" in source.notes[0]
    with pytest.raises(UserError, match="trian") as raised:
        read("owner/plays", split="trian")
    assert "no copy" not in str(raised.value)


@pytest.mark.parametrize("variable", ["DQNLM_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("what", ["network", "tokenizer", "data", "push"])
def test_nothing_waits_for_a_network_that_is_switched_off(
    what: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bug: one of the places that read from the Hub asks it in spite of the variable: a run begins with a minute of retries."""
    import socket

    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    with pytest.raises(UserError):
        if what == "network":
            pytest.importorskip("transformers")
            from dqnlm.networks.pretrained_source import read_config

            read_config("dqnlm-test/no-such-model", None)
        elif what == "tokenizer":
            from dqnlm.data.tokenizers import factory

            factory.build("dqnlm-test/no-such-model", "")
        elif what == "data":
            read("dqnlm-test/no-such-data-set")
        else:
            from dqnlm.commands import push

            push.main([str(tmp_path), "dqnlm-test/no-such-model"])
