"""Display names of runs: the folder below the output folder."""

from __future__ import annotations

from pathlib import Path


def run_name(path: Path, output_dir: Path) -> str:
    """`<date>/<time>-<experiment>` of a run below `output_dir`; elsewhere the last two parts of its path."""
    whole, root = path.resolve(), output_dir.resolve()
    if whole != root and whole.is_relative_to(root):
        return whole.relative_to(root).as_posix()
    return "/".join(whole.parts[-2:]).lstrip("/")
