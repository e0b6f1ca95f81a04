"""Parallel text from JSONL files and from `datasets`: fields, nested fields, parts, and what is wrong said with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from dqnlm import load_policy
from dqnlm.commands import generate
from dqnlm.data.pairs import dataset
from dqnlm.data.pairs.files import TextPair
from dqnlm.data.pairs.records import from_hub, from_json_lines
from dqnlm.errors import UserError
from dqnlm.evaluation.decoding import answer as answers_of
from tests.helpers import runs as tools

FLAT = [{"id": i, "de": f"ein {i}", "en": f"one {i}"} for i in range(10)]
NESTED = [{"translation": {"de": r["de"], "en": r["en"]}} for r in FLAT]
SPLITS = {"train": "train", "heldout": "validation", "test": "test"}


def write(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_json_lines(tmp_path: Path) -> None:
    """Bug: sides exchanged, fields of another depth, or parts that share a line. Of ten lines .4 are held out: 6, 2, 2."""
    flat, source = from_json_lines(write(tmp_path / "flat.jsonl", FLAT), "de", "en", 0.4)
    assert [len(flat[part]) for part in ("train", "heldout", "test")] == [6, 2, 2] and len(source.sha256) == 64
    assert flat["train"][0] == TextPair("ein 0", "one 0") and flat["test"][-1] == TextPair("ein 9", "one 9")
    packed = tmp_path / "nested.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(write(tmp_path / "nested.jsonl", NESTED)).read_bytes()))
    assert from_json_lines(str(packed), "translation.de", "translation.en", 0.4)[0] == flat
    broken, source = from_json_lines(
        write(tmp_path / "b.jsonl", [{"de": " a \n b", "en": "c\r\nd"}] * 3), "de", "en", 0.4
    )
    assert broken["train"] == [TextPair("a b", "c d")] and "6 texts" in source.notes[0]


WRONG: list[tuple[str, str]] = [
    ('{"de": "x", "en"', r"x\.jsonl, line 2 is no JSON: .*such as .*ein Hund"),
    ('["x", "y"]', r"x\.jsonl, line 2 is no object"),
    ('{"de": "x", "fr": {"a": "y"}}', r"x\.jsonl, line 2 has no en \(data\.target\); it has de, fr\.a"),
    ('{"de": "x", "en": 3}', r"x\.jsonl, line 2: en \(data\.target\) is 3, not a text"),
    ('{"de": " ", "en": "y"}', r"x\.jsonl, line 2: de is empty"),
    ('{"de": "x", "en": null}', r"x\.jsonl, line 2: en is empty"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"de": "a", "en": "b"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        from_json_lines(str(path), "de", "en", 0.4)


def test_parts_that_are_empty(tmp_path: Path) -> None:
    """Bug: a run without anything to evaluate on."""
    settings: dict[str, Any] = {
        "source": "de", "target": "en", "limit": None, "tokenizer": "character", "vocabulary_size": None, "max_tokens": 40,
    }  # fmt: skip
    for count, fraction, message in ((1, 0.5, "train part is empty"), (3, 0.1, "test part is empty")):
        path = write(tmp_path / "few.jsonl", FLAT[:count])
        with pytest.raises(UserError, match=message):
            dataset.translation_jsonl(path=path, heldout_fraction=fraction, **settings)
    with pytest.raises(UserError, match="holds no pair"):
        dataset.translation_jsonl(path=write(tmp_path / "none.jsonl", []), heldout_fraction=0.5, **settings)
    with pytest.raises(UserError, match=r"heldout_fraction is 1\.5"):
        dataset.translation_jsonl(path=write(tmp_path / "few.jsonl", FLAT), heldout_fraction=1.5, **settings)
    with pytest.raises(UserError, match=r"add data\.path"):
        dataset.translation_jsonl(path=None, heldout_fraction=0.5, **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as the Hub has them, read by the real `datasets`."""
    folder = tmp_path / "parallel"
    folder.mkdir()
    for split, records in (("train", NESTED), ("validation", NESTED[:2]), ("test", NESTED[2:3])):
        write(folder / f"{split}.jsonl", records)
    return folder


def test_a_data_set_of_datasets(folder: Path) -> None:
    """Bug: a split in another's place, or rows with an empty side that are kept, or left out without a word."""
    found, source = from_hub(str(folder), None, None, SPLITS, "translation.de", "translation.en")
    assert found["train"] == [TextPair(r["de"], r["en"]) for r in FLAT] and source.notes == []
    assert found["heldout"] == found["train"][:2] and found["test"] == found["train"][2:3]
    assert "split train" in source.origin and str(folder) in source.origin
    write(folder / "train.jsonl", [*NESTED, {"translation": {"de": "x", "en": None}}])
    sliced = SPLITS | {"heldout": "train[:10%]"}
    again, told = from_hub(str(folder), None, None, sliced, "translation.de", "translation.en")
    assert again["train"] == found["train"] and again["heldout"] == found["train"][:1] and told.sha256 != source.sha256
    assert "left out of train: 1 of 11" in told.notes[0]


def test_wrong_names_of_a_data_set(folder: Path) -> None:
    with pytest.raises(UserError, match=r"split train\), row 1 has no de .*translation\.de, translation\.en"):
        from_hub(str(folder), None, None, SPLITS, "de", "en")
    with pytest.raises(UserError, match="split trian"):
        from_hub(str(folder), None, None, SPLITS | {"train": "trian"}, "translation.de", "translation.en")
    with pytest.raises(UserError, match=r"data=translation_jsonl data\.path="):
        from_hub(str(folder / "train.jsonl"), None, None, SPLITS, "de", "en")
    with pytest.raises(UserError, match=r"add data\.name"):
        from_hub(None, None, None, SPLITS, "de", "en")


@pytest.mark.parametrize("kind", ["jsonl", "hub"])
def test_a_run_on_each(kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: `dqnlm generate` that goes on past the answer's end, or a prompt that is not ended."""
    own = (
        [f"data.path='{folder / 'train.jsonl'}'", "data.heldout_fraction=0.4"]
        if kind == "jsonl"
        else [f"data.name='{folder}'"]
    )
    summary = tools.start(
        tmp_path / "run", None, f"data=translation_{kind}", *own, "env=translation", "env.horizon=8", "reward=edit_distance",
        "reward.unit=character", "data.tokenizer=character", "data.vocabulary_size=null", "algorithm=tbrm",
        "network.context=20", "buffer.capacity=2000", "trainer.rollouts=2",
    )  # fmt: skip
    assert summary["status"] == "finished"
    capsys.readouterr()
    for prompt in ("ein 3", "ein 3\n"):
        generate.main(
            [str(tmp_path / "run"), "--prompt", prompt, "--device", "cpu", "--max-tokens", "12", "--policy", "greedy"]
        )
        question, answer, *rest = capsys.readouterr().out.split("\n")
        assert question == "ein 3" and rest == [""]
        assert [answer] == answers_of(load_policy(tmp_path / "run"), ["ein 3"], 12)
    with pytest.raises(UserError, match="add --prompt"):
        generate.main([str(tmp_path / "run"), "--device", "cpu"])
