"""The paths in a validated configuration, found by the annotations of `dqnlm.utils.paths`: made absolute, and permitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from dqnlm.config.schema import TARGET, keyword_parameters, resolve_target
from dqnlm.config.validation import PLAIN
from dqnlm.utils.paths import PATHS, CodePath, FilePath
from dqnlm.utils.permissions import permit_targets

Change = Callable[[str, Any], str]  # (value, one of PATHS) -> the new value


def anchored(config: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A validated configuration whose paths are absolute, so that its run can be resumed from anywhere.

    Args:
        config: as from `validate`; left as it is.
        base: what relative paths are relative to.
    """

    def whole(value: str, kind: Any) -> str:
        if kind is CodePath:
            file, colon, name = value.rpartition(":")
            return (
                f"{(base / Path(file).expanduser()).resolve()}:{name}" if colon else value
            )  # else refused when loaded
        path = base / Path(value).expanduser()
        return str(path) if kind is FilePath or path.exists() else value

    return _all_changed(config, whole)


def permit_code(config: Mapping[str, Any]) -> None:
    """Permits the Python files that a configuration names; for one that the user typed, never for that of a run."""

    def permit(value: str, kind: Any) -> str:
        file = value.rpartition(":")[0]
        if kind is CodePath and file.endswith(".py"):
            permit_targets(file)
        return value

    _all_changed(config, permit)


def path_kind(value: Any, annotation: Any) -> Any:
    """Which of PATHS a value is by its annotation; None if it is no path, as the name of a choice (a Literal) is none."""
    arms = _arms(annotation)
    if not isinstance(value, str) or any(get_origin(arm) is Literal and value in get_args(arm) for arm in arms):
        return None
    return next((arm for arm in arms if arm in PATHS), None)


def _all_changed(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    return {key: _changed(value, PLAIN.get(key, Any), key, change) for key, value in config.items()}


def _changed(value: Any, annotation: Any, key: str, change: Change) -> Any:
    """A value with all paths in it changed: by its own annotation, in nodes below it by those of their targets."""
    if isinstance(value, Mapping):
        own = keyword_parameters(resolve_target(value[TARGET], key)) if TARGET in value else {}
        inner = _inner(annotation, dict)
        return {
            name: _changed(part, own[name][0] if name in own else inner, f"{key}.{name}", change)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_changed(part, _inner(annotation, list), f"{key}[{i}]", change) for i, part in enumerate(value)]
    kind = path_kind(value, annotation)
    return value if kind is None else change(value, kind)


def _inner(annotation: Any, container: type) -> Any:
    """The annotation of the elements of a list, or of the values of a dictionary."""
    found = (get_args(arm) for arm in _arms(annotation) if get_origin(arm) is container)
    return next((arguments[-1] for arguments in found if arguments), Any)


def _arms(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
