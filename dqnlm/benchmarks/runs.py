"""Runs that are built and not started, for a benchmark to take apart."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dqnlm.builder import launch
from dqnlm.config.composition import compose
from dqnlm.config.validation import validate
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer

TEXT = ("data=bundled", "data.characters=200000")
SMALL = "+experiment=benchmark/nanogpt_cpu"  # 4 layers, width 128, context 64
LARGE = "+experiment=shakespeare_gpu"  # 6 layers, width 384, context 256


@contextlib.contextmanager
def built(*overrides: str) -> Iterator[Trainer]:
    """A run in a folder that is gone afterwards."""
    settings = ["logger=none", "progress=false", *overrides]
    config, choices = compose(settings)
    with tempfile.TemporaryDirectory(prefix="dqnlm-bench-") as folder:
        yield launch.build(validate(config, choices, settings), RunDirectory(Path(folder)), choices=choices)
