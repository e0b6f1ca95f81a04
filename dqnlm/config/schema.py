"""Strict checks of a composed configuration: every key is read, every value has the right type.

A node with `_target_` names a class or function. Its KEYWORD-ONLY parameters are the keys that may (and, where Python
gives no default, must) stand beside `_target_`, and their annotations are the types. So the code that reads a value is
the only place that declares it, and YAML is the only place that gives it a default.
"""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dqnlm.config.coerce import MismatchError, conform
from dqnlm.config.moved import VALUES, new_name
from dqnlm.errors import UserError
from dqnlm.utils import user_code
from dqnlm.utils.permissions import allowing, permitted
from dqnlm.utils.suggest import suggestion

TARGET = "_target_"
OWN_PREFIX = "dqnlm"
# Where the parts of a run live. No other module may be named: a run's folder must not reach, say, `load_policy`, which
# could be told to permit code.
PARTS = (
    "agent.exploration", "agent.learner", "agent.optimizer", "agent.settings", "agent.target", "buffers",
    "data.pairs.dataset", "data.prompts.dataset", "data.text.corpora", "data.trajectories.dataset", "data.trajectories.log",
    "envs", "evaluation.settings", "heads", "metrics", "networks", "objectives", "partners", "rewards", "runs.settings",
    "runs.trackio_logger", "runs.wandb_logger", "training.acting", "training.ray_actors", "training.trainer",
)  # fmt: skip
Where = Callable[[str], str]  # dotted key -> where its value came from, in words


def nowhere(key: str) -> str:
    """The origin of a value without a known origin."""
    return "the configuration"


def resolve_target(dotted: Any, key: str = "", where: Where = nowhere) -> Callable[..., Any]:
    """Resolves a dotted name to a class or function.

    Raises:
        UserError: not a dotted path, outside the permitted modules, no part of a run, or no such module or name.
    """
    node = f"{key}.{TARGET}" if key else TARGET
    if not isinstance(dotted, str) or "." not in dotted or not all(part.isidentifier() for part in dotted.split(".")):
        raise UserError(f"{node}: {dotted!r} is no dotted path of a class or function ({where(node)})")
    if not _is_allowed(dotted):
        raise UserError(_not_permitted(node, dotted, [dotted.rpartition(".")[0]], where))
    module_name, _, name = dotted.rpartition(".")
    own = dotted.startswith(f"{OWN_PREFIX}.")
    if own and not any(f"{module_name}.".startswith(f"{OWN_PREFIX}.{part}.") for part in PARTS):
        raise UserError(f"{node}: there is no module {module_name} with parts of a run ({where(node)})")
    if not own and os.getcwd() not in sys.path:  # permitted; last, so that nothing there hides what is installed
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module missing inside the target's own imports is its author's mistake, or a package to install.
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            wrong = "" if own else f"\n  {user_code.blame(error, module_name)}"
            raise UserError(f"{node}: {module_name} needs the package {error.name}, which is not installed{wrong}") from error
        hint = "" if own else "\n  put it into the current folder, or its folder on the path: PYTHONPATH=FOLDER dqnlm ..."
        raise UserError(f"{node}: there is no module {module_name} ({where(node)}){hint}") from error
    except user_code.ERRORS as error:
        if own:
            raise
        wrong = user_code.blame(error, module_name)
        raise UserError(f"{node}: {dotted} cannot be imported ({where(node)})\n  {wrong}") from error
    target = getattr(module, name, None)
    if not callable(target) or (own and target.__module__ != module_name):  # what a module imports is not its own
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        near = suggestion(name, public, f"{module_name}.")
        has = "" if own or near else f"\n  it has: {', '.join(public) or 'no class and no function'}"
        raise UserError(f"{node}: {module_name} has no {name} ({where(node)}){near}{has}")
    return target


def require_permitted(config: Mapping[str, Any], where: Where = nowhere) -> None:
    """Raises UserError that names all modules at once that a configuration uses without permission."""
    found = [(key, target) for key, target in _targets(config) if not _is_allowed(target)]
    if found:
        owners = list(dict.fromkeys(target.rpartition(".")[0] for _, target in found))
        raise UserError(_not_permitted(*found[0], owners, where))


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value of each `_target_` that is a dotted name."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        inner = f"{key}.{name}" if key else str(name)
        if name == TARGET and isinstance(value, str) and "." in value:
            yield inner, value
        else:
            yield from _targets(value, inner)


