"""`dqnlm bench`: speed as ratios within one run; both sides of a ratio are timed alternately, on the same threads."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dqnlm.errors import UserError

if TYPE_CHECKING:
    from dqnlm.benchmarks.timing import Row

GROUPS = ("update", "replay", "acting", "start")
LONG = ("scaling",)  # minutes, and asked for by name
ON_DEVICE = ("utilisation",)  # on a CUDA device alone
OF_A_MODEL = ("pretrained",)  # with --model
EPILOG = """groups:
  update    one DQN update against a cross-entropy step of the same network and batch; bytes of a stored transition
  replay    a draw of 64 from 10^4 to 10^7 transitions: the slowest against the quickest size
  acting    greedy tokens with the cache against the whole row, and against generate of transformers if it is installed
  start     dqnlm --help, and launch to the end of a run of one update
  scaling   (by name alone, minutes) time of updates and steps over batch, length, vocabulary, width, environments, as exponents
  pretrained    (with --model FOLDER) an ILQL update with LoRA against a supervised LoRA step of transformers: time, memory, disk
  utilisation   on a CUDA device: the share of its arithmetic that updates of +experiment=shakespeare_gpu use

examples:
  dqnlm bench
  dqnlm bench --only replay,acting --json bench.json
  dqnlm bench --only update --rounds 5 --profile
"""


def main(argv: list[str]) -> int:
    """Prints the table; returns 0."""
    arguments = _parser().parse_args(argv)
    arguments.only = [] if arguments.only is None else [name.strip() for name in arguments.only.split(",")]
    for name in arguments.only:
        if name not in GROUPS + LONG + ON_DEVICE + OF_A_MODEL:
            groups = ", ".join(GROUPS + LONG + ON_DEVICE + OF_A_MODEL)
            raise UserError(f"--only {name}: there is no such group; groups: {groups}")
    if set(arguments.only) & set(OF_A_MODEL) and arguments.model is None:
        raise UserError("--only pretrained needs a model: --model FOLDER, or its name on the Hugging Face Hub")
    if min(arguments.rounds, arguments.threads) < 1:
        raise UserError("--rounds and --threads must be 1 or more")
    if arguments.json is not None:
        if not arguments.json.resolve().parent.is_dir():
            raise UserError(f"--json {arguments.json}: there is no folder {arguments.json.resolve().parent}")
        if arguments.json.is_dir():
            raise UserError(f"--json {arguments.json}: this is a folder; name a file in it")
    import torch

    torch.set_num_threads(arguments.threads)
    from dqnlm.builder.agent import choose_device

    device = str(choose_device(arguments.device))
    on_cuda = torch.device(device).type == "cuda"
    arguments.only = arguments.only or [*GROUPS, *(ON_DEVICE if on_cuda else ())]
    if not on_cuda and set(arguments.only) & set(ON_DEVICE):
        raise UserError(f"--only {','.join(arguments.only)}: utilisation is measured on a CUDA device alone, not on {device}")
    found = []
    for name, work in _works(arguments, device).items():
        print(f"timing {name} ...", flush=True)
        found += list(work())
    _show(found, device, arguments.threads)
    if arguments.json is not None:
        _write(arguments.json, found, device, arguments.threads)
    return 0


def _works(arguments: argparse.Namespace, device: str) -> dict[str, Callable[[], Iterator[Row]]]:
    """The chosen groups in their order."""
    from dqnlm.benchmarks import acting, pretrained, replay, scaling, start, update, utilisation

    rounds = arguments.rounds
    works: dict[str, Callable[[], Iterator[Row]]] = {
        "update": lambda: update.rows(rounds, device), "replay": lambda: replay.rows(rounds, device),
        "acting": lambda: acting.rows(max(1, rounds // 3), device), "start": start.rows,
        "scaling": lambda: scaling.rows(max(1, rounds // 3), device),
        "utilisation": lambda: utilisation.rows(max(1, rounds // 6), device),
    }  # fmt: skip
    works["pretrained"] = lambda: pretrained.rows(max(1, rounds // 3), arguments.model, device)
    works = {name: work for name, work in works.items() if name in arguments.only}
    if arguments.profile:
        works["profile"] = lambda: update.profiled(device)
    if arguments.peer:
        works["peer"] = lambda: _peer(rounds)
    return works


def _peer(rounds: int) -> Iterator[Row]:
    """Transitions that enter updates in a second, ours and stable-baselines3's, with the same transformer, on the CPU."""
    from dqnlm.benchmarks.timing import Row

    sides = "transitions trained a second: ours / stable-baselines3"
    try:
        from dqnlm.benchmarks import sb3
    except ImportError as error:
        yield Row("peer", sides, note=f"{error.name} is not installed: pip install stable-baselines3")
        return
    yield sb3.row(rounds)


def _show(rows: list[Row], device: str, threads: int) -> None:
    from dqnlm.reporting.tables import make_console, print_table

    def number(value: float | None, unit: str = "") -> str:
        return "" if value is None else f"{value:,.4g} {unit}".strip()

    cells = [
        [row.what, row.sides, number(row.first, row.unit), number(row.second, row.unit), number(row.ratio), row.wanted]
        for row in rows
    ]
    print_table(make_console(), ["what", "sides", "first", "second", "ratio", "wanted"], cells, numbers=4)
    for row in rows:
        if row.note:
            print(f"{row.what}, {row.sides}: {row.note}")
    import torch

    print(f"torch {torch.__version__}, {device}, {threads} threads; medians of alternating rounds")


def _write(path: Path, rows: list[Row], device: str, threads: int) -> None:
    import torch

    from dqnlm.utils.files import write_json_atomic

    machine = {"torch": torch.__version__, "python": platform.python_version(), "device": device, "threads": threads}
    write_json_atomic(path, machine | {"rows": [asdict(row) for row in rows]})
    print(f"wrote {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm bench", description=(__doc__ or "").split(": ", 1)[1], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    usual = f"default: {','.join(GROUPS)}; and {','.join(ON_DEVICE)} on CUDA; {','.join(LONG)} by name"
    parser.add_argument("--only", metavar="GROUP,...", help=usual)
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds of each comparison (default: 30)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for every side (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    parser.add_argument("--model", metavar="FOLDER", help="of --only pretrained: a causal language model")
    parser.add_argument("--peer", action="store_true", help="also time stable-baselines3, if it is installed")
    parser.add_argument("--profile", action="store_true", help="also name the five largest costs of an update")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    return parser
