"""Texts that are no JSON or YAML, however they are none: a ValueError, and no end of the interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqnlm.config.run_config import load_run_config
from dqnlm.errors import UserError
from dqnlm.metrics import JsonLines
from dqnlm.reporting.loading import read_config, read_json, read_lines, read_tail
from dqnlm.runs.console import RunConsole
from dqnlm.runs.reading import read_object
from dqnlm.utils import parsing
from dqnlm.utils.files import sha256_of_file
from dqnlm.utils.parsing import json_value, yaml_value

DEEP = 100_000
ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
NO_JSON = {"brackets": "[" * DEEP, "braces": '{"a":' * DEEP, "a long number": "9" * 5000, "nothing": "", "bytes": b"\xff\xfe["}
NO_YAML = {
    "brackets": "[" * DEEP, "braces": "{a: " * DEEP, "dashes": "- " * DEEP, "a long number": "9" * 5000, "aliases": ALIASES,
    "an alias of itself": "a: &a [*a]", "an alias of nothing": "*a", "a date that is none": "2024-99-99",
    "an empty integer": '!!int ""',
    "a truth that is none": "!!bool x", "code": "!!python/object/apply:os.system [true]",
    "two documents": "a: 1\n---\nb: 2\n",
    "a key that is none": "{[]: 1}", "a NUL": "a: \x00",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_JSON)
def test_no_json(name: str) -> None:
    """Bug: a RecursionError, or the plain ValueError of a number of 5,000 digits, where only JSONDecodeError was expected."""
    with pytest.raises(ValueError):
        json_value(NO_JSON[name])


@pytest.mark.parametrize("name", NO_YAML)
def test_no_yaml(name: str) -> None:
    """Bug: brackets end the interpreter in the parser written in C, `2024-99-99` and `!!int ""` in errors of Python's own."""
    with pytest.raises(ValueError):
        yaml_value(NO_YAML[name])


def test_what_configurations_have_is_read() -> None:
    """Bug: the limits refuse what runs write: lists that two settings share are written as an alias."""
    assert yaml_value("a: &a [1, 2]\nb: *a\nc: {d: [x, null, 1.5]}") == {"a": [1, 2], "b": [1, 2], "c": {"d": ["x", None, 1.5]}}
    assert yaml_value("") is None
    levels = parsing.MOST_LEVELS
    assert yaml_value("[" * levels + "]" * levels) and json_value('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="levels"):
        yaml_value("[" * (levels + 1) + "]" * (levels + 1))


@pytest.mark.parametrize("name", NO_YAML)
def test_every_reader_of_a_configuration(tmp_path: Path, name: str) -> None:
    """Bug: the class is mended in one reader of config.yaml and not in the other."""
    file = tmp_path / "config.yaml"
    file.write_text(NO_YAML[name], encoding="utf-8")
    for read in (load_run_config, read_config):
        with pytest.raises(UserError, match=r"config\.yaml"):
            read(file)


@pytest.mark.parametrize("name", NO_JSON)
def test_every_reader_of_json(tmp_path: Path, name: str) -> None:
    """Bug: as above, of summary.json, manifest.json and metrics.jsonl."""
    file, content = tmp_path / "summary.json", NO_JSON[name]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"summary\.json"):
        read_json(file)
    assert read_object(file) == {}
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(UserError, match=r"summary\.json"):
        read_lines(file, [])


@pytest.mark.parametrize(
    "read",
    [
        read_config, read_json, load_run_config, JsonLines, sha256_of_file, lambda file: read_lines(file, []),
        lambda file: read_tail(file, []), lambda file: RunConsole(file, False),
    ],
)  # fmt: skip
def test_a_device_in_the_place_of_a_file_of_a_run_is_refused(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    """Bug: a pipe there is waited for, and a device without an end is read without one."""
    (tmp_path / "file").symlink_to(os.devnull)
    with pytest.raises(UserError, match="file is no regular file"):
        read(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    assert read_object(tmp_path / "pipe") == {}
