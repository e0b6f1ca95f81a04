"""Wraps Hydra's composition: overrides in, plain dictionary out, errors as UserError.

Only this file, config.py and commands/train.py use Hydra and OmegaConf. Everything here goes through
`dqnlm.config.run_config`; import from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dqnlm.config import catalogue, own_experiment
from dqnlm.config.messages import explain
from dqnlm.config.schema import nowhere
from dqnlm.errors import UserError

VERSION_BASE = "1.3"


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parses each `key=value` with Hydra.

    Raises:
        UserError: one cannot be read; the message names it.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise UserError(
                f"cannot read {text!r} as key=value: {str(error).splitlines()[0].removesuffix('.')}\n"
                "  a value with commas, spaces, brackets or quotes needs quotes of its own: 'key=\"a, b\"'"
            ) from None
    return parsed


class HydraNode:
    """Hydra's own settings in a composed configuration.

    Args:
        cfg: as composed, with the node `hydra`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self._raw = {"hydra": OmegaConf.to_container(cfg.hydra, resolve=False, enum_to_str=True)}

    def get(self, key: str) -> Any:
        """The value of a dotted key as it is written, with its interpolations; None where there is none."""
        found: Any = self._raw
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def resolved(self, key: str) -> str:
        """The value of a dotted key, with its interpolations resolved.

        Raises:
            UserError: one of them does not resolve.
        """
        try:
            return str(OmegaConf.select(self._cfg, key, throw_on_missing=True))
        except OmegaConfBaseException as error:
            raise UserError(f"{key}={self.get(key)}: {str(error).splitlines()[0]}") from error

    @property
    def launcher(self) -> str:
        """The option of the group `hydra/launcher`."""
        return str((self.get("hydra.runtime.choices") or {}).get("hydra/launcher"))


def compose(
    overrides: Sequence[str],
    config_dir: str | Path | None = None,
    *,
    config_path: str | None = None,
    config_name: str = "train",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `compose_with_hydra`, without Hydra's own settings."""
    return compose_with_hydra(overrides, config_dir, config_path=config_path, config_name=config_name)[:2]


def compose_with_hydra(
    overrides: Sequence[str],
    config_dir: str | Path | None = None,
    *,
    config_path: str | None = None,
    config_name: str = "train",
) -> tuple[dict[str, Any], dict[str, Any], HydraNode]:
    """Merges defaults, chosen options and overrides into one plain dictionary, interpolations resolved.

    Args:
        overrides: as typed: `network=gru`, `env.horizon=32`, `+experiment=shakespeare`.
        config_dir: a further folder of options (`--config-dir`), or an experiment file of the user's.
        config_path: an absolute folder, or pkg://module, in place of the packaged configuration.
        config_name: the root file, without .yaml.

    Returns:
        (config without the `hydra` node, the option chosen in each group, that node).

    Raises:
        UserError: anything that does not compose.
    """
    check_choices(parse_overrides(overrides), config_dir)
    overrides = expanded(overrides, config_dir)
    try:
        with _hydra(config_path):
            cfg = hydra_compose(config_name, [*overrides, *_search(config_dir)], return_hydra_config=True)
            if (
                cfg.hydra.callbacks
            ):  # Hydra would call their `_target_`, whatever it names, before anything is checked here
                raise UserError(
                    "hydra.callbacks: code that Hydra runs by itself is not permitted; take it out of the file"
                )
            config = plain(cfg)
            return config, choices_of(cfg.hydra, config), HydraNode(cfg)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, OSError, RecursionError) as error:
        raise explain(error, overrides, lambda: _settings(overrides, config_dir), config_dir) from error


