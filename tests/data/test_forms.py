"""Every form of texts with rewards, in every kind of file: read, or one message that says what is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dqnlm.data.trajectories.files import FORMATS, read_file
from dqnlm.data.trajectories.forms import FORMS, FormSettings
from dqnlm.data.trajectories.records import Trajectory
from dqnlm.errors import UserError

DOCUMENT = Path(__file__).parents[2] / "docs" / "data_forms.md"
# Form -> two records, and (prompt, completion, reward) of what they become.
EXAMPLES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, float]]]] = {
    "completions": (
        [{"prompt": "a", "completion": "bc", "reward": 2.5}, {"prompt": "d", "completion": "e", "reward": -1}],
        [("a", "bc", 2.5), ("d", "e", -1.0)],
    ),
    "labels": (
        [{"prompt": "a", "completion": "bc", "label": True}, {"prompt": "d", "completion": "e", "label": False}],
        [("a", "bc", 1.0), ("d", "e", 0.0)],
    ),
    "preferences": (
        [{"prompt": "a", "chosen": "bc", "rejected": "b"}, {"prompt": "d", "chosen": "e", "rejected": "e"}],
        [("a", "bc", 1.0), ("a", "b", 0.0)],
    ),
    "alpaca": (
        [
            {"instruction": "a", "input": "x", "output": "b", "reward": 1},
            {"instruction": "c", "input": "", "output": "d", "reward": 2},
        ],
        [("a\n\nx\n\n", "b", 1.0), ("c\n\n", "d", 2.0)],
    ),
}  # fmt: skip
TALKS: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}], "reward": 3}],
    "sharegpt": [{"conversations": [{"from": "human", "value": "ab"}, {"from": "gpt", "value": "c"}], "score": 3}],
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elif name.endswith(".json"):
        data = json.dumps(rows).encode()
    elif name.endswith((".csv", ".tsv")):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        import datasets

        buffer = io.BytesIO()
        datasets.Dataset.from_list(rows).to_parquet(buffer)
        data = buffer.getvalue()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def found(items: list[Trajectory]) -> list[tuple[str, str, float]]:
    return [(item.prompt, item.completion, sum(item.rewards)) for item in items]


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("form", EXAMPLES)
def test_every_form_in_every_kind_of_file(tmp_path: Path, form: str, ending: str, packed: str) -> None:
    """Bug: a kind of file that reads numbers as texts, or a form that one kind of file lacks."""
    rows, expected = EXAMPLES[form]
    items, source = read_file(str(write(tmp_path / f"log{ending}{packed}", rows)))
    assert found(items) == expected
    assert any(f"are read as {form}" in note for note in source.notes) == (form != "completions")
    if form == "preferences":
        assert "1 rows are left out: the chosen and the rejected answer are the same" in source.notes


def test_a_folder_of_files(tmp_path: Path) -> None:
    """Bug: files that are left out without a word, or read in an order that changes."""
    for number, (form, ending) in enumerate(zip(EXAMPLES, (".csv", ".jsonl.gz", ".json", ".parquet"), strict=True)):
        write(tmp_path / f"{number}{ending}", EXAMPLES[form][0])
    (tmp_path / "README.md").write_text("no data")
    items, source = read_file(str(tmp_path))
    assert found(items) == [row for form in EXAMPLES for row in EXAMPLES[form][1]]
    assert any("4 files of" in note for note in source.notes)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose turns are <u>...<e> and <a>...<e>, with <e> as its end token."""
    pytest.importorskip("transformers", reason="chat templates are rendered by transformers")
    folder = tmp_path_factory.mktemp("chat")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>"}))
    return str(folder)


@pytest.mark.parametrize("form", TALKS)
def test_conversations_are_written_by_the_chat_template(tmp_path: Path, chat: str, form: str) -> None:
    """Bug: the end of a turn learned twice (the log adds an end token), or the user's turns learned from."""
    items, source = read_file(str(write(tmp_path / "log.jsonl", TALKS[form])), FormSettings(chat))
    assert found(items) == [("<u>ab<e><a>", "c", 3.0)] and f"1 rows are read as {form}" in source.notes
    said = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    longer = [{"role": role, "content": text} for role, text in said]
    items, _ = read_file(str(write(tmp_path / "b.jsonl", [{"messages": longer, "reward": 1}])), FormSettings(chat))
    assert list(items[0].parts()) == [
        ("b", (0.0,), True), ("<u>c<e><a>", (0.0,) * 10, False), ("d", (1.0,), True)
    ]  # fmt: skip
    assert items[0].prompt == "<u>a<e><a>"


