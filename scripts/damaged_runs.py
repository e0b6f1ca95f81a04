#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Damages each file of small runs in many ways and calls each command on them: no traceback, whatever is done to a run.

    scripts/damaged_runs.py                    a run on text, one on a log, a sweep: all damages, all commands
    scripts/damaged_runs.py --only manifest    those of files whose name holds this
    scripts/damaged_runs.py --cases 600        so many, drawn at random (--seed)

A case is a copy of a run, one file of it damaged, one command, in a process of its own. Exit codes 0, 1 (a run that failed) and 2
with one message are right; a traceback, a crash of the interpreter, and a command that does not end are not. Ends with code 1
where there was one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from scripts.apart import TRACEBACK, apart, judged, prepare

COMMANDS = ("eval", "generate", "resume", "report", "runs", "inspect")
OF_SWEEPS = ("report", "runs", "again")
RIGHT = ("0", "1", "2")
SWEPT = ["-m", "+experiment=debug/smoke", "seed=0,1"]
Damage = Callable[[Path], object]


class Case(NamedTuple):
    """One file of a run, what is done to it, and the command that follows."""

    run: Path
    file: Path
    damage: str
    command: str

    def __str__(self) -> str:
        return f"{self.run.name}: {self.file} {self.damage}: {self.command}"


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _cut_between_lines(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for i in range(0, len(content), max(len(content) // 7, 1)):
        content[i] ^= 0x55
    path.write_bytes(bytes(content))


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _value(path: Path, draw: random.Random) -> None:
    """Puts a value of another type in the place of one of a JSON or YAML file, at any depth; of JSON lines in a line."""
    import yaml

    text = path.read_text(encoding="utf-8")
    lines = path.suffix == ".jsonl"
    tree: Any = [json.loads(line) for line in text.splitlines()] if lines else yaml.safe_load(text)  # JSON is YAML
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = draw.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and draw.random() < (1.0 if node is tree and lines else 0.6):
            node = node[key]
            continue
        node[key] = draw.choice([None, [], {}, "x", "", -1, 1e30, True, [[1]], {"a": None}, 10**30, "../../etc"])
        break
    dumped = "".join(json.dumps(line) + "\n" for line in tree) if lines else json.dumps(tree)
    path.write_text(yaml.safe_dump(tree) if path.suffix == ".yaml" else dumped, encoding="utf-8")


DAMAGES: dict[str, Damage] = {
    "deleted": Path.unlink, "emptied": lambda path: path.write_bytes(b""), "cut": _cut,
    "cut between lines": _cut_between_lines, "flipped bytes": _flipped, "a folder": _folder,
    "noise": lambda path: path.write_bytes(bytes((i * 167 + 13) % 256 for i in range(300))),
    "a list": lambda path: path.write_text("[1, 2]\n"), "a number": lambda path: path.write_text("7\n"),
    "another object": lambda path: path.write_text('{"status": [], "data": 3, "own_code": [1], "choices": "x", "best": 1}\n'),
    "deeply nested": lambda path: path.write_text("[" * 100_000),
    "a long number": lambda path: path.write_text('{"seed": ' + "9" * 5000 + "}"),
    "a date that is none": lambda path: path.write_text("seed: 2024-99-99\n"),
    "aliases of aliases": lambda path: path.write_text(
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    ),
    "an alias of itself": lambda path: path.write_text("seed: &x [*x]\n"),
    "code as YAML": lambda path: path.write_text("!!python/object/apply:os.system ['false']\n"),
    "UTF-16": lambda path: path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16")),
    "a link to nothing": lambda path: _link(path, "nowhere"), "a link to itself": lambda path: _link(path, path.name),
}  # fmt: skip
VALUES = 8  # further damages of each JSON and YAML file: a value of another type somewhere


def damages_of(file: Path) -> dict[str, Damage]:
    """The damages of a file by name; the same ones each time."""
    found = dict(DAMAGES)
    for number in range(VALUES if file.suffix in (".json", ".jsonl", ".yaml") else 0):
        found[f"value {number}"] = functools.partial(_value, draw=random.Random(f"{file} {number}"))
    return found


def train(folder: Path, *words: str) -> Path:
    """A run, or a sweep, of a few updates."""
    from dqnlm import cli

    place = "hydra.sweep.dir" if "-m" in words else "hydra.run.dir"
    usual = ["progress=false", "logger=none", "network.layers=1", "network.width=16", f"{place}={folder}", "threads=1"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["train", *words, *usual]) == 0
    return folder


def text_run(folder: Path) -> Path:
    """A run on text."""
    text = folder / "my.txt"
    text.write_text("".join(f"line {i} of {i * i % 97} words, and some more\n" for i in range(120)), encoding="utf-8")
    smoke = ["+debug=smoke", "max_rounds=3", "env.horizon=8", "env.num_envs=8", "network.context=24"]
    return train(folder / "text", "+experiment=shakespeare", "data=text_file", f"data.path={text}", *smoke)


def log_run(folder: Path) -> Path:
    """A run on a log."""
    log = folder / "log.jsonl"
    rows = [{"prompt": f"say {i % 9}:", "completion": "yes" if i % 2 else "no", "reward": i % 2} for i in range(40)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    few = ["trainer.offline_rounds=2", "evaluation.every=1", "network.context=24"]
    return train(folder / "log", "+experiment=logged", f"data.path={log}", *few)


def sweep_of_runs(folder: Path) -> Path:
    """A sweep of two."""
    return train(folder / "sweep", *SWEPT)


MAKERS = (text_run, log_run, sweep_of_runs)


def arguments_of(command: str, run: Path) -> list[str]:
    """A short call of a command on a run."""
    if command == "again":  # the command of the sweep, which goes on with it
        usual = ["progress=false", "logger=none", "network.layers=1", "network.width=16", "threads=1"]
        return ["train", *SWEPT, f"hydra.sweep.dir={run}", *usual]
    more = {
        "generate": ["--max-tokens", "4", "--prompt", "line"], "resume": ["max_rounds=4", "trainer.rollouts=4"],
        "report": ["--output", str(run.parent / "report.html")], "runs": ["--output-dir", str(run.parent)],
        "inspect": ["--text", "line 1", "--output", str(run.parent / "inspect.html")],
    }  # fmt: skip
    if command == "resume" and run.name == "log":
        more["resume"] = ["trainer.offline_rounds=3"]
    return [command, *([] if command == "runs" else [str(run)]), *more.get(command, [])]


def call(arguments: list[str]) -> tuple[str, str]:
    """How a command ended (as of `apart`), and what it printed, in this process."""
    from dqnlm import cli

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code: Any = cli.main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            return TRACEBACK, traceback.format_exc()
    return judged(str(code), said.getvalue()), said.getvalue()


def call_apart(arguments: list[str]) -> tuple[str, str]:
    """As `call`, in a process of its own."""
    from dqnlm import cli

    return apart(lambda: cli.main(arguments))


def files_of(run: Path) -> list[Path]:
    """Relative paths of the files of a run (of a sweep, those of the first job alone), of one checkpoint those of the newest."""
    found = []
    newest = {path.parent: path.name for path in sorted(run.rglob("step-*"))}
    first = next(iter(sorted(path.name for path in run.glob("0-*"))), None)
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        parts = path.relative_to(run).parts
        step = next((parent for parent in path.parents if parent.name.startswith("step-")), None)
        if (step is None or newest[step.parent] == step.name) and (first is None or len(parts) == 1 or parts[0] == first):
            found.append(path.relative_to(run))
    return found


def cases_of(run: Path) -> list[Case]:
    """Every file, every damage, every command."""
    commands = OF_SWEEPS if (run / "sweep.json").exists() else COMMANDS
    return [Case(run, file, damage, name) for file in files_of(run) for damage in damages_of(file) for name in commands]


def tried(case: Case, work: Path, how: Callable[[list[str]], tuple[str, str]] = call) -> tuple[str, str]:
    """How the command ended on a damaged copy below `work`, and what it printed."""
    shutil.rmtree(work, ignore_errors=True)
    copy = work / case.run.name
    shutil.copytree(case.run, copy)
    damages_of(case.file)[case.damage](copy / case.file)
    return how(arguments_of(case.command, copy))


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="part of a file's name")
    parser.add_argument("--cases", type=int, help="number, drawn at random; all without it")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    prepare()
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = list[Case]()
        for make in MAKERS:
            ended, said = apart(functools.partial(make, folder), 600)
            assert (folder / make.__name__.split("_")[0]).is_dir(), f"{ended}: {said}"
            cases += cases_of(folder / make.__name__.split("_")[0])
        cases = [case for case in cases if arguments.only in str(case.file)]
        if arguments.cases is not None:
            cases = random.Random(arguments.seed).sample(cases, min(arguments.cases, len(cases)))
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: what was counted until then
            for case in cases:
                ended, said = tried(case, folder / "work", call_apart)
                counts[ended] += 1
                if ended not in RIGHT:
                    print(f"{case}: {ended}\n{said}", flush=True)
    print(f"{sum(counts.values())} cases: {dict(sorted(counts.items()))}")
    return int(any(ended not in RIGHT for ended in counts))


if __name__ == "__main__":
    sys.exit(main())