def expanded(overrides: Sequence[str], config_dir: str | Path | None = None) -> list[str]:
    """Adds the choices of a typed algorithm to the overrides when an experiment is typed too.

    Hydra merges an experiment last, so its head, for example, would override that of `algorithm=c51`, which was typed to try
    that head on this experiment. Typed overrides do not change.
    """
    parsed = parse_overrides(overrides)
    typed = {str(o.key_or_group): o for o in parsed}
    algorithm = typed.get("algorithm")
    if algorithm is None or algorithm.is_sweep_override() or not {"experiment", "debug"} & set(typed):
        return list(overrides)
    path = catalogue.option_file("algorithm", str(algorithm.value()), config_dir)
    if path is None:
        return list(overrides)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    groups = catalogue.groups(config_dir)
    chosen = {
        k.rpartition("/")[2]: v for entry in tree.pop("defaults") if isinstance(entry, dict) for k, v in entry.items()
    }
    found = [f"{group}={_typed(option)}" for group, option in chosen.items() if group not in typed]
    found += [
        f"{key}={_typed(value)}" for key, value in _leaves(tree)
        if key not in typed and not (key.split(".")[0] in groups and key.split(".")[0] in typed)
    ]  # fmt: skip
    return [*overrides, *found]


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _typed(value: Any) -> str:
    """Writes a YAML value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_typed(part) for part in value)}]"
    return f"'{value}'" if isinstance(value, str) and "${" in value else str(value)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Converts a composed configuration to plain Python values, without the `hydra` node.

    Raises:
        UserError: a value is missing (`???`) or an interpolation does not resolve.
    """
    own = {key: cfg._get_node(key) for key in cfg if key != "hydra"}
    root = OmegaConf.create(own)
    try:
        value = OmegaConf.to_container(root, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    assert isinstance(value, dict)
    return {str(key): part for key, part in value.items()}


def choices_of(hydra_node: DictConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Group -> chosen option (names, where a group takes several), without Hydra's own groups."""
    chosen = OmegaConf.to_container(hydra_node.runtime.choices)
    assert isinstance(chosen, dict)
    choices = {str(group): option for group, option in chosen.items() if not str(group).startswith("hydra/")}
    for group, part in config.items():  # Hydra forgets choices given as a list
        if group not in choices and isinstance(part, dict) and part and all(isinstance(n, dict) for n in part.values()):
            choices[group] = list(part)
    return choices


def check_choices(parsed: Sequence[Override], config_dir: str | Path | None = None) -> None:
    """Checks group choices before Hydra: existing options, and a plus exactly where one is needed.

    Raises:
        UserError: with the correct form.
    """
    known = catalogue.groups(config_dir)
    added = {o.key_or_group for o in parsed if o.is_add()}
    for override in parsed:
        group = override.key_or_group
        if group == "allow_targets" and not override.is_add():
            raise UserError(f"{override.input_line}: code of your own is permitted with a plus: +{override.input_line}")
        if group == "hydra.searchpath":
            raise UserError("hydra.searchpath: a folder of your own options is added with --config-dir FOLDER")
        if group == "hydra.sweeper.params" or group.startswith("hydra.sweeper.params."):
            raise UserError(
                f"{override.input_line}: this is for files; on the command line what is swept over is typed as settings are: "
                "-m seed=0,1"
            )
        if group not in known or override.is_delete() or override.is_sweep_override():
            continue
        value, text = override.value(), override.input_line or ""
        if group in catalogue.ADDED and group not in added:
            raise UserError(f"{text}: {group} is no part of a run unless added\n  type +{text.lstrip('+')}")
        if group not in catalogue.ADDED and (override.is_add() or override.is_force_add()):
            raise UserError(f"{text}: a run has a {group} already; choose another without a plus: {text.lstrip('+')}")
        if value is None:
            names = ", ".join(name for name, _ in catalogue.options(group, config_dir))
            raise UserError(f"{text}: a run needs a {group}\n  options: {names}")
        for option in value if isinstance(value, list) else [value]:
            name = str(option)
            if catalogue.option_file(group, name, config_dir) is None:
                raise UserError(catalogue.unknown_option(group, name, config_dir, f"command line: {text}"))


def typed(key: str, overrides: Sequence[str], config_dir: str | Path | None = None) -> str | None:
    """The override, as typed, that gives a dotted key its value; None where a file does."""
    groups = catalogue.groups(config_dir)
    for text in reversed(overrides):
        name = text.lstrip("+~").split("=", 1)[0]
        if name not in groups and (key == name or key.startswith((f"{name}.", f"{name}["))):
            return text
    return None


def origin(key: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> str:
    """The origin of a dotted key's value: the override as typed, else the last file in merge order that has it."""
    text = typed(key, overrides, config_dir)
    if text is not None:
        return f"command line: {text}"
    try:
        files = list(_merged_files(overrides, config_dir))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError):
        return nowhere(key)
    for label, package, content in reversed(files):
        tree = OmegaConf.create()
        OmegaConf.update(tree, package, content, force_add=True) if package else tree.merge_with(content)
        if _has(OmegaConf.to_container(tree, resolve=False), key):
            return label
    return nowhere(key)


def _has(tree: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def _merged_files(overrides: Sequence[str], config_dir: str | Path | None) -> Iterator[tuple[str, str, DictConfig]]:
    """(name for a message, package, content) of the files behind a composition, in merge order."""
    with _hydra(None):
        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list("train", [*overrides, *_search(config_dir)], RunMode.RUN).defaults
    for default in defaults:
        group, _, option = str(default.config_path).rpartition("/") if default.config_path else ("", "", "")
        path = None if group.startswith("hydra") else catalogue.option_file(group, option, config_dir)
        if path is not None:
            packaged = path.is_relative_to(catalogue.packaged_root())
            content = OmegaConf.load(path)
            assert isinstance(content, DictConfig)
            content.pop("defaults", None)
            yield f"configs/{default.config_path}.yaml" if packaged else str(path), default.package or "", content


def _settings(overrides: Sequence[str], config_dir: str | Path | None) -> dict[str, Any]:
    """The settings that exist under these group choices, for suggestions."""
    groups = catalogue.groups(config_dir)
    chosen = [o.input_line for o in parse_overrides(overrides) if o.key_or_group in groups and o.input_line]
    with _hydra(None):
        return plain(hydra_compose("train", [*chosen, *_search(config_dir)]))


def _search(config_dir: str | Path | None) -> list[str]:
    if config_dir is None:
        return []
    return [f"hydra.searchpath=[{quoted(own_experiment.place(config_dir))}]"]


def quoted(text: str | Path) -> str:
    """Quotes a text as a value in Hydra's grammar.

    Raises:
        UserError: it contains an interpolation, which cannot be quoted.
    """
    if "${" in str(text):
        raise UserError(f"{text}: a path cannot hold '${{'")
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def _hydra(config_path: str | None) -> Iterator[None]:
    """Initialises Hydra on the packaged (or the given) configuration, and restores its state afterwards."""
    saved = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    module = (config_path or "pkg://dqnlm.configs").removeprefix("pkg://")
    try:
        if config_path is not None and not config_path.startswith("pkg://"):
            initialize_config_dir(config_path, job_name="train", version_base=VERSION_BASE)
        else:
            initialize_config_module(module, job_name="train", version_base=VERSION_BASE)
        yield
    finally:
        GlobalHydra.instance().clear()
        if saved is not None:
            GlobalHydra.instance().initialize(saved)