def _is_allowed(dotted: str) -> bool:
    return any(dotted.startswith(f"{prefix}.") for prefix in (OWN_PREFIX, *permitted()))


def _not_permitted(node: str, dotted: str, owners: Sequence[str], where: Where) -> str:
    """The message for code without permission; what is typed permits it beside all that is permitted already."""
    return (
        f"{node}: {dotted} is code outside dqnlm that is not permitted ({where(node)})\n"
        f"  if you trust it, permit it: {shlex.quote(allowing(*owners))}; from Python: "
        f"load_policy(..., allow_targets={[*sorted(permitted()), *owners]})"
    )


def unwritten(target: Any) -> list[str]:
    """Abstract methods that a class does not define; [] where it is complete."""
    return sorted(getattr(target, "__abstractmethods__", ()))


def keyword_parameters(target: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """Reads keyword-only parameters: name -> (annotation, required).

    Raises:
        UserError: a parameter has no annotation, or one that cannot be evaluated: a mistake in the code of the target.
    """
    names = _names_of(target)
    found = {}
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            raise UserError(
                f"{_place(target)}: the keyword-only parameter {parameter.name} has no annotation; write its type, such as "
                f"{parameter.name}: float, which the configuration is checked against"
            )
        if isinstance(annotation, str):
            # Evaluated one by one: positional parameters may be annotated with names known to type checkers only.
            try:
                annotation = eval(annotation, dict(names))
            except Exception as error:
                raise UserError(
                    f"{_place(target)}: the annotation of {parameter.name}, {annotation}, cannot be read: "
                    f"{type(error).__name__}: {error}"
                ) from error
        found[parameter.name] = (annotation, parameter.default is inspect.Parameter.empty)
    return found


def _names_of(target: Callable[..., Any]) -> dict[str, Any]:
    """What an annotation may refer to: the globals where the signature is written, which a subclass may inherit."""
    written = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)
    return {**vars(sys.modules[target.__module__]), **getattr(written, "__globals__", {})}


def _place(target: Callable[..., Any]) -> str:
    """A target and the line where its signature is written."""
    code = getattr(inspect.unwrap(target.__init__ if inspect.isclass(target) else target), "__code__", None)
    line = "" if code is None else f" ({code.co_filename}, line {code.co_firstlineno})"
    return f"{target.__module__}.{target.__qualname__}{line}"


