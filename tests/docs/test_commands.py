"""Every command line of the documents is run, small, in the order in which it stands there; or it is listed with a reason."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dqnlm import cli
from dqnlm.utils import permissions
from tests.docs import documents, smoke
from tests.docs.documents import ROOT
from tests.helpers.processes import started
from tests.helpers.runs import WORDS

KEYS = "q\n"  # what is typed where a command asks
SLOW = (  # run by scripts/test --slow
    "docs/algorithms.md", "docs/extending.md", "docs/many_processes.md", "docs/sweeps.md", "docs/tasks.md", "docs/tutorial.md",
)  # fmt: skip
LONG = 30_000  # bytes of a text or log that a test reads


def _executable(line: str) -> None:
    assert os.access(ROOT / line.split()[0], os.X_OK), f"{line}: no such program, or it has no run bit"


def _reproduces(line: str) -> None:
    _executable(line)
    assert line.split()[1] in reproducible(), f"{line}: studies/reproduce knows no such name"


def _study(line: str) -> None:
    _executable(line)
    assert (ROOT / line.split()[1]).is_file(), f"{line}: there is no such file"


def _extras(line: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\[([\w,]+)\]", line)
    assert {extra for names in named for extra in names.split(",")} <= known.keys(), line


def _nothing(line: str) -> None:
    del line


# Beginning of a line, why it is not run, and what is checked instead.
NOT_RUN: list[tuple[str, str, Callable[[str], None]]] = [
    ("git clone ", "needs the network", _nothing),
    ("scripts/setup", "installs packages", _executable),
    ("source .venv/bin/activate", "changes the shell", _nothing),
    ("python3 -m venv .venv", "makes an environment; pip, in the next lines, needs the network", _nothing),
    ("pip install ", "needs the network", _extras),
    ("scripts/test", "runs this very test", _executable),
    ("scripts/faults.py", "runs tests for half an hour", _executable),
    ("scripts/damaged_runs.py", "runs 520 commands", _executable),
    ("scripts/random_settings.py", "runs 500 commands", _executable),
    ("studies/reproduce ", "trains for minutes or hours", _reproduces),
    ("scripts/python studies/", "trains for minutes or hours", _study),
    ("dqnlm train -m hydra/launcher=joblib ", "needs the package of an extra", _nothing),
    ("dqnlm train +experiment=random_walks_online actors=ray ", "needs the package of an extra", _nothing),
    ("dqnlm train -m hydra/sweeper=optuna ", "needs the packages of an extra", _nothing),
    ("tensorboard ", "a server that does not end", _nothing),
    ("dqnlm report latest --watch", "a server that does not end", _nothing),
]


def reproducible() -> set[str]:
    """The names that `studies/reproduce` knows."""
    listed = subprocess.run([ROOT / "studies" / "reproduce"], capture_output=True, text=True, check=False).stdout
    return set(listed.split("names:")[1].split())


def listed(line: str) -> Callable[[str], None] | None:
    """The check of a line that is not run; None where it has to be run."""
    return next((check for beginning, _, check in NOT_RUN if line.startswith(beginning)), None)


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 4))) for _ in range(count)]


def write_data(folder: Path) -> Path:
    """What the documents expect in $DQNLM_DATA_DIR, some lines of each; tiny Shakespeare is not there."""
    for name in ("multi30k", "dailydialog"):
        (folder / name).mkdir(parents=True)
    for part in ("train", "val", "test_2016_flickr"):
        for seed, language in enumerate(("de", "en")):
            (folder / "multi30k" / f"{part}.{language}").write_text("\n".join(sentences(60, seed)) + "\n")
    dialogues = [
        f"{a} __eou__ {b} __eou__ {a} __eou__\n" for a, b in zip(sentences(40, 2), sentences(40, 3), strict=True)
    ]
    (folder / "dailydialog" / "dialogues_1k_en.txt").write_text("".join(dialogues))
    return folder


def write_logs(folder: Path) -> None:
    """Files of the user's own that the documents describe by a line, and not by a block or a command."""
    pairs = zip(sentences(200, 4), sentences(200, 5), strict=True)
    lines = [json.dumps({"translation": {"de": a, "en": b}}) for a, b in pairs]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    draw = random.Random(6)
    walks = [
        {"prompt": draw.choice("bcde"), "completion": "".join(draw.choices("bcde", k=3)) + "a", "reward": draw.random()}
        for _ in range(40)
    ]
    (folder / "walks.jsonl").write_text("".join(json.dumps(walk) + "\n" for walk in walks))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that looks like a checkout, without network and data."""
    for name in ("docs", "scripts", "studies", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("DQNLM_DATA_DIR", str(write_data(tmp_path / "data")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no_cache"))
    write_logs(tmp_path)
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def shorten(path: Path) -> None:
    """Cuts a long text or log at the end of a line."""
    text = path.read_text(encoding="utf-8")
    if len(text) > LONG:
        path.write_text(text[: text.rindex("\n", 0, LONG) + 1], encoding="utf-8")


def run_shell(line: str) -> None:
    """A line of Python with its redirection; what it wrote is shortened."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    if " > " in line:
        shorten(Path(line.rsplit(" > ", 1)[1].strip()))


