"""Files as people have them: encodings, packing, separators, columns, and values that look like another type."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from dqnlm.data.prompts import reading as prompts
from dqnlm.data.text.reading import read_text
from dqnlm.data.trajectories.files import read_file
from dqnlm.errors import UserError
from dqnlm.utils.encoding import typed_text

TEXTS = (
    "It snowed early.\nThe mill stopped.\n" * 30,
    "Снег выпал рано.\nМельница стоит.\n" * 30,  # noqa: RUF001 (Cyrillic is meant)
    "雪下得早。\n一天磨坊停了。\n" * 30,
)
ROW = {"prompt": "day: ", "completion": "yes", "reward": 1.0}


def put(folder: Path, name: str, content: bytes | str) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_told_by_mark_or_zeros(text: str, encoding: str, tmp_path: Path) -> None:
    """Bug: UTF-16 without a mark trained as a text half of zeros."""
    read, notes = read_text(put(tmp_path, "a.txt", text.encode(encoding)), "data.path")
    assert read == text and notes


@pytest.mark.parametrize("text", TEXTS)
def test_plain_utf8_has_no_note(text: str, tmp_path: Path) -> None:
    """Guards against UTF-8 that is taken for something else."""
    assert read_text(put(tmp_path, "a.txt", text), "data.path") == (text, [])


def test_utf16_in_a_log_a_prompt_file_and_on_the_command_line(tmp_path: Path) -> None:
    """Guards one reader for all: what trains also prompts, Windows line breaks included."""
    line = json.dumps(ROW) + "\r\n"
    (row, *_), source = read_file(str(put(tmp_path, "a.jsonl", (line * 3).encode("utf-16"))))
    assert row.completion == "yes" and any("UTF-16LE" in note for note in source.notes)
    found, _ = prompts.read(str(put(tmp_path, "p.txt", "one\r\ntwo\r\n".encode("utf-16"))), None, None, "train", None)
    assert [prompt.text for prompt in found] == ["one", "two"]
    assert typed_text(str(put(tmp_path, "q.txt", b"\xef\xbb\xbfROMEO:\r\nAh")), "--prompt-file") == "ROMEO:\nAh"


def test_gzip_under_another_name(tmp_path: Path) -> None:
    """Guards what is told by its first bytes against its name, both ways."""
    packed = gzip.compress((json.dumps(ROW) + "\n").encode())
    found, source = read_file(str(put(tmp_path, "a.jsonl", packed)))
    assert len(found) == 1 and any("packed with gzip" in note for note in source.notes)
    assert read_text(put(tmp_path, "a.txt", gzip.compress(b"text")), "data.path")[0] == "text"
    with pytest.raises(UserError, match=r"is not packed.*rename it to b\.jsonl"):
        read_file(str(put(tmp_path, "b.jsonl.gz", json.dumps(ROW))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1 ...", r"a parquet table\. Read it by data=logged or .* data=hub data\.name=FOLDER"),
        (b"ARROW1 ...", "as parquet or JSON lines"),
        (bz2.compress(b"text"), r"bzip2.*bunzip2 a\.txt"),
        (b"%PDF-1.7 ...", r"a PDF.*pdftotext"),
        (b"PK\x03\x04...", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\0\0\0 binary \0\0\0\0\0\0\0 odd", r"zeros \(NUL\).*iconv -f UTF-16"),
        ("a text".encode("utf-16") + b"x", "begins as UTF-16LE but is cut"),
        ("prix: 5 €".encode("cp1252"), r"line 1 is no UTF-8.*'prix: 5 €'.*iconv -f CP1252"),
    ],
)
def test_what_is_no_text_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    """Guards the way out of files that are refused."""
    with pytest.raises(UserError, match=message):
        read_text(put(tmp_path, "a.txt", content), "data.path")


@pytest.mark.parametrize("odd", [True, 12, 0.5, ["yes"], {"a": "b"}])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_one_value_among_texts_changes_no_other(odd: object, name: str, tmp_path: Path) -> None:
    """Bug: one `true` put quotation marks around every other text, without a word."""
    rows = [ROW, ROW | {"completion": odd}, ROW]
    content = json.dumps(rows) if name == "a.json" else "".join(json.dumps(row) + "\n" for row in rows)
    with pytest.raises(UserError, match=r"(row|line) 2"):
        read_file(str(put(tmp_path, name, content)))


@pytest.mark.parametrize("text", ["2024-05-01", "2024-05-01T10:00:00Z", "12:30", "NaN", "null", "1e5", "007"])
@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_texts_that_look_like_another_type(text: str, name: str, tmp_path: Path) -> None:
    """Bug: texts that look like dates became dates and were refused."""
    content = json.dumps([ROW | {"completion": text}] * 3) if name == "a.json" else f"prompt,completion,reward\nday,{text},1\n"
    assert read_file(str(put(tmp_path, name, content)))[0][0].completion == text


def test_shapes_of_json(tmp_path: Path) -> None:
    """Guards the ways in which tables are written as JSON."""
    columns = {key: [value] * 2 for key, value in ROW.items()}
    numbered = {key: {"0": value, "1": value} for key, value in ROW.items()}
    lines = json.dumps(ROW) + "\n" + json.dumps(ROW)
    for content in (json.dumps([ROW, ROW]), json.dumps({"data": [ROW, ROW]}), json.dumps(columns), json.dumps(numbered), lines):
        found, _ = read_file(str(put(tmp_path, "a.json", content)))
        assert [item.completion for item in found] == ["yes", "yes"], content
    assert len(read_file(str(put(tmp_path, "a.json", json.dumps(ROW))))[0]) == 1
    with pytest.raises(UserError, match="'reward' is there 2 times"):
        read_file(str(put(tmp_path, "a.json", '[{"prompt": "a", "completion": "b", "reward": 1, "reward": 0}]')))


@pytest.mark.parametrize(
    ("content", "reward", "note"),
    [
        (",prompt,completion,reward\n0,a,b,0.5\n", 0.5, "without a name"),
        ("prompt;completion;reward\na;b;0,5\n", 0.5, "semicolons"),
        ("prompt|completion|reward\na|b|-1\n", -1.0, "bars"),
        ("sep=;\r\nprompt;completion;reward\r\na;b;2\r\n", 2.0, "semicolons"),
        ("prompt\tcompletion\tscore\na\tb\t1,25\n", 1.25, "tabs"),
        ("prompt,completion,reward,\na,b,1,\n", 1.0, "without a name"),
    ],
)
def test_dialects_of_csv(content: str, reward: float, note: str, tmp_path: Path) -> None:
    """Bug: the index column of a data frame, and separators other than the comma, were refused."""
    (item,), source = read_file(str(put(tmp_path, "a.csv", content)))
    assert (item.prompt, item.completion, item.rewards[-1]) == ("a", "b", reward)
    assert any(note in told for told in source.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,completion,reward,reward\na,b,1,0\n", "'reward' in columns 3 and 4"),
        ("prompt,completion,reward\na,b,c,1\n", r"row 1 \(line 2\) has 4 cells"),
        ('prompt,completion,reward\na,b,"0,5"\n', r"decimal point: 0\.5"),
        ('prompt,completion,reward\na,"b,1\n', "row that begins in line 2"),
    ],
)
def test_what_csv_does_not_say_is_asked(content: str, message: str, tmp_path: Path) -> None:
    """Bug: of two columns called reward the first was taken without a word."""
    with pytest.raises(UserError, match=message):
        read_file(str(put(tmp_path, "a.csv", content)))


def test_long_cells_and_line_breaks(tmp_path: Path) -> None:
    """Guards texts above the limit of Python's reader, and of several lines."""
    text = "long\n" * 100_000
    (item,), _ = read_file(str(put(tmp_path, "a.csv", f'prompt,completion,reward\na,"{text}",1\n')))
    assert item.completion == text


