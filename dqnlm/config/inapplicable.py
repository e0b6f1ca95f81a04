"""Settings of a preset (experiment, algorithm, debug) that do not apply to an option chosen on the command line.

`+experiment=shakespeare network=gru`: the experiment sets `network.norm` for its transformer, which a GRU does not have.
The choice of the GRU takes precedence, so the setting is dropped with a note; a key typed on the command line never is.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dqnlm.config import catalogue
from dqnlm.config.composition import expanded, origin, parse_overrides
from dqnlm.config.schema import TARGET

_SETS_OTHER_GROUPS = re.compile(r"^#\s*@package\s+_global_\s*$", re.MULTILINE)


def drop_inapplicable(
    config: dict[str, Any], overrides: Sequence[str], config_dir: str | Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Removes such settings; returns the configuration and a line for each that was dropped.

    Args:
        config: as composed.
        overrides: as typed; only groups chosen among them are looked at.
        config_dir: as in `compose`.
    """
    config, notes = copy.deepcopy(config), []
    for override in parse_overrides(expanded(overrides, config_dir)):
        group = override.key_or_group
        if group not in config or not isinstance(config[group], dict) or override.is_sweep_override():
            continue
        if group not in catalogue.groups(config_dir) or override.is_delete():
            continue
        for name, key in _unknown(config[group], group, override.value(), config_dir):
            source = origin(f"{group}.{key}", overrides, config_dir)
            if source.startswith("command line"):
                continue
            del config[group][key]
            notes.append(f"{group}.{key} ({source}) does not apply to {group}={name} and is left out")
    return config, notes


def _unknown(node: dict[str, Any], group: str, chosen: Any, config_dir: str | Path | None) -> list[tuple[str, str]]:
    """(chosen option, key) for each key of the group that the option does not have."""
    if TARGET not in node:  # several named nodes: those that nobody chose have no target
        names = [str(name) for name in chosen] if isinstance(chosen, list) else [str(chosen)]
        return [
            (", ".join(names), key) for key, part in node.items() if not isinstance(part, dict) or TARGET not in part
        ]
    path = catalogue.option_file(group, str(chosen), config_dir)
    if path is None:
        return []
    text = path.read_text(encoding="utf-8")
    keys = yaml.safe_load(text) or {}
    if _SETS_OTHER_GROUPS.search(text):  # an environment, say, that brings its kind of data with it
        keys = keys.get(group) or {}
    return [(str(chosen), key) for key in node if key not in keys]
