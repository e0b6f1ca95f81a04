"""From command line and YAML to one checked, plain dictionary, and back from a run's folder.

    compose(overrides)  ->  config, choices            Hydra's composition, its errors in a user's words
    validate(config, choices, overrides)  ->  config   every key read by something, every value of the right type
    instantiate(node, ...)  ->  object                 the only place where `_target_` is called

A run keeps its validated configuration as `config.yaml`: resuming reads that, not the packaged files, and changes
single values by `apply_overrides`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dqnlm import catalogue
from dqnlm.catalogue import PRESETS, options
from dqnlm.composition import check_choices, choices_of, compose, origin, parse_overrides, plain
from dqnlm.config_errors import dotted, unknown_setting
from dqnlm.errors import UserError
from dqnlm.files import write_text_atomic
from dqnlm.presets import drop_inapplicable
from dqnlm.validation import (
    TARGET,
    Where,
    assemble,
    check_node,
    check_value,
    forget_permissions,
    instantiate,
    permit_targets,
)

__all__ = [
    "PLAIN", "apply_overrides", "assemble", "check_choices", "choices_of", "compose", "forget_permissions",
    "instantiate", "load_run_config", "options", "origin", "parse_overrides", "permit_targets", "plain",
    "save_run_config", "validate",
]  # fmt: skip

# What belongs to no group and has no target of its own (train.yaml gives defaults and meanings).
PLAIN: dict[str, Any] = {"seed": int, "device": str, "threads": int | None, "output_dir": str}
ALLOW_TARGETS = "allow_targets"


def validate(
    config: dict[str, Any],
    choices: dict[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    where: Where | None = None,
    config_dir: str | Path | None = None,
) -> dict[str, Any]:
    """A composed configuration, checked and coerced; nothing in it is left unread.

    Args:
        config: plain dictionary, as from `compose`.
        choices: group -> option; what a message may name as origin.
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
    config, _ = drop_inapplicable(config, overrides, config_dir)
    _permit(config.pop(ALLOW_TARGETS, None), overrides, where)
    known = [*PLAIN, "learner", *(g for g in catalogue.groups(config_dir) if g not in PRESETS)]
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
    return checked


def _part(value: Any, key: str, where: Where, config_dir: str | Path | None) -> dict[str, Any]:
    """One group: a node, or several named nodes (objectives)."""
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
    """`allow_targets`, if the command line itself gives it."""
    if prefixes is None:
        return
    if not any(text.lstrip("+").split("=")[0] == ALLOW_TARGETS for text in overrides):
        raise UserError(
            f"{ALLOW_TARGETS}: permission to run code can only be given on the command line ({where(ALLOW_TARGETS)})\n"
            f"  take it out of the file and type +{ALLOW_TARGETS}=[module]"
        )
    permit_targets(prefixes)


def save_run_config(config: dict[str, Any], path: Path) -> None:
    """Writes a validated configuration as plain YAML, whole or not at all."""
    write_text_atomic(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of a run, with changes applied, validated again.

    Args:
        path: a run's `config.yaml`, or the folder that holds it.
        overrides: `key=value` of single settings; `allow_targets=[module]` renews a permission.

    Raises:
        UserError: missing or damaged file, or a mistake in an override.
    """
    file = path / "config.yaml" if path.is_dir() else path
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file; the folder is no run of dqnlm, or did not start") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict) or ALLOW_TARGETS in config:
        raise UserError(f"{file}: is not the configuration that a run writes")
    return apply_overrides(config, overrides, origin_of_rest=str(file))


def apply_overrides(
    config: dict[str, Any], overrides: Sequence[str], *, origin_of_rest: str = "the run's config.yaml"
) -> dict[str, Any]:
    """A run's configuration with single values changed, validated.

    Raises:
        UserError: an unknown key, a group choice, a plus or a tilde, a sweep, or a value that does not fit.
    """
    changed = copy.deepcopy(config)
    known = dotted(changed)
    for override in parse_overrides(overrides):
        key, text = override.key_or_group, override.input_line or ""
        if key == ALLOW_TARGETS:
            permit_targets(override.value())
            continue
        if override.is_sweep_override():
            raise UserError(f"{text}: a run is resumed with one value; for a list write {key}=[a,b]")
        if override.is_delete() or override.is_add() or override.is_force_add():
            raise UserError(f"{text}: a run that exists keeps its settings; change one with KEY=VALUE")
        if key in catalogue.groups():
            start = " ".join(["dqnlm train", text, "trainer.init_from=RUN"])
            raise UserError(
                f"{text}: a run that exists keeps its parts; change single settings of {key}\n"
                f"  to start another run from its weights: {start}"
            )
        if key not in known:
            raise UserError(unknown_setting(key, f"(command line: {text})", config))
        _set(changed, key.split("."), OmegaConf.create({"value": override.value()}))
    texts = [text for text in overrides if not text.startswith(ALLOW_TARGETS)]

    def where(key: str) -> str:
        return next((f"command line: {t}" for t in reversed(texts) if key == t.split("=", 1)[0]), origin_of_rest)

    return validate(changed, overrides=overrides, where=where)


def _set(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree[part]
    try:
        tree[path[-1]] = OmegaConf.to_container(value, resolve=True)["value"]  # type: ignore[index,call-overload]
    except OmegaConfBaseException as error:
        raise UserError(f"{'.'.join(path)}: {str(error).splitlines()[0]}") from error
