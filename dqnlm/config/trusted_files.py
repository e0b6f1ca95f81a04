"""Files of the user's that a configuration names: permitted when the user typed the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from dqnlm.config.schema import TARGET, keyword_parameters, resolve_target
from dqnlm.utils.paths import CodePath
from dqnlm.utils.permissions import permit_targets
from dqnlm.utils.user_code import split


def trust(node: dict[str, Any], base: Path) -> None:
    """Permits the files that a configuration typed by the user names, in it or below it, and makes their paths absolute.

    Args:
        node: a validated configuration, or a part of it; its paths are changed.
        base: what relative paths are relative to.

    Raises:
        UserError: a path is not of the form FILE.py:NAME.
    """
    for found, setting in _naming(node):
        if isinstance(found.get(setting), str):
            file, name = split(found[setting], setting)
            whole = (base / file.expanduser()).resolve()
            found[setting] = f"{whole}:{name}"
            permit_targets(str(whole))


def _naming(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Nodes with a setting that names code, and its name: a parameter that is annotated as `CodePath`."""
    if not isinstance(node, dict):
        return
    if TARGET in node:
        parameters = keyword_parameters(resolve_target(node[TARGET]))
        yield from ((node, name) for name, (kind, _) in parameters.items() if CodePath in (kind, *get_args(kind)))
    for part in node.values():
        yield from _naming(part)
