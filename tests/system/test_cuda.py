"""The same loop on a CUDA device. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dqnlm.cli import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


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


def test_training_on_cuda_waits_for_nothing(tmp_path: Path) -> None:
    """Guards against a host synchronisation between two log points: torch reports any as an error here."""
    from dqnlm.builder.launch import build
    from dqnlm.config.composition import compose
    from dqnlm.config.validation import validate
    from dqnlm.runs.directory import RunDirectory

    overrides = ["+experiment=debug/smoke", "device=cuda", "logger=none"]
    config, choices = compose(overrides)
    trainer, _ = build(validate(config, choices, overrides), RunDirectory(tmp_path))
    trainer.train_round(trainer.phase)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_round(trainer.phase)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.components.learner.updates == 2