def check_node(
    node: Mapping[str, Any], key: str, where: Where = nowhere, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Checks one node with `_target_`: its keys and values against the target's keyword-only parameters.

    Args:
        node: the mapping, with `_target_`.
        key: dotted path of the node, for messages.
        where: dotted key -> origin of its value.
        extra: further keys that may stand here, name -> annotation, read by whoever holds the node.

    Returns:
        The node with coerced values (1e3 where an integer is meant becomes 1000), in the order given.
    """
    target = resolve_target(node[TARGET], key, where)
    require_names(node, key, where)
    if inspect.isabstract(target):
        raise UserError(
            f"{key}: {node[TARGET]} has no {', '.join(unwritten(target))} yet, which its base class asks for"
        )
    parameters = keyword_parameters(target)
    for name, annotation in (extra or {}).items():
        parameters.setdefault(name, (annotation, False))
    for name in node:
        if name != TARGET and name not in parameters:
            if name in inspect.signature(target).parameters:
                raise UserError(
                    f"{key}.{name}: {_place(target)} takes {name} by position; put it after the star to make it a setting:\n"
                    f"  def __init__(self, ..., *, {name}: float)"
                )
            raise UserError(unknown_key(f"{key}.{name}", sorted(parameters), where, f"{node[TARGET]} takes", node[TARGET]))
    missing = [name for name, (_, required) in parameters.items() if required and name not in node]
    if missing:
        raise UserError(
            f"{key}.{missing[0]}: this setting is missing ({where(key)})\n"
            f"  {node[TARGET]} needs: {', '.join(n for n, (_, required) in parameters.items() if required)}"
        )
    checked: dict[str, Any] = {TARGET: node[TARGET]}
    for name, value in node.items():
        if name != TARGET:
            checked[name] = check_value(value, parameters[name][0], f"{key}.{name}", where)
    return checked


def require_names(node: Mapping[Any, Any], key: str, where: Where) -> None:
    """Raises UserError where the name of a setting is no text, as YAML reads `1:` and `2024-05-01:`."""
    for name in node:
        if not isinstance(name, str):
            place = f"{key}: " if key else ""
            raise UserError(f"{place}a setting is named by a text, and {name!r} is none ({where(key)})")


def unknown_key(key: str, siblings: list[str], where: Where, holder: str, target: str = "") -> str:
    """The message for a key that nothing reads; `target` is the `_target_` beside it."""
    parent, _, name = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    source = where(key)
    if (now := new_name(key, target)) is not None:  # dropping it would silently train with another value
        return f"{key}: no such setting ({source})\n  it is called {now} now"
    message = (
        f"{key}: no such setting ({source}){suggestion(name, siblings, prefix)}\n"
        f"  {holder}: {', '.join(siblings) if siblings else 'no settings'}"
    )
    # An experiment may set what only its own network (or other part) has; one word drops it.
    return message if source.startswith("command line") else f"{message}\n  drop it with ~{key}"


def check_value(value: Any, annotation: Any, key: str, where: Where = nowhere) -> Any:
    """Checks a value against an annotation; nodes inside it are checked against their own targets.

    Raises:
        UserError: the value does not fit; the message names key, value, origin and what is accepted.
    """
    if isinstance(value, Mapping) and TARGET in value:
        return check_node(value, key, where)
    try:
        value = conform(value, annotation)
    except MismatchError as error:
        renamed = VALUES.get((key, value)) if isinstance(value, str) else None
        hint = error.hint(key) if renamed is None else f"\n  it is called {key}={renamed} now"
        raise UserError(f"{key}: {shown(value)} {error} ({where(key)}){hint}") from None
    return check_nested(value, key, where)


def shown(value: Any) -> str:
    """Formats a value as YAML."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def check_nested(value: Any, key: str, where: Where) -> Any:
    """Checks nodes below a plain value: a component of a mixture has a `weight` besides its target's keys."""
    if isinstance(value, dict):
        if TARGET in value:
            return check_node(value, key, where, extra={"weight": float})
        return {name: check_nested(part, f"{key}.{name}", where) for name, part in value.items()}
    if isinstance(value, list):
        return [check_nested(part, f"{key}[{index}]", where) for index, part in enumerate(value)]
    return value


def instantiate(node: Mapping[str, Any], *supplied: Any, **extra: Any) -> Any:
    """Calls the node's target: `supplied` by position, the node's keys and `extra` by keyword.

    Raises:
        UserError: the node has no `_target_`, its target is not permitted, takes other arguments than these, or refuses a
            value.
    """
    if TARGET not in node:
        raise UserError(f"a node without {TARGET} cannot be built: keys {', '.join(map(str, node)) or 'none'}")
    target = resolve_target(node[TARGET])
    named = {name: value for name, value in node.items() if name != TARGET} | extra
    if not str(node[TARGET]).startswith(f"{OWN_PREFIX}."):
        try:
            inspect.signature(target).bind(*supplied, **named)
        except TypeError as error:
            given = f"{len(supplied)} by position and {', '.join(named) or 'none'} by name"
            raise UserError(
                f"{_place(target)}: cannot be called with the arguments it is given, {given}: {error}"
            ) from None
    return target(*supplied, **named)


def instantiate_with(node: Mapping[str, Any], pool: Mapping[str, Any], key: str) -> Any:
    """Calls the node's target with the dependencies NAMED by its positional parameters, and the node's keys.

    Args:
        node: with `_target_`.
        pool: name -> object; the dependencies that this run has.
        key: dotted path of the node, for messages.

    Raises:
        UserError: the target names a dependency that this run does not have.
    """
    target = resolve_target(node[TARGET])
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(target).parameters.values() if p.kind in kinds]
    for name in names:
        if name not in pool:
            raise UserError(f"{key}: {node[TARGET]} needs {name!r}, which this run has not; it has: {', '.join(pool)}")
    return instantiate(node, *(pool[name] for name in names))