@pytest.mark.parametrize("first", ["", "sep=,"])
def test_csv_of_an_old_mac(first: str, tmp_path: Path) -> None:
    """Bug: a traceback where a carriage return alone ends the lines."""
    content = "\r".join([*first.split(), "prompt,completion,reward", "a,b,1", 'c,"d\re",0', ""])
    found, _ = read_file(str(put(tmp_path, "a.csv", content)))
    assert [(item.completion, sum(item.rewards)) for item in found] == [("b", 1.0), ("d\re", 0.0)]


def test_a_line_break_in_the_name_of_a_column(tmp_path: Path) -> None:
    """Bug: a traceback, or a carriage return in the message."""
    with pytest.raises(UserError, match=r"has completion, prompt, rew ard, .* lacks reward\. Rename rew ard to reward"):
        read_file(str(put(tmp_path, "a.csv", 'prompt,completion,"rew\rard"\na,b,1\n')))


@pytest.mark.parametrize(
    ("name", "cells", "rewards"),
    [
        ("a.tsv", ("1,000", "500"), "1000 .* 1\\.000 .*here 1000, or 1"),
        ("a.csv", ("1.234", "0,5", "2,25"), "row 1: reward is '1.234': 1234 if the point divides thousands, 1.234 if it"),
        ("a.tsv", ("1,000", "2,500", "0.5"), "row 1: reward is '1,000'"),
        ("a.csv", ("1.5", "1,500", "0,25"), "row 2: reward is '1,500'"),
        ("a.csv", ("1.234,5", "0,5"), r"row 1: reward is '1.234,5': .*decimal points: 1234\.5$"),
        ("a.tsv", ("12,345.67",), r"row 1: reward is '12,345.67': .*decimal points: 12345\.67$"),
        ("a.tsv", ("-1,234,567",), "row 1: reward is '-1,234,567': .*decimal points: -1234567$"),
        ("a.csv", ("0,5", "2,25"), [0.5, 2.25]),
        ("a.csv", ("0,500", "1,000", "-12,125"), [0.5, 1.0, -12.125]),
        ("a.csv", ("1.234", "12.500", "3"), [1.234, 12.5, 3.0]),
    ],
)
@pytest.mark.parametrize("column", ["reward", "score", "rating"])
def test_commas_that_may_divide_thousands(
    column: str, name: str, cells: tuple[str, ...], rewards: str | list[float], tmp_path: Path
) -> None:
    """Bug: `1,000` was read as 1, without a word. What only a decimal comma explains is read on."""
    separator = "\t" if name == "a.tsv" else ";"
    rows = [("prompt", "completion", column), *(("a", "b", cell) for cell in cells)]
    file = put(tmp_path, name, "\n".join(separator.join(row) for row in rows))
    if isinstance(rewards, list):
        assert [sum(item.rewards) for item in read_file(str(file))[0]] == rewards
        return
    with pytest.raises(UserError, match=rewards.replace("reward", column)):
        read_file(str(file))


