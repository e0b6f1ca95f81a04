"""The parts of a whole configuration: the settings of no group, the learner, and each group of options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from dqnlm.config import catalogue
from dqnlm.config.catalogue import PRESETS
from dqnlm.errors import UserError
from dqnlm.utils.paths import FilePath

# Settings that belong to no group (train.yaml gives defaults and meanings).
PLAIN: dict[str, Any] = {
    "gamma": float, "feedback": Literal["taken", "all_actions"],
    "seed": int, "device": str, "max_rounds": int | None, "at_most": dict[str, Any],
    "threads": int | None, "progress": bool, "output_dir": FilePath,
}  # fmt: skip


def sections(config_dir: str | Path | None = None) -> list[str]:
    """The keys that a whole configuration has: the settings of no group, the learner, and each group."""
    return [*PLAIN, "learner", *(group for group in catalogue.groups(config_dir) if group not in PRESETS)]


def require_whole(config: dict[str, Any], file: Path) -> None:
    """Refuses a run's configuration that lacks a part: the first half of a file of YAML is YAML too.

    Raises:
        UserError: names the parts that are missing.
    """
    missing = [key for key in sections() if key not in config]
    if missing:
        raise UserError(
            f"{file}: is not whole: it does not name {', '.join(missing)}, which every run writes\n"
            "  copy the file again from where the run was made"
        )
