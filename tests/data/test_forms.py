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

from dqnlm.data.rows import FORMATS
from dqnlm.data.trajectories import forms
from dqnlm.data.trajectories.files import read_file
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
EXAMPLES_OF_TALKS = {
    "messages": [{"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}], "reward": 3}],
    "sharegpt": [{"conversations": [{"from": "human", "value": "ab"}, {"from": "gpt", "value": "c"}], "reward": 3}],
    "completions": [
        {"prompt": [{"role": "user", "content": "ab"}], "completion": [{"role": "assistant", "content": "c"}], "reward": 3}
    ],
}
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
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
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
    if form == "preferences":
        left_out = "1 row is left out: the chosen and the rejected answer are the same"
        assert source.notes == ["1 row is read as preferences", left_out]
    else:
        assert source.notes == [f"2 rows are read as {form}"]


def test_a_folder_of_files(tmp_path: Path) -> None:
    """Bug: files that are left out without a word, or read in an order that changes."""
    for number, (form, ending) in enumerate(zip(EXAMPLES, (".csv", ".jsonl.gz", ".json", ".parquet"), strict=True)):
        write(tmp_path / f"{number}{ending}", EXAMPLES[form][0])
    (tmp_path / "README.md").write_text("no data")
    items, source = read_file(str(tmp_path))
    assert found(items) == [row for form in EXAMPLES for row in EXAMPLES[form][1]]
    assert any("4 files of" in note for note in source.notes)


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    """Bug: a hidden file was trained on, and others left out without a word."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.jsonl", ".b.jsonl", "A.txt"):
        write(folder / name, EXAMPLES["completions"][0]) if "jsonl" in name else (folder / name).write_text("no data")
    (folder / "._a.jsonl").write_bytes(b"\0\5\x16\7 of macOS")
    (folder / "more.jsonl").mkdir()
    (folder / "old.jsonl").symlink_to(folder / "gone.jsonl")
    items, source = read_file(str(folder))
    assert found(items) == EXAMPLES["completions"][1]
    assert source.notes[:5] == [
        "1 file of data: a.jsonl",
        "2 left out of data, hidden: ._a.jsonl, .b.jsonl",
        "1 left out of data, of another kind: A.txt",
        "1 left out of data, a folder: more.jsonl",
        "1 left out of data, a link to nothing: old.jsonl",
    ]
    for number in range(7):
        (folder / f"{number}.txt").write_text("no data")
    assert "of another kind: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more" in " ".join(read_file(str(folder))[1].notes)
    (folder / "a.jsonl").unlink()
    with pytest.raises(UserError, match=r"no file that ends in .*, hidden ones aside; it holds \._a"):
        read_file(str(folder))


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
    assert found(items) == [("<u>ab<e><a>", "c", 3.0)] and f"1 row is read as {form}" in source.notes
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


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("form", EXAMPLES_OF_TALKS)
def test_conversations_in_every_kind_of_file(tmp_path: Path, chat: str, form: str, ending: str) -> None:
    """Bug: a table's cell of JSON, or a row of lists of structures, that is no list of turns."""
    items, source = read_file(str(write(tmp_path / f"log{ending}.gz", EXAMPLES_OF_TALKS[form])), FormSettings(chat))
    assert found(items) == [("<u>ab<e><a>", "c", 3.0)] and source.notes == [f"1 row is read as {form}"]


def test_turns_that_belong_to_the_prompt(tmp_path: Path, chat: str) -> None:
    """Bug: an earlier answer that both of a pair share, paid 1 and 0; `last` that learns from earlier answers. By hand."""
    said = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    talk = [{"role": role, "content": text} for role, text in said]
    pair = {"chosen": talk, "rejected": [*talk[:3], {"role": "assistant", "content": "e"}]}
    items, _ = read_file(str(write(tmp_path / "a.jsonl", [pair])), FormSettings(chat))
    before = "<u>a<e><a>b<e><u>c<e><a>"
    assert found(items) == [(before, "d", 1.0), (before, "e", 0.0)]
    last = FormSettings(chat, assistant_turns="last")
    items, _ = read_file(str(write(tmp_path / "b.jsonl", [{"messages": talk, "reward": 2}])), last)
    assert found(items) == [(before, "d", 2.0)]


def test_a_pair_with_one_answer_is_left_out_whole(tmp_path: Path, chat: str) -> None:
    """Bug: half of a pair that stays in the log."""
    user, good, bad = ({"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("assistant", "")))
    rows = [{"chosen": [user, good], "rejected": [user, bad]}, {"prompt": "a", "chosen": "b", "rejected": "c"}]
    items, source = read_file(str(write(tmp_path / "a.jsonl", rows)), FormSettings(chat))
    assert found(items) == [("a", "b", 1.0), ("a", "c", 0.0)]
    assert source.notes == ["1 row is read as preferences", "1 row is left out: no turn of the assistant has a text"]


def test_all_words_without_a_number_are_named(tmp_path: Path) -> None:
    """Bug: one word a run, until all are found."""
    for number, word in enumerate(("good", "bad", "good", "fair")):
        write(tmp_path / f"{number}.jsonl", [{"prompt": "a", "completion": "b", "reward": word}])
    words = r"0\.jsonl, line 1: reward is 'good'.*'bad', 'fair', 'good'.*\{bad: NUMBER, fair: NUMBER, good: NUMBER\}"
    with pytest.raises(UserError, match=words):
        read_file(str(tmp_path))
    ratings = {"good": 1.0, "bad": -1.0, "fair": 0.5}
    assert [reward for *_, reward in found(read_file(str(tmp_path), FormSettings(ratings=ratings))[0])] == [1, -1, 1, 0.5]


@pytest.mark.parametrize(("cell", "number"), [("1", 1.0), ("0", 0.0), ("True", 1.0), ("false", 0.0)])
def test_labels_in_csv(tmp_path: Path, cell: str, number: float) -> None:
    """Bug: CSV has no booleans, so that a column of 1 and 0 is refused."""
    items, _ = read_file(str(write(tmp_path / "a.csv", [{"prompt": "a", "completion": "b", "label": cell}])))
    assert found(items) == [("a", "b", number)]


def test_empty_cells_of_csv_are_missing(tmp_path: Path) -> None:
    """Bug: an empty prompt or rating taken for a value."""
    items, _ = read_file(str(write(tmp_path / "a.csv", [{"prompt": "", "chosen": "a b", "rejected": "a c"}])))
    assert found(items) == [("a ", "b", 1.0), ("a ", "c", 0.0)]
    with pytest.raises(UserError, match="row 1 has no reward"):
        read_file(str(write(tmp_path / "b.csv", [{"prompt": "a", "completion": "b", "score": ""}])))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the chosen and the rejected answer are the same"),
        ({"instruction": "", "input": "", "output": "b", "reward": 1}, "the instruction is empty"),
        ({"instruction": "a", "output": "", "reward": 1}, "an answer is empty"),
    ],
)
def test_where_no_row_is_left_the_reasons_are_said(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    """Bug: a file of rows that are left out is called empty."""
    with pytest.raises(UserError, match=f"no row can be used. 2 rows are left out: {why}"):
        read_file(str(write(tmp_path / "log.jsonl", [row, row])))


def test_a_template_runs_no_code(tmp_path: Path, chat: str) -> None:
    """Bug: a model's template that reaches Python's classes."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    (folder / "tokenizer_config.json").write_text("{}")
    path = write(tmp_path / "log.jsonl", TALKS["messages"])
    with pytest.raises(UserError, match=r"line 1: the chat template of .* cannot write these messages"):
        read_file(str(path), FormSettings(str(folder)))


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
        ({"conversations": [{"from": ["human"], "value": "a"}], "reward": 1}, "turn 1 of conversations is"),
        ({"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}, "prompt is a list of messages"),
        ({"conversations": [{"from": "cat", "value": "a"}], "reward": 1}, "with from one of human, user, gpt"),
        ({"chosen": "a b", "rejected": "c d"}, "begin differently; give a field prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "both texts, or both lists"),
        ({"prompt": "a", "completion": "b", "rating": "fine"}, r"rating is 'fine'.*data\.ratings=\{fine: NUMBER\}"),
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
    assert len(items) == 1 and "1 row is left out: no turn of the assistant has a text" in source.notes


def test_the_document_names_every_form_and_kind_of_file() -> None:
    """Bug: a form that nobody can find. The examples of the document are read here."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert {form.name for form in FORMS} <= set(re.findall(r"`([a-z]+)`", text))
    assert all(f"`{ending}`" in text for ending in FORMATS)
    lines = [json.loads(line) for line in re.findall(r"^\| `[a-z]+` \| `(\{.*\})` \|", text, re.MULTILINE)]
    assert len(lines) == len({form.name for form in FORMS})
    for line in lines:
        assert any(all(name in line or (name == "reward" and {"score", "rating"} & set(line)) for name in f.needs) for f in FORMS)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "response": "b", "reward": 1}, "form completions.*Rename response to completion"),
        ({"question": "a", "answer": "b", "score": 1}, "Rename question to prompt and answer to completion"),
        ({"Prompt": "a", "Completion": "b", "reward": 1}, "Rename Prompt to prompt and Completion to completion"),
        ({"prompt": "a", "completion": "b", "grade": 1}, "lacks reward. Rename grade to reward"),
        ({"prompt": "a", "complettion": "b", "reward": 1}, "Rename complettion to completion"),
        ({"prompt": "a", "chosen": "b", "loser": "c"}, "form preferences.*Rename loser to rejected"),
        ({"conversation": [], "messages_": [], "reward": 1}, "lacks prompt and completion|Rename"),
    ],
)
def test_fields_by_other_names_are_named(row: dict[str, Any], words: str) -> None:
    """Bug: a row with a response where a completion belongs is refused without the nearest form, or what to rename."""
    with pytest.raises(UserError, match=words):
        forms.records_of(row, "log.jsonl, line 1", forms.FormSettings())


def test_fields_of_no_form_are_left_to_the_log() -> None:
    """Bug: a guess where there is nothing to guess from."""
    row = {"a": 1}
    assert forms.records_of(row, "log.jsonl, line 1", forms.FormSettings()) == [row]