def test_thousands_where_commas_separate_cells(tmp_path: Path) -> None:
    """Bug: the advice to write 1.000 for "1,000", a thousandth of what it may be."""
    with pytest.raises(UserError, match=r"'1,000': 1000 if the comma divides thousands, 1\.000 if .* decimal comma"):
        read_file(str(put(tmp_path, "a.csv", 'prompt,completion,score\na,b,"1,000"\n')))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "# made today\nprompt,completion,reward\na,b,1\n", "begins with '# made today', .*drop the lines"),
        ("a.csv", "# by me, today\nprompt,completion,reward\na,b,1\n", "begins with '# by me', .*drop the lines"),
        ("a.tsv", json.dumps([ROW, ROW]), r"is JSON, .* rename it to a\.json\."),
        ("a.csv", json.dumps(ROW) + "\n" + json.dumps(ROW), r"is JSON, .* rename it to a\.jsonl\."),
        ("a.csv.gz", gzip.compress(json.dumps(ROW, indent=1).encode(), mtime=0), r"is JSON, .* rename it to a\.json\.gz\."),
        ("a.json", json.dumps({"train": [ROW], "test": [ROW]}), "lists of objects under train and test: which one"),
        ("a.json", '[{"reward": ' + "9" * 5000 + "}]", "the number 9999999999... has 5,000 digits"),
        ("a.jsonl", '{"reward": ' + "9" * 5000 + "}", "the number 9999999999... has 5,000 digits"),
    ],
)
def test_tables_that_begin_otherwise(name: str, content: bytes | str, message: str, tmp_path: Path) -> None:
    """Bug: advice about something else, such as a setting of Python, or a list of rows that is called empty."""
    with pytest.raises(UserError, match=message):
        read_file(str(put(tmp_path, name, content)))


def test_blank_lines_before_the_header(tmp_path: Path) -> None:
    """Bug: the rows were said to have more cells than the header."""
    (item,), _ = read_file(str(put(tmp_path, "a.csv", "\n \r\nprompt;completion;reward\na;b;1\n")))
    assert item.completion == "b"


def test_a_list_of_rows_beside_other_fields(tmp_path: Path) -> None:
    """Bug: the document promises that it is read, and it was refused."""
    found, source = read_file(str(put(tmp_path, "a.json", json.dumps({"version": 1, "data": [ROW, ROW]}))))
    assert len(found) == 2 and any("under data; what stands beside them was not read: version" in note for note in source.notes)


def test_parquet_that_cannot_be_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: lines of a library before the message, sixteen lines about two columns of a name, a batch size of no rows."""
    whole = pyarrow.table({name: [value] * 50 for name, value in ROW.items()})
    twice = pyarrow.table([["a"], [1.0], [2.0]], names=["prompt", "reward", "reward"])
    tables = [("empty", whole.slice(0, 0), "is empty"), ("twice", twice, "'reward' in columns 2 and 3"), ("hurt", whole, "read")]
    for name, table, message in tables:
        file = tmp_path / f"{name}.parquet"
        parquet.write_table(table, file)
        if name == "hurt":
            data = file.read_bytes()
            file.write_bytes(data[:10] + b"\xff" * 60 + data[70:])
        with pytest.raises(UserError, match=message) as caught:
            read_file(str(file))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"cannot be read as parquet: .*\. Fetch or copy it again"):
        read_file(str(put(tmp_path, "bad.parquet", b"PAR1 no table PAR1")))
    assert capfd.readouterr() == ("", "")
