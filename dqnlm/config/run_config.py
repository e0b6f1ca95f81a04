"""A run's saved configuration: written as config.yaml, read back, and changed by single overrides.

Resuming reads the saved file, not the packaged configuration.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dqnlm.config import catalogue
from dqnlm.config.composition import parse_overrides
from dqnlm.config.messages import dotted, unknown_setting
from dqnlm.config.moved import renewed_config
from dqnlm.config.sections import require_whole
from dqnlm.config.validation import ALLOW_TARGETS, validate
from dqnlm.errors import UserError
from dqnlm.utils.files import require_regular, write_text_atomic
from dqnlm.utils.parsing import yaml_value
from dqnlm.utils.permissions import permit_targets


def save_run_config(config: dict[str, Any], path: Path) -> None:
    """Writes a validated configuration as plain YAML, atomically."""
    write_text_atomic(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Loads the configuration of a run, with changes applied, and validates it again.

    Args:
        path: a run's `config.yaml`, or the folder that holds it.
        overrides: `key=value` of single settings; `allow_targets=[module]` renews a permission.

    Raises:
        UserError: missing or damaged file, or a mistake in an override.
    """
    file = path / "config.yaml" if path.is_dir() else path
    require_regular(file)
    try:
        config = yaml_value(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file; the folder is no run of dqnlm, or did not start") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict) or ALLOW_TARGETS in config:
        raise UserError(f"{file}: is not the configuration that a run writes")
    renewed = renewed_config(config)
    require_whole(renewed, file)
    return apply_overrides(renewed, overrides, origin_of_rest=str(file))


def apply_overrides(
    config: dict[str, Any], overrides: Sequence[str], *, origin_of_rest: str = "the run's config.yaml"
) -> dict[str, Any]:
    """Changes single values of a run's configuration, and validates it.

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
            start = " ".join(["dqnlm train", text, "pretraining.init_from=RUN"])
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


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """The dotted keys of the settings that overrides change."""
    return [str(o.key_or_group) for o in parse_overrides(overrides) if o.key_or_group != ALLOW_TARGETS]


def _set(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree[part]
    try:
        tree[path[-1]] = OmegaConf.to_container(value, resolve=True)["value"]  # type: ignore[index,call-overload]
    except OmegaConfBaseException as error:
        raise UserError(f"{'.'.join(path)}: {str(error).splitlines()[0]}") from error
