"""start: seconds of `dqnlm --help`, and from launch to the end of a run of one update."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dqnlm.benchmarks.timing import Row

TURNS = 3  # the quickest counts: what else runs on the machine only adds


def rows() -> Iterator[Row]:
    """Two rows, each the quickest of three processes."""
    yield Row("start", "dqnlm --help", _quickest("--help"), None, "s", None, "< 0.3 warm")
    one = ("train", "+experiment=debug/smoke", "trainer.rollouts=1", "trainer.log_every=1", "logger=none", "progress=false")
    yield Row("start", "launch to the end of a run of one update", _quickest(*one), None, "s")


def _quickest(*words: str) -> float:
    times = []
    for turn in range(TURNS):
        with tempfile.TemporaryDirectory(prefix="dqnlm-bench-") as folder:
            place = [f"hydra.run.dir={Path(folder) / str(turn)}"] if words[0] == "train" else []
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "dqnlm", *words, *place], capture_output=True, check=True)
            times.append(time.perf_counter() - started)
    return min(times)
