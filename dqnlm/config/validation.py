"""Validates a composed configuration: every key is read by something, every value has the right type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqnlm.config.catalogue import options
from dqnlm.config.composition import origin, typed
from dqnlm.config.inapplicable import drop_inapplicable
from dqnlm.config.limits import limited, lowered
from dqnlm.config.messages import unknown_setting
from dqnlm.config.schema import TARGET, Where, check_node, check_value, require_names, require_permitted
from dqnlm.config.sections import PLAIN, sections
from dqnlm.errors import UserError
from dqnlm.utils.permissions import permit_targets

ALLOW_TARGETS = "allow_targets"


def validate(
    config: dict[str, Any],
    choices: dict[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    where: Where | None = None,
    config_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Checks and converts a composed configuration; every key is read.

    Args:
        config: plain dictionary, as from `compose`.
        choices: group -> option; possible origins in messages.
        overrides: as typed; the only place from which `allow_targets` is taken.
        where: dotted key -> origin in words; by default command line and chosen files are searched.
        config_dir: as in `compose`.

    Returns:
        A new dictionary with the keys of train.yaml and one of each group, without `allow_targets`.

    Raises:
        UserError: the first mistake found.
    """
    del choices  # the files are found through Hydra's own list, which knows their order
    where = where or (lambda key: origin(key, overrides, config_dir))
    require_names(config, "", where)
    config, _ = drop_inapplicable(config, overrides, config_dir)
    _permit(config.pop(ALLOW_TARGETS, None), overrides, where)
    require_permitted(config, where)
    known = sections(config_dir)
    for key in config:
        if key not in known:
            raise UserError(unknown_setting(key, f"({where(key)})", config, config_dir))
    checked: dict[str, Any] = {}
    for key in known:
        if key in PLAIN:
            if key not in config:
                raise UserError(f"{key}: this setting is missing; train.yaml gives its default")
            checked[key] = check_value(config[key], PLAIN[key], key, where)
        else:
            checked[key] = _part(config.get(key), key, where, config_dir)

    def is_typed(key: str) -> bool:
        return typed(key, overrides, config_dir) is not None

    return lowered(limited(checked, where, is_typed), where, is_typed, config_dir)


def _part(value: Any, key: str, where: Where, config_dir: str | Path | None) -> dict[str, Any]:
    """Checks one group: a node, or several named nodes (objectives)."""
    if not isinstance(value, dict) or not value:
        names = [name for name, _ in options(key, config_dir)] if key != "learner" else []
        listed = f"\n  choose {key}=ONE of: {', '.join(names)}" if names else ""
        raise UserError(f"{key}: {'nothing is chosen' if not value else f'{value!r} is no set of settings'}{listed}")
    if TARGET in value:
        return check_node(value, key, where)
    for name, node in value.items():
        if not isinstance(node, dict) or TARGET not in node:
            raise UserError(_unread(value, key, name, where))
    return {name: check_node(node, f"{key}.{name}", where) for name, node in value.items()}


def _unread(value: dict[str, Any], key: str, name: str, where: Where) -> str:
    """The message for settings of an objective that is not among the chosen ones."""
    inner = f"{key}.{name}"
    if isinstance(value[name], dict) and value[name]:
        inner = f"{inner}.{next(iter(value[name]))}"
    chosen = [n for n, part in value.items() if isinstance(part, dict) and TARGET in part]
    return (
        f"{inner}: nothing reads this setting, as {key} {name} is not chosen ({where(inner)})\n"
        f"  chosen: {', '.join(chosen) or 'nothing'}; options: {', '.join(n for n, _ in options(key))}\n"
        f"  choose several with '{key}=[a,b]', or drop it with ~{key}.{name}"
    )


def _permit(prefixes: Any, overrides: Sequence[str], where: Where) -> None:
    """Applies `allow_targets`, if the command line itself gives it."""
    if prefixes is None:
        return
    if not any(text.lstrip("+").split("=")[0] == ALLOW_TARGETS for text in overrides):
        raise UserError(
            f"{ALLOW_TARGETS}: permission to run code can only be given on the command line ({where(ALLOW_TARGETS)})\n"
            f"  take it out of the file and type +{ALLOW_TARGETS}=[module]"
        )
    permit_targets(prefixes)
