#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Injects faults into a copy of the package, one at a time, and says which of them no test notices.

    scripts/faults.py                        all faults of tests/faults/*.txt; one file is one area
    scripts/faults.py --area ops --area heads
    scripts/faults.py --only returns.py      those whose file, tests or text contain this
    scripts/faults.py --changed main         those whose file or tests differ from a commit

A list holds faults like this one; lines with # are comments, the one above a fault says what is wrong with it:

    # n-step: the discount of the last step is left out
    @ dqnlm/ops/returns.py : tests/ops/test_returns.py tests/objectives/test_objectives.py::test_by_hand
    - exact text of consecutive lines of the file, which must occur there once (blanks before and behind them do not count)
    + the lines in their place; none deletes them
    = reason: the fault changes nothing that can be observed (equivalent); it is run, and not counted

For each fault only the tests that it names are run, until the first fails. Each worker has its own copy of the checkout, and
is a process that has imported the libraries already: it forks for each fault, so that most take two or three seconds. Before,
the tests are run without any fault; the faults of a test that fails then are not tried. Exit code 1: a fault survived or does
not apply any more, an equivalent one was noticed, or a test fails without a fault.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import importlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

CHECKOUT = Path(__file__).resolve().parents[1]
LISTS = CHECKOUT / "tests" / "faults"
_COPIED = ("dqnlm", "configs", "tests", "scripts", "docs", "pyproject.toml", "constraints.txt", "README.md")
_WARM = ("torch", "pytest", "yaml", "numpy", "hydra", "omegaconf", "datasets", "rich.table", "tqdm", "torch.nn.functional")


@dataclass
class Fault:
    """One entry of a list.

    Attributes:
        place: the list and the line of the entry in it.
        old, new: lines without the blanks before them (`old`), or with those beyond the first line's (`new`).
        equivalent: why no test can notice it; "" where one should.
    """

    area: str
    place: str
    title: str
    path: str
    tests: list[str]
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    equivalent: str = ""

    def apply(self, source: str) -> str:
        """The text of the file with this fault.

        Raises:
            ValueError: the old lines do not occur, or more than once, or the result is not a valid file.
        """
        lines, old = source.split("\n"), [line.strip() for line in self.old]
        found = [
            i for i in range(len(lines) - len(old) + 1) if [line.strip() for line in lines[i : i + len(old)]] == old
        ]
        if len(found) != 1:
            raise ValueError(f"the old lines occur {len(found)} times in {self.path}, not once")
        begin = found[0]
        indent = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
        changed = "\n".join(lines[:begin] + [indent + line for line in self.new] + lines[begin + len(old) :])
        if self.path.endswith(".py"):
            try:
                ast.parse(changed)
            except SyntaxError as error:
                raise ValueError(f"{self.path} does not parse with the new lines: {error}") from error
        return changed

    def stale(self, root: Path = CHECKOUT) -> str:
        """Why the fault cannot be tried any more; "" where it can."""
        if not (root / self.path).is_file():
            return f"{self.path} is not there"
        for test in self.tests:
            name, _, function = test.partition("::")
            if not (root / name).exists():
                return f"{name} is not there"
            if function and f"def {function.partition('[')[0]}(" not in (root / name).read_text(encoding="utf-8"):
                return f"{name} has no {function}"
        try:
            changed = self.apply((root / self.path).read_text(encoding="utf-8"))
        except ValueError as error:
            return str(error)
        return "" if changed != (root / self.path).read_text(encoding="utf-8") else "it changes nothing"


def read(text: str, area: str) -> list[Fault]:
    """The faults of one list.

    Raises:
        ValueError: a line that is none of the forms of the module's text, or an entry without tests or old lines.
    """
    faults: list[Fault] = []
    title = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark, rest = line[:1], line[2:]
        if not line.strip():
            title = ""
        elif mark == "#":
            title = rest
        elif mark == "@":
            path, _, tests = rest.partition(" : ")
            faults.append(Fault(area, f"{area}.txt:{number}", title, path.strip(), tests.split()))
        elif mark in "-+=" and faults:
            fault = faults[-1]
            if mark == "=":
                fault.equivalent = rest
            else:
                (fault.old if mark == "-" else fault.new).append(rest)
        else:
            raise ValueError(f"{area}.txt:{number}: a line begins with #, @, -, + or =, and this is {line!r}")
    for fault in faults:
        if not fault.tests or not fault.old or not fault.title:
            raise ValueError(f"{fault.place}: a fault has a title (#), at least one test, and the old lines (-)")
    return faults


def all_faults(folder: Path = LISTS) -> list[Fault]:
    """Those of all lists, by area."""
    return [
        fault for path in sorted(folder.glob("*.txt")) for fault in read(path.read_text(encoding="utf-8"), path.stem)
    ]


def table(results: Sequence[tuple[Fault, str]]) -> str:
    """Numbers by area: killed of those that are not equivalent."""
    rows = [("area", "faults", "killed", "survived", "not tried", "equivalent", "killed, %")]
    areas = dict.fromkeys(fault.area for fault, _ in results)
    for area in [*areas, "all"]:
        own = [(fault, verdict) for fault, verdict in results if area in (fault.area, "all")]
        real = [verdict for fault, verdict in own if not fault.equivalent]
        counts = [real.count("killed"), real.count("survived"), real.count("stale") + real.count("broken")]
        share = f"{100 * counts[0] / len(real):.1f}" if real else "-"
        rows.append((area, str(len(real)), *map(str, counts), str(len(own) - len(real)), share))
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ("---",) * len(rows[0]), *rows[1:]))


# ---- a worker: a process that has imported the libraries, and forks for each fault


def _work(root: Path, limit: float) -> None:
    """Reads tasks (one line of JSON each) and answers each with a line of JSON."""
    os.chdir(root)
    sys.path.insert(0, str(root))
    for name in _WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    written = 0
    for line in sys.stdin:
        task = json.loads(line)
        original, path = None, root / task["path"]
        if task["source"] is not None:
            original, stat = path.read_bytes(), path.stat()
            path.write_text(task["source"], encoding="utf-8")
            written += 1  # a time of its own, so that no compiled file of another fault passes for its own
            os.utime(path, (stat.st_atime, time.time() + 10 * written))
        try:
            verdict, by, seconds = _try(root, task["tests"], limit)
        finally:
            if original is not None:
                path.write_bytes(original)
                os.utime(path, (stat.st_atime, stat.st_mtime))
        print(json.dumps({"verdict": verdict, "by": by, "seconds": seconds}), file=answers, flush=True)


def _try(root: Path, tests: list[str], limit: float) -> tuple[str, str, float]:
    """`survived`, `killed` or `broken` (the tests cannot be run), the test that failed, and the seconds."""
    begin, output = time.monotonic(), root / "output"
    child = os.fork()
    if child == 0:
        os._exit(_child(root, tests, output))
    status = None
    while status is None and time.monotonic() - begin < limit:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = code
        else:
            time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # also what the tests have started
    seconds = time.monotonic() - begin
    if status is None:
        os.waitpid(child, 0)
        return "killed", f"took more than {limit:g} s", seconds
    code = os.waitstatus_to_exitcode(status)
    text = output.read_text(encoding="utf-8", errors="replace")
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)", text, re.MULTILINE)
    if code == 0:
        return "survived", "", seconds
    if code in (1, 2) or code < 0:
        return "killed", failed[0] if failed else f"ended with {code}", seconds
    return "broken", text[-2000:], seconds


def _child(root: Path, tests: list[str], output: Path) -> int:
    """Runs the tests in the forked process; its exit code."""
    os.setsid()
    with open(output, "wb") as file, open(os.devnull, "rb") as nothing:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        os.dup2(nothing.fileno(), 0)
        import pytest
        import torch

        os.environ["COLUMNS"] = "200"  # of the message of a test that fails
        torch.set_num_threads(1)
        arguments = ["-x", "-rfE", "--tb=short", "-p", "no:cacheprovider", f"--basetemp={root / 'temporary'}", *tests]
        code = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    return code


# ---- the main process


class Worker:
    """A process that tries faults in a copy of the checkout of its own."""

    def __init__(self, root: Path, limit: float) -> None:
        root.mkdir()
        for name in _COPIED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, root / name)
        (root / "dqnlm" / "configs").symlink_to(root / "configs")  # beside the package, where an installed one has it
        compileall.compile_dir(root / "dqnlm", quiet=1)
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "DQNLM_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker", str(root), "--limit", str(limit)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root,
        )  # fmt: skip

    def ask(self, tests: list[str], path: str = "", source: str | None = None) -> dict[str, Any]:
        """Runs the tests, with another text of one file if that is given."""
        send, receive = self.process.stdin, self.process.stdout
        assert send is not None and receive is not None
        _send(send, {"path": path, "tests": tests, "source": source})
        line = receive.readline()
        if not line:
            raise RuntimeError("a worker has died; see its message above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _send(stream: IO[str], task: dict[str, Any]) -> None:
    stream.write(json.dumps(task) + "\n")
    stream.flush()


def run(faults: list[Fault], jobs: int, limit: float, check_first: bool) -> list[tuple[Fault, str]]:
    """Tries all faults, with a line for each as it is done: killed, survived, stale, or broken (not tried)."""
    with tempfile.TemporaryDirectory(prefix="dqnlm-faults-") as folder:
        workers = [Worker(Path(folder).resolve() / str(i), limit) for i in range(jobs)]
        try:
            failing = _failing(faults, workers) if check_first else set[str]()
            results: dict[str, str] = {}

            def tried(worker: Worker, fault: Fault) -> dict[str, Any]:
                return _tried(worker, fault, failing)

            for number, (fault, answer) in enumerate(_each(faults, workers, tried), 1):
                results[fault.place] = answer["verdict"]
                said = answer["by"].split("\n")[-1] if answer["verdict"] != "broken" else "\n" + answer["by"]
                kind = " (equivalent)" if fault.equivalent else ""
                print(
                    f"{number:>4}/{len(faults)} {answer['seconds']:5.1f} s  {answer['verdict'] + kind:<9} {fault.place:<18} "
                    f"{fault.title}  {said}", flush=True,
                )  # fmt: skip
            return [(fault, results[fault.place]) for fault in faults]
        finally:
            for worker in workers:
                worker.process.terminate()
                worker.process.wait()


def _failing(faults: list[Fault], workers: list[Worker]) -> set[str]:
    """Runs every test that is named, without a fault; those that fail."""
    names = sorted({test for fault in faults for test in fault.tests})
    names = [name for name in names if "::" not in name or name.partition("::")[0] not in names]
    found = set()
    for name, answer in _each(names, workers, lambda worker, name: worker.ask([name])):
        if answer["verdict"] != "survived":
            print(f"fails without a fault: {name}: {answer['by']}", flush=True)
            found.add(name)
        elif answer["seconds"] > 15:
            print(f"takes {answer['seconds']:.0f} s: {name}", flush=True)
    return found


def _tried(worker: Worker, fault: Fault, failing: set[str]) -> dict[str, Any]:
    if why := fault.stale():
        return {"verdict": "stale", "by": why, "seconds": 0.0}
    if spoilt := [test for test in fault.tests if test in failing or test.partition("::")[0] in failing]:
        return {"verdict": "broken", "by": f"{spoilt[0]} fails without a fault", "seconds": 0.0}
    source = fault.apply((CHECKOUT / fault.path).read_text(encoding="utf-8"))
    return worker.ask(fault.tests, fault.path, source)


def _each(items: Sequence[Any], workers: list[Worker], ask: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(item, answer) in the order in which they are done."""
    waiting: queue.Queue[Any] = queue.Queue()
    done: queue.Queue[Any] = queue.Queue()
    for item in items:
        waiting.put(item)

    def serve(worker: Worker) -> None:
        try:
            while True:
                item = waiting.get_nowait()
                done.put((item, ask(worker, item)))
        except queue.Empty:
            pass
        except Exception as error:
            done.put(error)

    for worker in workers:
        threading.Thread(target=serve, args=(worker,), daemon=True).start()
    for _ in items:
        result = done.get()
        if isinstance(result, Exception):
            raise result
        yield result


def _changed(faults: list[Fault], commit: str) -> list[Fault]:
    """Those whose file, tests or list differ from the commit."""
    command = ["git", "diff", "--name-only", commit, "--", "."]
    names = set(subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.splitlines())
    return [
        fault for fault in faults
        if names & {fault.path, f"tests/faults/{fault.area}.txt", *(test.partition("::")[0] for test in fault.tests)}
    ]  # fmt: skip


def main() -> int:
    """Runs the faults chosen on the command line and prints the score; 1 where one is not what it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--area", action="append", help="of this list alone (tests/faults/AREA.txt); may be given several times")
    parser.add_argument("--only", action="append", help="those whose place, file, tests or title contain this text (or another)")
    parser.add_argument("--changed", metavar="COMMIT", help="those whose file, tests or list differ from this commit")
    parser.add_argument("--jobs", type=int, default=1, help="workers; each holds about 0.5 GiB")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds of tests after which a fault counts as noticed")
    parser.add_argument("--skip-check", action="store_true", help="do not first run the tests without a fault")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        _work(options.worker, options.limit)
        return 0
    faults = all_faults()
    areas = sorted({fault.area for fault in faults})
    if set(options.area or ()) - set(areas):
        parser.error(f"--area is one of {', '.join(areas)}, not {', '.join(set(options.area) - set(areas))}")
    faults = [fault for fault in faults if fault.area in (options.area or areas)]
    words = options.only or [""]
    faults = [f for f in faults if any(word in " ".join((f.place, f.path, f.title, *f.tests)) for word in words)]
    if options.changed is not None:
        faults = _changed(faults, options.changed)
    if not faults:
        print("no fault is left by these options")
        return 0
    results = run(faults, options.jobs, options.limit, not options.skip_check)
    print("\n" + table(results))
    good = all((verdict == "survived") if fault.equivalent else (verdict == "killed") for fault, verdict in results)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
