"""The same runs on a CUDA device. Skipped where there is none."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dqnlm.cli import main
from dqnlm.utils import cuda_graphs
from tests.golden.runs import RUNS, Run
from tests.helpers.device_runs import ALLOWED, Waits, built, files, finish, package_line, prepared, watched

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@contextlib.contextmanager
def recording() -> Iterator[Waits]:
    """Collects what makes the host wait for the device, which torch warns of."""
    waits: Waits = Counter()
    with cuda_graphs.noting_waits(lambda: f"a wait at {package_line()}") as found:
        yield waits
    waits.update(found)


@pytest.mark.parametrize("run", [run for run in RUNS if run.killed_at is None], ids=lambda run: run.name)
def test_a_run_on_the_device(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a tensor or a random generator of the CPU; a kernel that CUDA lacks; a wait in the loop."""
    prepared(run, tmp_path / "place", monkeypatch)
    trainer = built(run, tmp_path / "place")
    waits = watched(recording, trainer)
    finish(trainer)
    assert files(waits) <= ALLOWED.get(run.name, set()), waits


def test_the_recorder_of_waits_sees_one() -> None:
    """Bug: torch words its warning differently, so that no wait is ever seen."""
    value = torch.arange(4.0, device="cuda")
    with recording() as waits:
        value.sum().item()
    assert sum(waits.values()) >= 1
    with recording() as waits:
        value * 2
    assert not waits


@pytest.mark.parametrize(
    "extra", [[], ["learner.precision=bfloat16"], ["env.transition=free", "env.prompt_length=8", "env.horizon=16"]]
)
def test_train_resume_and_generate_on_cuda(tmp_path: Path, extra: list[str]) -> None:
    """Guards against tensors left on the host and against random states restored to the wrong device."""
    common = ["+experiment=debug/smoke", "device=cuda", f"output_dir={tmp_path}", *extra]
    assert main(["train", *common]) == 0
    run = next(tmp_path.glob("*/*"))
    assert main(["resume", str(run), "trainer.rollouts=8"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["totals"]["rollouts"] == 8
    assert main(["generate", str(run), "--max-tokens", "5", "--device", "cuda"]) == 0
