"""data=prompts: what is read, what goes to the reward, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dqnlm.data.prompts.dataset import Prompts, prompts
from dqnlm.errors import UserError

SETTINGS: dict[str, Any] = {
    "path": None, "name": None, "config": None, "split": "train", "revision": None, "limit": None, "heldout_path": None,
    "heldout_fraction": 0.5, "test_path": None, "test_fraction": 0.0,
    "tokenizer": "character", "vocabulary_size": None, "max_tokens": None, "end_token": True,
}  # fmt: skip
ROWS = [{"prompt": "ab", "answer": 1}, {"prompt": "cab", "answer": 2, "reference": "b"}]


def read(path: Path, **changes: Any) -> Prompts:
    return prompts(**(SETTINGS | {"path": str(path)} | changes))


def write(path: Path, rows: list[Any] = ROWS) -> Path:
    kind = path.suffix
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == ".json":
        path.write_text(json.dumps(rows))
    elif kind == ".csv":
        path.write_text("prompt,answer\nab,1\ncab,2\n")
    elif kind == ".txt":
        path.write_text("ab\n\ncab\n")
    else:
        import datasets

        datasets.Dataset.from_list(rows).to_parquet(str(path))
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet", "p.txt"])
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    """Bug: a kind of file that is promised and not read; prompts in another order; columns that are lost."""
    data = read(write(tmp_path / name))
    assert [item.text for item in data.train.items + data.heldout.items] == ["ab", "cab"]
    assert data.train.prompts.ids.tolist() == data.tokenizer.encode("ab").tolist() and data.longest_prompt == 3
    if name != "p.txt":
        assert [str(value) for value in data.train.columns()["answer"]] == ["1"]
    assert data.tokenizer.eos_id is not None and not data.has_references


def test_three_parts_by_position_or_a_file_of_test_prompts(tmp_path: Path) -> None:
    """Bug: a test part that is taken from the training prompts, or prompts left out of it that nobody counts."""
    path = write(tmp_path / "p.jsonl", [{"prompt": word} for word in ("a", "b", "c", "d", "e", "ffffff")])
    data, without = read(path, heldout_fraction=0.67, test_fraction=0.5), read(path, heldout_fraction=0.67)
    assert {name: len(part.items) for name, part in data.parts.items()} == {"train": 2, "validation": 2, "test": 2}
    assert data.train.items == without.train.items and without.test is None
    assert data.fingerprint() != without.fingerprint()
    assert read(path, heldout_fraction=0.67, test_fraction=0.5, max_tokens=4).left_out["test"] == 1
    data = read(write(tmp_path / "q.jsonl"), test_path=str(path), test_fraction=0.5)
    assert data.test is not None and len(data.test.items) == 6 and len(data.heldout.items) == 1


def test_references_and_a_file_of_heldout_prompts(tmp_path: Path) -> None:
    """Bug: references handed to the reward as a column, or a held-out file that is learned from."""
    held = write(tmp_path / "held.jsonl", [{"prompt": "b", "reference": "a"}])
    data = read(write(tmp_path / "p.jsonl"), heldout_path=str(held))
    assert [item.text for item in data.train.items] == ["ab", "cab"] and data.heldout.items[0].reference == "a"
    assert data.train.columns() == {"answer": [1, 2]} and data.heldout.columns() == {}
    assert data.train.references.start_K.tolist() == [0, 0, 1]


def test_long_prompts_are_left_out_and_counted(tmp_path: Path) -> None:
    """Bug: a limit that nothing reads, or rows that vanish without a word."""
    data = read(write(tmp_path / "p.jsonl", [{"prompt": "a" * n} for n in (1, 9, 2, 1)]), max_tokens=2)
    assert [item.text for item in data.train.items] == ["a"] and data.longest_prompt == 2
    assert any("1 training prompts with more than 2 tokens are left out" in note for note in data.source.notes)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"question": "a"}], r"line 1 has no prompt \(nor messages\); it has question\. Rename question to prompt"),
        ([{"prompt": 3}], r"line 1: prompt is 3; it must be a text"),
        ([{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}], "both prompt and messages"),
        ([{"messages": [{"role": "user"}]}], 'message 1 is {"role": "user"}'),
        ([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}], "the assistant's"),
        ([{"prompt": "a", "reference": 2}], "reference is 2, not a text"),
        (["a"], "line 1 is no object"),
        ([{"prompt": "a"}], "1 prompts, of which"),
        ([{"messages": [{"role": "user", "content": "a"}]}] * 2, "no chat template|must be character, byte"),
    ],
)
def test_rows_that_are_wrong(tmp_path: Path, rows: list[Any], words: str) -> None:
    """One message each, with the file, the line and the field."""
    with pytest.raises(UserError, match=words):
        read(write(tmp_path / "p.jsonl", rows))


def test_files_that_are_none(tmp_path: Path) -> None:
    """Bug: a traceback of a library."""
    with pytest.raises(UserError, match=r"data=prompts needs a file"):
        prompts(**SETTINGS)
    with pytest.raises(UserError, match="and not both"):
        read(tmp_path / "p.jsonl", name="a/b")
    with pytest.raises(UserError, match="gone"):
        read(tmp_path / "gone.jsonl")
    (tmp_path / "p.xyz").write_text("a")
    with pytest.raises(UserError, match=r"no known kind.*\.jsonl.*\.txt"):
        read(tmp_path / "p.xyz")


def test_a_conversation_is_written_by_the_models_template(tmp_path: Path) -> None:
    """Bug: roles that are lost, or a prompt that does not end where the assistant begins. By hand."""
    pytest.importorskip("transformers", reason="chat templates are rendered by transformers")
    from tests.helpers import pretrained as models

    folder = models.write(tmp_path / "model", alphabet="abc<>")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<a>' if m.role == 'user' else '<b>' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<b>{% endif %}"
    )
    talk = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}, {"role": "user", "content": "ba"}]
    rows = [{"messages": talk}, {"prompt": talk[:1], "x": 1}]  # TRL calls the messages `prompt` as well
    data = read(write(tmp_path / "p.jsonl", rows), tokenizer=str(folder))
    assert data.train.items[0].text == "<a>ab<b>c<a>ba<b>" and data.heldout.items[0].text == "<a>ab<b>"
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(UserError, match=r"line 1: the chat template .* cannot write these messages: no"):
        read(tmp_path / "p.jsonl", tokenizer=str(folder))
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(UserError, match="cannot write"):  # the sandbox lets no code out
        read(tmp_path / "p.jsonl", tokenizer=str(folder))


def test_the_first_prompts(tmp_path: Path) -> None:
    """Bug: a limit that takes other prompts, or that is passed over."""
    path = write(tmp_path / "p.jsonl", [{"prompt": letter} for letter in "abcdef"])
    data = read(path, limit=2)
    assert [item.text for item in data.train.items + data.heldout.items] == ["a", "b"]
    with pytest.raises(UserError, match=r"data\.limit"):
        read(path, limit=0)
