"""Translates errors of Hydra and YAML into messages with the place, the nearest valid name, and a correction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dqnlm.config import catalogue
from dqnlm.config.moved import new_name
from dqnlm.errors import UserError
from dqnlm.utils.suggest import nearest

# Names from other programs for settings that are called otherwise here.
ALIASES = {
    "learning_rate": "lr", "bs": "batch_size", "tau": "polyak_rate", "epsilon": "start",
    "n_layer": "layers", "n_head": "heads", "n_embd": "width", "hidden": "width", "block_size": "context",
    "discount": "gamma", "updates": "rollouts", "max_steps": "rollouts", "steps": "rollouts", "dtype": "precision",
    "grad_clip": "gradient_clip", "tokens": "horizon", "epsilon_start": "start", "epsilon_end": "end",
    "exploration_fraction": "fraction", "eval_every": "evaluation.every", "eval_interval": "evaluation.every",
    "save_every": "checkpoint.every", "save_interval": "checkpoint.every", "log_interval": "trainer.log_every",
    "eval_episodes": "evaluation.episodes",
}  # fmt: skip
_NULL_KEY = "a key null is no text; in a file write it in quotation marks: \"null\": 1 (a command cannot hold it)"


def dotted(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of all settings, inner nodes included, without `_target_`."""
    found = []
    for name, value in tree.items():
        if name == "_target_":
            continue
        found.append(f"{prefix}{name}")
        if isinstance(value, Mapping):
            found.extend(dotted(value, f"{prefix}{name}."))
    return found


