"""Outputs that cannot fit are refused before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_tools as tools
import torch

from dqnlm import builder, memory
from dqnlm.errors import UserError
from dqnlm.policy import Spec
from dqnlm.run_directory import RunDirectory


def test_bytes_by_hand() -> None:
    """Bug: an output or a copy that is not counted. [8, 512, 50257] in float32 is 8 * 512 * 50257 * 4 = 823,410,688 bytes."""
    spec = Spec(50257, 0, 50257)
    assert memory.output_bytes(8, 512, spec, 1) == 3 * 823_410_688
    assert memory.output_bytes(8, 512, spec, 51) == 51 * 3 * 823_410_688
    ilql = spec._replace(outputs=("policy", "q2", "v"))  # v is one number, not one a token
    assert memory.output_bytes(8, 512, ilql, 1) == 3 * 3 * 823_410_688


def test_a_run_that_cannot_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a machine that swaps itself to death. 4 rows x 9 observations x 9 actions x 4 bytes x 3 = 3,888 bytes are needed."""
    settings, _ = tools.settings(tools.tiny(tools.write_text(tmp_path / "text.txt")))
    monkeypatch.setattr(memory, "free_bytes", lambda _: 100)
    with pytest.raises(UserError, match=r"vocabulary too large.*trainer\.batch_rows"):
        builder.build(settings, RunDirectory(tmp_path))
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10**6)
    builder.build(settings, RunDirectory(tmp_path))


def test_there_is_memory_here() -> None:
    """Bug: bytes taken for kilobytes: a machine on which nothing fits, or everything."""
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or 2**26 < free < 2**46