def test_preferences_of_conversations_and_without_a_prompt(tmp_path: Path, chat: str) -> None:
    """Bug: a prompt that is cut within a word, or rewards the wrong way round. By hand."""
    user, good, bad = ({"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("assistant", "c")))
    rows = [
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"prompt": "", "chosen": [user, good], "rejected": [user, bad]},
    ]
    settings = FormSettings(chat, (2.0, -2.0))
    items, _ = read_file(str(write(tmp_path / "a.jsonl", rows)), settings)
    assert found(items) == [("<u>a<e><a>", "b", 2.0), ("<u>a<e><a>", "c", -2.0)] * 2
    row = {"chosen": "Say hello. Hello there", "rejected": "Say hello. Help me"}
    items, _ = read_file(str(write(tmp_path / "b.jsonl", [row])))
    assert found(items) == [("Say hello. ", "Hello there", 1.0), ("Say hello. ", "Help me", 0.0)]


@pytest.mark.parametrize(("value", "number"), [("4", 4.0), ("4/5", 0.8), (" -1.5 ", -1.5), ("good", 1.0), (True, 1.0)])
def test_ratings_as_texts(tmp_path: Path, value: Any, number: float) -> None:
    """Bug: a text that is refused though it is a number, or a word that nothing maps."""
    path = write(tmp_path / "log.jsonl", [{"prompt": "a", "completion": "b", "rating": value}])
    assert found(read_file(str(path), FormSettings(ratings={"good": 1.0}))[0]) == [("a", "b", number)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "chosen": "b"}, r"has chosen, prompt, .* form preferences \(chosen, rejected\) and lacks rejected"),
        ({"messages": []}, r"form messages \(messages, reward\) and lacks reward"),
        ({"messages": [{"role": "user"}], "reward": 1}, "turn 1 of messages is"),
        ({"instruction": "a", "outputs": "b", "reward": 1}, r"lacks output\. Rename outputs to output"),
        ({"prompt": "a", "completion": "b", "label": "maybe"}, "label is 'maybe'; it must be true or false"),
        ({"conversations": [{"from": "cat", "value": "a"}], "reward": 1}, "with from one of human, user, gpt"),
        ({"chosen": "a b", "rejected": "c d"}, "begin differently; give a field prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "both texts, or both lists"),
        ({"prompt": "a", "completion": "b", "rating": "fine"}, r"rating is 'fine'.*data\.ratings=\{fine: 1\}"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "reward": 1}, "chat template"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    """One message: file, line, field, value, and the nearest form."""
    with pytest.raises(UserError, match=words) as caught:
        read_file(str(write(tmp_path / "log.jsonl", [row])))
    assert "log.jsonl, line 1" in str(caught.value) or "chat template" in words


def test_conversations_without_an_answer_are_counted(tmp_path: Path, chat: str) -> None:
    """Bug: rows that vanish without a word."""
    rows = [{"messages": [{"role": "user", "content": "a"}], "reward": 1}, *TALKS["messages"]]
    items, source = read_file(str(write(tmp_path / "log.jsonl", rows)), FormSettings(chat))
    assert len(items) == 1 and "1 rows are left out: no turn of the assistant has a text" in source.notes


def test_the_document_names_every_form_and_kind_of_file() -> None:
    """Bug: a form that nobody can find. The examples of the document are read here."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert {form.name for form in FORMS} <= set(re.findall(r"`([a-z]+)`", text))
    assert all(f"`{ending}`" in text for ending in FORMATS)
    lines = [json.loads(line) for line in re.findall(r"^\| `[a-z]+` \| `(\{.*\})` \|", text, re.MULTILINE)]
    assert len(lines) == len({form.name for form in FORMS})
    for line in lines:
        assert any(all(name in line or (name == "reward" and {"score", "rating"} & set(line)) for name in f.needs) for f in FORMS)
