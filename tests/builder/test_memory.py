"""Outputs that cannot fit are refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dqnlm.builder import launch, memory
from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from tests.helpers import runs as tools


def test_bytes_by_hand() -> None:
    """Bug: an output or a copy that is not counted. [8, 512, 50257] in float32 is 8 * 512 * 50257 * 4 = 823,410,688 bytes."""
    assert memory.output_bytes(8, 512, 50257, (), 1) == 3 * 823_410_688
    assert memory.output_bytes(8, 512, 50257, (), 51) == 51 * 3 * 823_410_688
    ilql = ("policy", "q2", "v")  # v is one number, not one a token
    assert memory.output_bytes(8, 512, 50257, ilql, 1) == 3 * 3 * 823_410_688


def test_a_run_that_cannot_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a machine that swaps itself to death; advice that does not help.

    A row of 9 observations x 9 actions x 4 bytes x 3 takes 972 bytes, 4 rows 3,888; with a reference policy 1,296 and 5,184.
    """
    text = tools.write_text(tmp_path / "text.txt")

    def build(free: int, *overrides: str) -> None:
        monkeypatch.setattr(memory, "free_bytes", lambda _: free)
        launch.build(tools.settings(tools.tiny(text, *overrides))[0], RunDirectory(tmp_path))

    with pytest.raises(UserError, match=r"vocabulary too large.* Lower the length") as caught:
        build(100)
    assert "micro_batch_size" not in str(caught.value)
    with pytest.raises(UserError, match=r"Set learner\.micro_batch_size=2 .*or lower trainer\.batch_size"):
        build(2000)
    build(2000, "learner.micro_batch_size=2")
    build(3888)
    with pytest.raises(UserError, match=r"learner\.micro_batch_size=3 "):
        build(3887)
    held = ["learner.kl_weight=1", "head.loss=huber", "pretraining.updates=1", "env.transition=free"]
    with pytest.raises(UserError, match=r"learner\.micro_batch_size=3 "):
        build(3888, *held)
    build(5184, *held)


def test_there_is_memory_here() -> None:
    """Bug: bytes taken for kilobytes: a machine on which nothing fits, or everything."""
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or 2**26 < free < 2**46
