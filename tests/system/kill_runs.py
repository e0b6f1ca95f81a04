#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../../scripts/python" "$0" "$@"'
"""Kills a run (kill -9) at random moments, resumes it each time, and compares its end with a run that was never killed.

    scripts/python tests/system/kill_runs.py --kills 20
    scripts/python tests/system/kill_runs.py --kills 20 --kind pretrained        (or prioritised, log, pairs)
    scripts/python tests/system/kill_runs.py --kills 10 --processes 2

With several processes (torchrun) one of them is killed, and the others must end by themselves within a minute.
Moments are drawn from a seed: while it trains or evaluates, while it starts, and while it writes a checkpoint (the script
watches for the temporary folder). At every kill, the figures that the run's checkpoints vouch for are compared with the
reference; at the end all figures, samples, and the whole saved state (weights, target, optimizer, buffer, random states),
bit for bit. Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dqnlm.errors import UserError
from dqnlm.runs import checkpoint
from tests.golden import data_files
from tests.golden.runs import RUNS
from tests.helpers import runs as tools

END_WITHIN_S = 60.0  # all processes of a run after the death of one of them
TRAINING, WRITING, STARTING = "training", "checkpoint write", "start"
# Free-running, so that episodes are open at most checkpoints; dropout, so that the network draws random numbers too.
SETTINGS = [
    "env.transition=free", "trainer.rollout_steps=5", "trainer.learning_starts=64", "network.dropout=0.1", "network.width=32",
    "buffer.capacity=20000", "trainer.log_every=10", "evaluation.every=100", "checkpoint.every=20",
]  # fmt: skip
KINDS = {  # name -> run of `golden.runs` with its data, and the setting that makes it long
    "prioritised": ("iqn_prioritized_transitions", "trainer.rollouts"),
    "log": ("logged", "trainer.offline_rounds"),
    "pairs": ("pairs", "trainer.rollouts"),
    "pretrained": ("pretrained_lora", "trainer.offline_rounds"),
}
EVERY = {"trainer.log_every": 10, "evaluation.every": 100, "checkpoint.every": 20}


@dataclass
class Kill:
    """One kill: what was wanted, and what was found."""

    kind: str
    target: int  # step (updates) from which on it may strike
    delay: float  # seconds after that
    where: str = ""
    step: int = 0
    resumes_from: int | None = None
    figures_equal: bool = True
    end_s: float = 0.0  # until all processes of the run had ended


def plan(kills: int, updates: int, seed: int) -> list[Kill]:
    """Moments spread over the run; about a third of them in a checkpoint write, a tenth while it starts."""
    draw = random.Random(seed)
    kinds = [WRITING] * max(1, kills // 3) + [STARTING] * (kills // 10)
    kinds += [TRAINING] * (kills - len(kinds))
    draw.shuffle(kinds)
    targets = sorted(draw.randrange(1, int(updates * 0.95)) for _ in kinds)
    return [Kill(kind, target, draw.uniform(0, 0.3)) for kind, target in zip(kinds, targets, strict=True)]


def settings_of(kind: str, folder: Path, rounds: int) -> list[str]:
    """What is typed for a run of this kind and length; its data are written into `folder`, where it is to be started."""
    if kind == "text":
        return tools.tiny(tools.write_text(folder / "text.txt", 20_000), *SETTINGS, f"trainer.rollouts={rounds}")
    name, length = KINDS[kind]
    recorded = next(run for run in RUNS if run.name == name)
    data_files.write(folder, recorded.data)
    typed = dict(setting.split("=", 1) for setting in recorded.settings) | {length: str(rounds)}
    return [f"{key}={value}" for key, value in (typed | {key: str(value) for key, value in EVERY.items()}).items()]


def command(run: Path, settings: list[str], processes: int = 1) -> list[str]:
    """Resumes the run if it has a whole checkpoint, else starts it (anew)."""
    several = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "-m", "dqnlm"]
    dqnlm = [sys.executable, "-m", "dqnlm"] if processes == 1 else several
    try:
        checkpoint.newest_whole(run / "checkpoints")
        return [*dqnlm, "resume", str(run)]
    except UserError:
        shutil.rmtree(run, ignore_errors=True)
        return [*dqnlm, "train", *settings, f"hydra.run.dir={run}"]


@contextlib.contextmanager
def launch(arguments: list[str], place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the folder `place` that does not outlive the block, whatever ends it."""
    environment, pipe = os.environ | {"OMP_NUM_THREADS": "1"}, subprocess.PIPE
    with subprocess.Popen(arguments, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def last_step(run: Path) -> int:
    """Updates done, by the last whole line of metrics.jsonl."""
    try:
        return int(tools.whole_lines(run / "metrics.jsonl")[-1]["step"])
    except (FileNotFoundError, IndexError):
        return -1


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], bool], pause: float) -> bool:
    """Asks every `pause` seconds until it holds; False where the process ends first."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(pause)
    return False


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Process numbers of its children."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in listed.read_text().split()] if listed.exists() else []


def end(process: subprocess.Popen[bytes], kill: Kill, processes: int) -> None:
    """Kills the run, or one of its processes, and waits until all have ended."""
    ranks = children(process) if processes > 1 else []
    started = time.monotonic()
    if not ranks:
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(random.Random(kill.target).choice(ranks), signal.SIGKILL)
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"a process was killed, and the others go on {END_WITHIN_S:.0f} s later") from None
    kill.end_s = time.monotonic() - started


def strike(run: Path, settings: list[str], kill: Kill, processes: int = 1) -> None:
    """Starts or resumes the run, kills it at its moment, and notes what is left.

    Raises:
        SystemExit: the run fails by itself.
    """
    with launch(command(run, settings, processes), run.parent) as process:
        if kill.kind == STARTING:
            time.sleep(kill.delay * 10)
        elif wait_for(process, lambda: last_step(run) >= kill.target, 0.02):
            time.sleep(kill.delay)
            if kill.kind == WRITING:
                wait_for(process, lambda: any((run / "checkpoints").glob(".tmp-step-*")), 0.001)
        end(process, kill, processes)
        error = process.communicate()[1].decode()
    if process.returncode > 0 and "(SIGKILL)" not in error:
        raise SystemExit(f"the run failed by itself, code {process.returncode}:\n{error}")
    kill.where = "after its end" if process.returncode == 0 else kill.kind
    if kill.kind == WRITING and kill.where == WRITING and not any((run / "checkpoints").glob(".tmp-*")):
        kill.where = "just after a write"
    kill.step = last_step(run)


def check(run: Path, reference: Path, kill: Kill) -> None:
    """What the newest whole checkpoint vouches for must be the beginning of the reference."""
    try:
        path, _ = checkpoint.newest_whole(run / "checkpoints")
    except UserError:
        return
    kill.resumes_from = checkpoint.step_of(path)
    known = [line for line in tools.metrics(run) if line["step"] <= kill.resumes_from]
    kill.figures_equal = known == tools.metrics(reference)[: len(known)]


def show(number: int, kill: Kill) -> None:
    start = "start" if kill.resumes_from is None else str(kill.resumes_from)
    figures = "equal" if kill.figures_equal else "DIFFERENT"
    ended = f", all ended after {kill.end_s:.1f} s" if kill.end_s else ""
    print(f"{number:>4}  {kill.where:<20}{kill.step:>8}{start:>14}   {figures}{ended}", flush=True)


def differences(run: Path, reference: Path) -> list[str]:
    """Everything in which the two finished runs differ."""
    found = [] if tools.metrics(run) == tools.metrics(reference) else ["metrics.jsonl"]
    if (run / "samples.jsonl").read_bytes() != (reference / "samples.jsonl").read_bytes():
        found.append("samples.jsonl")
    return found + tools.differences(tools.state(run), tools.state(reference))


def to_its_end(run: Path, settings: list[str], processes: int = 1) -> None:
    """Starts or resumes the run and lets it finish.

    Raises:
        SystemExit: it fails.
    """
    with launch(command(run, settings, processes), run.parent) as process:
        error = process.communicate()[1]
    if process.returncode and b"is finished" not in error:
        raise SystemExit(f"{run.name} failed, code {process.returncode}:\n{error.decode()}")


def compare(
    folder: Path, kills: int, rollouts: int, seed: int, finish: Callable[[Path, list[str]], None] = to_its_end,
    processes: int = 1, kind: str = "text",
) -> tuple[list[Kill], list[str]]:  # fmt: skip
    """The reference, the killed run, and what differs in the end."""
    settings, reference, run = settings_of(kind, folder, rollouts), folder / "reference", folder / "killed"
    started = time.monotonic()
    finish(reference, settings)
    print(
        f"reference: {kind}, {rollouts} rounds, {last_step(reference)} updates, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    print("kill  during             at update  resumes from   figures so far", flush=True)
    moments = plan(kills, last_step(reference), seed)
    for number, kill in enumerate(moments, 1):
        strike(run, settings, kill, processes)
        check(run, reference, kill)
        show(number, kill)
    finish(run, settings)
    return moments, differences(run, reference)


def main(argv: list[str] | None = None) -> int:
    """Prints a line a kill and a last one; 1 on any difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how often (default: 20)")
    parser.add_argument("--rollouts", type=int, default=2000, help="length of the run (default: 2000, about a minute)")
    parser.add_argument("--kind", choices=("text", *KINDS), default="text", help="of run (default: text)")
    parser.add_argument("--processes", type=int, default=1, help="of the run, by torchrun (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
        processes = arguments.processes

        def finish(run: Path, settings: list[str]) -> None:
            to_its_end(run, settings, processes)

        kills, different = compare(
            Path(folder), arguments.kills, arguments.rollouts, arguments.seed, finish, processes, arguments.kind
        )
    wrong = [f"figures at kill {number}" for number, kill in enumerate(kills, 1) if not kill.figures_equal] + different
    writes = sum(kill.where == WRITING for kill in kills)
    if wrong:
        print(f"DIFFERENT after {len(kills)} kills: {', '.join(wrong[:10])}")
        return 1
    print(
        f"identical after {len(kills)} kills, {writes} of them in a checkpoint write: figures, samples, weights, all state"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
