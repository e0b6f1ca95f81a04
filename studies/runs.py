"""What the studies share: the one way in which they start runs, and intervals as text."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqnlm.config.composition import quoted
from dqnlm.reporting.loading import read_json
from dqnlm.reporting.statistics import t_interval

COMMON = ("threads=1", "logger=none", "progress=false")
LAST_LINES = 20  # of a failed run's output that are shown


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    """`dqnlm train` in a process of its own and on one thread, unless the run is there already; its summary.

    What it prints is kept beside the folder, in FOLDER.log.

    Raises:
        SystemExit: it fails, or the run that is there is not finished; says what to do.
    """
    if not (folder / "summary.json").exists():
        print(f"training {folder.name} ...", file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        log = folder.parent / f"{folder.name}.log"
        command = [sys.executable, "-m", "dqnlm", "train", *COMMON, *overrides, f"hydra.run.dir={quoted(folder)}"]
        with log.open("w", encoding="utf-8") as stream:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=False)
        if done.returncode != 0:
            shown = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
            raise SystemExit(
                f"{' '.join(command)}\nfailed with exit code {done.returncode}; the end of {log}:\n{shown}"
            )
    summary = read_json(folder / "summary.json")
    if summary["status"] != "finished":
        raise SystemExit(f"{folder} is {summary['status']}: go on with `dqnlm resume {folder}`, or remove the folder")
    return summary


def interval(differences: Sequence[float]) -> str:
    """Mean and 95 % interval by Student's t; without an interval for a single one."""
    mean, ends = statistics.mean(differences), t_interval(differences)
    return f"{mean:+.3f} (one seed)" if ends is None else f"{mean:+.3f} ({ends[0]:+.3f} to {ends[1]:+.3f})"