def run_dqnlm(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`[VARIABLE=value] dqnlm ...`, or `echo '...' | dqnlm ...`, in this process."""
    typed = KEYS
    if line.startswith("echo "):
        said, line = line.split(" | ", 1)
        typed = " ".join(documents.words(said)[1][1:]) + "\n"
    variables, words = documents.words(line)
    assert variables.keys() <= {"PYTHONPATH"} and words[0] in ("dqnlm", "scripts/dqnlm"), f"cannot be run here: {line}"
    if variables:
        sys.path.insert(0, str(Path.cwd() / variables["PYTHONPATH"]))
    arguments = shortened(words[1:])
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    permissions.forget_permissions()  # each line is a process of its own, for the reader
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = cli.main(arguments)
    assert code == 0, f"{line}\nrun as: dqnlm {' '.join(arguments)}\n{out.getvalue()[-3000:]}"


def shortened(arguments: list[str]) -> list[str]:
    """The arguments of a command of dqnlm with settings that make it short."""
    if arguments[0] == "train":
        return ["train", *smoke.settings(arguments[1:])]
    return smoke.longer(arguments) if arguments[0] == "resume" else arguments


def run_torchrun(line: str) -> None:
    """`torchrun ... -m dqnlm ...`, in processes of its own."""
    words = documents.words(line)[1]
    at = words.index("dqnlm") + 1
    with started([*words[:at], *shortened(words[at:])]) as process:
        out, error = process.communicate(timeout=120)
    assert process.returncode == 0, f"{line}\n{out}{error}"[-3000:]


@pytest.mark.parametrize(
    "document", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else []) for name in documents.ENGLISH]
)
def test_commands_run(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a command that no longer exists, a setting that was renamed, an example that fails as it stands."""
    for block in documents.blocks(documents.read(document)):
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        for line in documents.commands(block) if block.language == "bash" else []:
            check = listed(line)
            if check is not None:
                check(line)
            elif line.startswith("python "):
                run_shell(line)
            elif line.startswith("torchrun "):
                run_torchrun(line)
            else:
                run_dqnlm(line, monkeypatch)


def test_python_blocks_are_python(folder: Path) -> None:
    """Bug: an example in Python, or in JSON, with a mistake in it."""
    found = 0
    for document in documents.DOCUMENTS:
        for block in documents.blocks(documents.read(document)):
            if block.language == "python":
                compile(block.text, f"{document}:{block.line}", "exec")
                found += 1
            if block.language == "json":
                [json.loads(line) for line in block.text.splitlines()]
    assert found >= 6, "the search for blocks finds none"


def test_inline_commands_exist() -> None:
    """Bug: a sub-command, a study or a file that the text names in passing is gone."""
    names = reproducible()
    for document in documents.DOCUMENTS:
        for code in documents.inline(documents.read(document)):
            words = code.split()
            if words[0] == "dqnlm" and len(words) > 1 and not words[1].startswith("-"):
                assert words[1] in cli.COMMANDS, f"{document}: `{code}`"
            if words[0] == "studies/reproduce" and len(words) > 1:
                assert words[1] in {*names, "NAME"}, f"{document}: `{code}`"
            if re.fullmatch(r"(dqnlm|tests|studies|scripts|configs|docs)/[\w./-]*", words[0]):
                assert (ROOT / words[0]).exists(), f"{document}: `{code}`"


def test_commands_of_the_results_exist() -> None:
    """Bug: a table whose command is not there."""
    paragraphs = documents.read("docs/results.md").split("\n\n")
    lists = [text.split(" (")[0] for text in paragraphs if text.startswith("Command")]
    names = [name.removeprefix("studies/reproduce ") for text in lists for name in documents.inline(text)]
    assert len(names) > 20 and set(names) <= reproducible(), set(names) - reproducible()
    tables = [text for text in paragraphs if text.startswith("|")]
    assert len(lists) >= len(tables), "a table without a command"
