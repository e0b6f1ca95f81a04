"""What the studies share: runs in processes of their own, and intervals."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

# Student's t, .975, by degrees of freedom.
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    """One run in a process of its own, unless it is there; its summary."""
    summary = folder / "summary.json"
    if not summary.exists():
        print(f"training {folder.name} ...", flush=True)
        settings = ["threads=1", "logger=none", "trainer.progress=false", *overrides, f"hydra.run.dir={folder}"]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "dqnlm", "train", *settings], stdout=log, stderr=log, check=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
    found: dict[str, Any] = json.loads(summary.read_text())
    if found["status"] != "finished":
        raise SystemExit(f"{folder} is {found['status']}: go on with `dqnlm resume {folder}`, or remove the folder")
    return found


def interval(differences: list[float]) -> str:
    """Mean and 95 % interval by Student's t; without an interval for a single one."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.3f} (one seed)"
    half = T_975[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"
