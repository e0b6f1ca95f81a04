"""Permission for Python files named in a configuration that the user typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dqnlm.config.schema import TARGET
from dqnlm.utils.permissions import permit_targets
from dqnlm.utils.user_code import split

NAMES_A_FILE = "dqnlm.rewards.function.FunctionReward"  # the target whose `path` is such a setting


def trust(node: dict[str, Any], base: Path) -> None:
    """Permits the files named in a typed configuration, and makes their paths absolute.

    Args:
        node: a part of a configuration; its paths are changed.
        base: what relative paths are relative to.
    """
    for found in _naming(node):
        if isinstance(found.get("path"), str):
            file, name = split(found["path"])
            whole = (base / file.expanduser()).resolve()
            found["path"] = f"{whole}:{name}"
            permit_targets(str(whole))


def _naming(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get(TARGET) == NAMES_A_FILE:
            yield node
        for part in node.values():
            yield from _naming(part)
