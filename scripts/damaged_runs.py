#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Damages each file of small runs in every way and calls each command on them: no traceback, whatever is done to a run.

    scripts/damaged_runs.py                    a run on text and one on a log, all damages, all commands
    scripts/damaged_runs.py --only manifest    those of files whose name holds this

A case is a copy of a run, one file of it damaged, one command. Counts exit codes; 0, 1 and 2 with a message are right,
a traceback is not. Ends with code 1 where there was one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

COMMANDS = ("eval", "generate", "resume", "report", "runs", "inspect")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for i in range(0, len(content), max(len(content) // 7, 1)):
        content[i] ^= 0x55
    path.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink, "emptied": lambda path: path.write_bytes(b""), "cut": _cut, "flipped bytes": _flipped,
    "a folder": _folder,
    "noise": lambda path: path.write_bytes(bytes((i * 167 + 13) % 256 for i in range(300))),
    "a list": lambda path: path.write_text("[1, 2]\n"), "a number": lambda path: path.write_text("7\n"),
    "another object": lambda path: path.write_text('{"status": [], "data": 3, "own_code": [1], "choices": "x", "best": 1}\n'),
    "deeply nested": lambda path: path.write_text("[" * 100_000),
}  # fmt: skip


def train(folder: Path, *words: str) -> Path:
    """A run of a few updates."""
    from dqnlm import cli

    usual = ["progress=false", "logger=none", "network.layers=1", "network.width=16", f"hydra.run.dir={folder}", "threads=1"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["train", *words, *usual]) == 0
    return folder


def small_runs(folder: Path) -> Iterator[Path]:
    """A run on text and one on a log."""
    text, log = folder / "my.txt", folder / "log.jsonl"
    text.write_text("".join(f"line {i} of {i * i % 97} words, and some more\n" for i in range(120)), encoding="utf-8")
    rows = [{"prompt": f"say {i % 9}:", "completion": "yes" if i % 2 else "no", "reward": i % 2} for i in range(40)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    smoke = ["+debug=smoke", "max_rounds=3", "env.horizon=8", "env.num_envs=8", "network.context=24"]
    yield train(folder / "text", "+experiment=shakespeare", "data=text_file", f"data.path={text}", *smoke)
    few = ["trainer.offline_rounds=2", "evaluation.every=1", "network.context=24"]
    yield train(folder / "log", "+experiment=logged", f"data.path={log}", *few)


def arguments_of(command: str, run: Path) -> list[str]:
    """A short call of a command on a run."""
    more = {
        "generate": ["--max-tokens", "4", "--prompt", "line"], "resume": ["max_rounds=4", "trainer.rollouts=4"],
        "report": ["--output", str(run.parent / "report.html")], "runs": ["--output-dir", str(run.parent)],
        "inspect": ["--text", "line 1", "--output", str(run.parent / "inspect.html")],
    }  # fmt: skip
    if command == "resume" and run.name == "log":
        more["resume"] = ["trainer.offline_rounds=3"]
    return [command, *([] if command == "runs" else [str(run)]), *more.get(command, [])]


def call(arguments: list[str]) -> tuple[int, str]:
    """Exit code, and what was said; a traceback is code -1."""
    from dqnlm import cli

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = cli.main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            return -1, traceback.format_exc()
    return code, said.getvalue()


def files_of(run: Path) -> list[Path]:
    """Relative paths of the files of a run, of one checkpoint those of the newest."""
    newest = sorted((run / "checkpoints").glob("step-*"))[-1].name
    files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
    return [path for path in files if "step-" not in str(path) or newest in str(path)]


def sweep(run: Path, work: Path, files: list[Path], damages: list[str], commands: list[str]) -> Iterator[tuple[str, int, str]]:
    """Each case: its name, the exit code, what was said."""
    for file in files:
        for damage in damages:
            for command in commands:
                shutil.rmtree(work, ignore_errors=True)
                copy = work / run.name
                shutil.copytree(run, copy)
                DAMAGES[damage](copy / file)
                code, said = call(arguments_of(command, copy))
                yield f"{run.name}: {file} {damage}: {command}", code, said


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="part of a file's name")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    arguments = parser.parse_args()
    codes: collections.Counter[int] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run in small_runs(folder):
            files = [file for file in files_of(run) if arguments.only in str(file)]
            for case, code, said in sweep(run, folder / "work", files, list(DAMAGES), arguments.commands.split(",")):
                codes[code] += 1
                if code == -1 or "Traceback" in said:
                    print(f"{case}\n{said}", flush=True)
    print(f"{sum(codes.values())} cases; exit codes {dict(sorted(codes.items()))} (-1: a traceback)")
    return int(codes[-1] > 0)


if __name__ == "__main__":
    sys.exit(main())
