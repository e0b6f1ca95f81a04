"""The selected option of each group, as typed; used in messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dqnlm.config.catalogue import option_file, option_of

Config = dict[str, Any]


def option_name(config: Config, group: str, choices: Mapping[str, Any] | None = None) -> str:
    """The selected option of a group.

    Args:
        config: validated.
        group: with one node.
        choices: group -> option as typed, where that is known; it may be an option of the user's own.

    Returns:
        `scalar` for `head=scalar`; for code without an option the name of its class or function.
    """
    target, chosen = str(config[group]["_target_"]), (choices or {}).get(group)
    if isinstance(chosen, str):
        packaged = option_file(group, chosen)
        if packaged is None:
            return chosen
        named = re.search(r"^_target_:\s*(\S+)", packaged.read_text(encoding="utf-8"), re.MULTILINE)
        if named is not None and named.group(1) == target:  # else `_target_` itself was overridden
            return chosen
    return option_of(group, target)
