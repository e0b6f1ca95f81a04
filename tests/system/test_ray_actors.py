"""Runs that are played by Ray actors, with Ray itself."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import runs as tools
from tests.helpers.paths import ROOT
from tests.helpers.processes import started

pytest.importorskip("ray", reason="actors=ray needs ray")
WALKS = [
    "+experiment=random_walks_online", "device=cpu", "threads=1", "logger=none", "progress=false", "network.hidden=16",
    "network.width=8", "trainer.batch_size=8", "trainer.log_every=2", "evaluation.every=1000", "actors=ray",
]  # fmt: skip


def dqnlm(*words: str) -> tuple[int, str]:
    with started([sys.executable, "-m", "dqnlm", *words], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        out, error = process.communicate(timeout=120)
    return process.returncode, out + error


@pytest.mark.slow
def test_plays_counts_and_goes_on(tmp_path: Path) -> None:
    """Bug: rows that are lost on the way, ages that nobody measures, a resume that cannot begin."""
    run = tmp_path / "run"
    code, said = dqnlm("train", *WALKS, "trainer.rollouts=6", f"hydra.run.dir={run}")
    assert code == 0, said
    lines = [line for line in tools.lines(run / "metrics.jsonl") if "actors/age" in line]
    summary = json.loads((run / "summary.json").read_text())
    assert lines[-1]["env_steps"] == summary["totals"]["env_steps"] > 0
    assert lines[-1]["buffer/transitions"] > 0 and lines[-1]["rollout/return"] >= 0
    assert all(0 <= line["actors/age"] <= 64 for line in lines) and lines[-1]["actors/age"] > 0
    assert lines[-1]["actors/lost"] == lines[-1]["actors/dropped_rows"] == 0
    assert any("Ray actors" in note for note in summary["notes"])
    code, said = dqnlm("resume", str(run), "trainer.rollouts=9")
    assert code == 0, said
    assert json.loads((run / "summary.json").read_text())["totals"]["env_steps"] > lines[-1]["env_steps"]


@pytest.mark.slow
def test_a_killed_actor_is_replaced_and_a_signal_saves(tmp_path: Path) -> None:
    """Bug: the run hangs where an actor is gone, or leaves processes behind."""
    run = tmp_path / "run"
    words = ["train", *WALKS, "trainer.rollouts=1000000", f"hydra.run.dir={run}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with started([sys.executable, "-m", "dqnlm", *words], cwd=ROOT, env=environment) as process:
        _wait_for(lambda: len(_lines(run)) >= 3)
        (victim, *_) = _actors()
        os.kill(victim, signal.SIGKILL)
        before = len(_lines(run))
        _wait_for(lambda: len(_lines(run)) >= before + 5 and _lines(run)[-1].get("actors/lost") == 1.0)
        os.kill(process.pid, signal.SIGTERM)
        out, error = process.communicate(timeout=60)
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted", out + error
    assert "was lost" in out
    _wait_for(lambda: not _actors())


def _lines(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    return tools.whole_lines(path) if path.exists() else []


def _actors() -> list[int]:
    """Process numbers of Ray's workers that are our actors; Ray names them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::RemoteActor" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