def near_setting(key: str, settings: Mapping[str, Any], groups: Sequence[str]) -> str | None:
    """Suggestion for a key that does not exist: a sibling, a setting of that name elsewhere, or a group."""
    keys = [k for k in dotted(settings) if not k.startswith("at_most.")]  # limits of settings, not settings
    parent, _, name = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    keys = [k for k in keys if k != key and not k.startswith(f"{key}.")]  # a key added by a typing error is no advice
    brothers = [k.removeprefix(prefix) for k in keys if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    if ALIASES.get(name) in brothers:
        return f"{prefix}{ALIASES[name]}"
    if ALIASES.get(name) in keys:
        return ALIASES[name]
    elsewhere = [k for meant in (name, ALIASES.get(name)) for k in keys if k.split(".")[-1] == meant]
    near = nearest(name, [*brothers, *([*groups, *catalogue.ADDED] if not parent else ())])
    if not elsewhere and near is not None:
        return f"+{near}" if near in catalogue.ADDED and not parent else f"{prefix}{near}"
    if elsewhere:
        return elsewhere[0]
    if parent in settings and ALIASES.get(name) is not None:  # what it means, this option of the group has not
        return None
    last = nearest(name, {k.split(".")[-1] for k in keys})
    return next((k for k in keys if k.split(".")[-1] == last), None)


def unknown_setting(key: str, origin: str, settings: Mapping[str, Any], config_dir: str | Path | None = None) -> str:
    """The message for a setting that does not exist."""
    groups = catalogue.groups(config_dir)
    near = near_setting(key, settings, groups)
    parent, tree = _deepest(key, settings)
    owners = _options_with(parent, key.rpartition(".")[2], config_dir)
    lines = [f"{key}: no such setting {origin}"]
    target = tree.get("_target_", "") if isinstance(tree, Mapping) else ""
    if (now := new_name(key, str(target))) is not None:
        lines.append(f"  it is called {now} now")
    elif owners:
        lines.append(f"  it is a setting of {' and '.join(f'{parent}={name}' for name in owners)}")
    elif near is not None:
        lines.append(f"  did you mean {near}?")
    if parent and not isinstance(tree, Mapping):
        lines.append(f"  {parent} is a single value, without settings below it")
    elif parent:
        lines.append(f"  {parent} has: {', '.join(k for k in tree if k != '_target_') or 'no settings, as it is chosen'}")
    else:
        lines.append(f"  settings begin with: {', '.join(sorted({*settings, *groups} - {'allow_targets', key}))}")
    return "\n".join(lines)


def _options_with(group: str, name: str, config_dir: str | Path | None) -> list[str]:
    """Options of a group that have a setting of this name."""
    if group not in catalogue.groups(config_dir):
        return []
    files = {option: catalogue.option_file(group, option, config_dir) for option, _ in catalogue.options(group, config_dir)}
    texts = {option: yaml.safe_load(file.read_text(encoding="utf-8")) for option, file in files.items() if file is not None}
    return [option for option, text in texts.items() if isinstance(text, dict) and name in text]


def _deepest(key: str, settings: Mapping[str, Any]) -> tuple[str, Any]:
    """The longest existing prefix of a dotted key, and its value."""
    tree: Any = settings
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(tree, Mapping) or part not in tree or depth == len(parts) - 1:
            return ".".join(parts[:depth]), tree
        tree = tree[part]
    return key, tree


def explain(
    error: Exception,
    overrides: Sequence[str],
    settings: Callable[[], Mapping[str, Any]],
    config_dir: str | Path | None = None,
) -> UserError:
    """Translates a failure of Hydra's composition into one message.

    Args:
        error: of Hydra, OmegaConf or the YAML parser.
        overrides: as typed.
        settings: gives the configuration without the single-value overrides; called only for suggestions.
        config_dir: a further folder of options.
    """
    if isinstance(error, yaml.YAMLError):
        return UserError(_yaml_error(error))
    text = str(error)
    cause = str(error.__cause__).splitlines()[0] if error.__cause__ is not None else ""
    cause = cause.replace("Incompatible key type 'NoneType'", _NULL_KEY)
    if found := re.search(r"Could not override '([^']+)'|Error merging override (\S+)", text):
        key = (found[1] or found[2]).lstrip("+").split("=")[0]
        typed = next((t for t in reversed(overrides) if t.lstrip("+~").split("=", 1)[0] == key), key)
        if found[1] or "not in struct" in cause:
            return UserError(unknown_setting(key, f"(command line: {typed})", _or_empty(settings), config_dir))
        return UserError(f"{key}: {cause} (command line: {typed})")
    if found := re.search(r"(?:In '([^']+)': )?Could not find '([^']+)'", text):
        group, _, option = found[2].partition("/")
        if option and group in catalogue.groups(config_dir):
            source = _file_naming(option, overrides, config_dir) or f"configs/{found[1]}.yaml"
            return UserError(catalogue.unknown_option(group, option, config_dir, source))
    if found := re.search(r"item is already at '([^']+)'", text):
        typed = next((t for t in overrides if t.lstrip("+").split("=")[0] == found[1]), found[1])
        return UserError(f"{typed}: {found[1]} exists already; change it without a plus: {typed.lstrip('+')}")
    if "Ambiguous value" in text or "requires --multirun" in text:
        typed = next((t for t in overrides if f"'{t}'" in text), "KEY=a,b")
        key, _, value = typed.partition("=")
        return UserError(
            f"{typed}: several values for one setting\n  for one run each: add -m"
            f"\n  for a list: {key}=[{value}]\n  for a text with a comma: '{key}=\"{value}\"'"
        )
    reason = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    return UserError(f"the configuration does not compose: {reason}{f' ({cause})' if cause else ''}")


def _file_naming(option: str, overrides: Sequence[str], config_dir: str | Path | None) -> str | None:
    """The preset on the command line whose file names this option; Hydra reports the root file instead."""
    for text in overrides:
        group, _, chosen = text.lstrip("+").partition("=")
        path = catalogue.option_file(group, chosen, config_dir) if group in catalogue.groups(config_dir) else None
        if path is not None and option in path.read_text(encoding="utf-8"):
            return str(path) if config_dir and path.is_relative_to(config_dir) else f"configs/{group}/{chosen}.yaml"
    return None


def _or_empty(settings: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Settings for a suggestion; {} where the choices alone do not compose."""
    try:
        return settings()
    except Exception:
        return {}


def _yaml_error(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if mark is None:
        return f"a configuration file is no YAML: {problem}"
    return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: this is no YAML: {problem}"
