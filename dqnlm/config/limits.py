"""Limits on a run: `max_rounds` of each phase, and `at_most` of any setting that it has.

A run keeps the numbers that come of them, not the limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from dqnlm.config import catalogue
from dqnlm.config.schema import TARGET, Where, shown
from dqnlm.errors import UserError
from dqnlm.utils.suggest import suggestion

PHASES = (("trainer", "rollouts"), ("trainer", "offline_rounds"), ("pretraining", "updates"))  # their lengths
IsTyped = Callable[[str], bool]  # dotted key -> whether its value stands in the command line


def limited(config: dict[str, Any], where: Where, is_typed: IsTyped) -> dict[str, Any]:
    """The configuration with at most `max_rounds` rounds in each phase, and without this limit.

    Raises:
        UserError: the limit is below 1, or below a number of rounds that was typed.
    """
    limit = config["max_rounds"]
    if limit is None:
        return config
    if limit < 1:
        raise UserError(f"max_rounds must be at least 1 (or null for no limit), not {limit}")
    found = config | {"max_rounds": None} | {group: dict(config[group]) for group, _ in PHASES}
    for group, name in PHASES:
        rounds = config[group][name]
        if rounds > limit and is_typed(f"{group}.{name}"):
            raise UserError(
                f"{group}.{name}={rounds} is above max_rounds={limit} ({where('max_rounds')}), which limits every phase\n"
                f"  set max_rounds={rounds}, or max_rounds=null for no limit"
            )
        found[group][name] = min(rounds, limit)
    return found


def lowered(
    config: dict[str, Any], where: Where, is_typed: IsTyped, config_dir: str | Path | None = None
) -> dict[str, Any]:
    """The configuration with no setting above the number that `at_most` names for it, and without these numbers.

    A setting that the chosen parts do not have is passed over, null counts as no limit of its own, and what was typed stays.

    Raises:
        UserError: a group or a setting that no option has, or a limit that is no number above 0.
    """
    if not config["at_most"]:
        return config
    found = config | {"at_most": {}}
    for group, limits in config["at_most"].items():
        names = _settings_of(group, where, config_dir)
        if not isinstance(limits, dict):
            raise UserError(f"at_most.{group}: {shown(limits)} is no set of settings; write at_most.{group}.SETTING=NUMBER")
        found[group] = dict(config[group])
        for name, limit in limits.items():
            key = f"at_most.{group}.{name}"
            if name not in names and name not in found[group]:
                near = suggestion(name, names, f"at_most.{group}.")
                raise UserError(f"{key}: no option of {group} has a setting {name} ({where(key)}){near}")
            if type(limit) not in (int, float) or not 0 < limit < math.inf:
                raise UserError(f"{key}: {shown(limit)} is no finite number above 0 ({where(key)})")
            if name in found[group] and _is_above(found[group][name], limit) and not is_typed(f"{group}.{name}"):
                found[group][name] = limit
    return found


def _is_above(value: Any, limit: float) -> bool:
    return value is None or (type(value) in (int, float) and value > limit)


def _settings_of(group: str, where: Where, config_dir: str | Path | None) -> list[str]:
    """The settings that some option of a group has.

    Raises:
        UserError: no such group.
    """
    if group == "learner":
        return []
    groups = [name for name in catalogue.groups(config_dir) if name not in catalogue.PRESETS]
    if group not in groups:
        key = f"at_most.{group}"
        raise UserError(f"{key}: there is no group {group} ({where(key)}){suggestion(group, groups, 'at_most.')}")
    options = [yaml.safe_load(catalogue.read_option(group, name, config_dir)) for name, _ in catalogue.options(group, config_dir)]
    return sorted({name for option in options if isinstance(option, dict) for name in option} - {TARGET, "defaults"})
