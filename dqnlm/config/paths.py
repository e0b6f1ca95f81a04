"""The paths in a validated configuration, found by the annotations of `dqnlm.utils.paths`: anchored, permitted, named anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from dqnlm.config.schema import TARGET, keyword_parameters, resolve_target
from dqnlm.config.sections import PLAIN
from dqnlm.utils.paths import PATHS, CodePath, FilePath
from dqnlm.utils.permissions import permit_targets

Change = Callable[[str, Any, Any], Any]  # (dotted key, value, annotation) of a setting that may be a path -> the new value

READ = ("data", "env", "reward")  # groups whose files are read again by what goes on with a run or scores it


class Place(NamedTuple):
    """A setting that may name a file or folder.

    Attributes:
        value: as it stands in the configuration; None, or the name of a choice, where it names none.
        kind: which of PATHS the value is; None where it names none.
    """

    value: Any
    kind: Any

    @property
    def file(self) -> Path | None:
        """The file or folder, for code that which holds it; None where it names none."""
        if self.kind is None:
            return None
        return Path(self.value.rpartition(":")[0] if self.kind is CodePath else self.value).expanduser()


def anchored(config: Mapping[str, Any], base: Path, only: Collection[str] | None = None) -> dict[str, Any]:
    """A validated configuration whose paths are absolute, so that its run can be resumed from anywhere.

    Args:
        config: as from `validate`; left as it is.
        base: what relative paths are relative to.
        only: dotted keys of the settings that are made absolute; None for all.
    """

    def whole(key: str, value: Any, annotation: Any) -> Any:
        kind = path_kind(value, annotation)
        if kind is None or (only is not None and key not in only):
            return value
        if kind is CodePath:
            file, colon, name = value.rpartition(":")
            return (
                f"{(base / Path(file).expanduser()).resolve()}:{name}" if colon else value
            )  # else refused when loaded
        path = base / Path(value).expanduser()
        return str(path) if kind is FilePath or path.exists() else value

    return _all_changed(config, whole)


def permit_code(config: Mapping[str, Any], only: Collection[str] | None = None) -> None:
    """Permits the Python files that settings name (of `only` these); for what the user typed, never for that of a run."""
    for key, place in places(config).items():
        if place.kind is CodePath and str(place.file).endswith(".py") and (only is None or key in only):
            permit_targets(str(place.file))


def places(config: Mapping[str, Any]) -> dict[str, Place]:
    """All settings that may name a file or folder, by dotted key, also where they name none."""
    found: dict[str, Place] = {}

    def note(key: str, value: Any, annotation: Any) -> Any:
        found[key] = Place(value, path_kind(value, annotation))
        return value

    _all_changed(config, note)
    return found


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Place]:
    """The settings that name another place than before, as they are now.

    Another choice (a byte tokenizer for one of characters) is no other place, nor is another function of a file.
    """
    old = places(before)
    return {
        key: place for key, place in places(after).items()
        if key in old and old[key].value != place.value and _is_only_moved(old[key], place)
    }  # fmt: skip


def _is_only_moved(old: Place, new: Place) -> bool:
    if CodePath in (old.kind, new.kind):
        return old.kind is new.kind and old.value.rpartition(":")[2] == new.value.rpartition(":")[2]
    return old.kind is not None or new.kind is not None


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with these values of settings that may be paths, by dotted key; left as it is itself."""
    return _all_changed(config, lambda key, value, _: values.get(key, value))


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
    return change(key, value, annotation) if any(arm in PATHS for arm in _arms(annotation)) else value


def _inner(annotation: Any, container: type) -> Any:
    """The annotation of the elements of a list, or of the values of a dictionary."""
    found = (get_args(arm) for arm in _arms(annotation) if get_origin(arm) is container)
    return next((arguments[-1] for arguments in found if arguments), Any)


def _arms(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
