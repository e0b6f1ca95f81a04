"""Values from YAML or a shell against Python annotations: strict, except where the meaning is beyond doubt."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NewType, Union, get_args, get_origin

from dqnlm.utils.float32 import as_float

GREATEST_INTEGER = 2**63 - 1  # of torch, 64 bits with a sign


class MismatchError(Exception):
    """A value does not fit; the text continues `<value> ...`. `hint(key)` is a further line, or nothing."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self._hint = hint

    def hint(self, key: str) -> str:
        """What to type instead, with the setting's name put in."""
        return f"\n  {self._hint.replace('KEY', key)}" if self._hint else ""


def conform(value: Any, annotation: Any) -> Any:
    """`value` as the type that `annotation` names.

    Accepted beyond the exact type: an integral float where an integer is meant (1e6), an integer where a float or a
    text is meant, any sequence where a list is meant. A bool is no number.

    Raises:
        MismatchError: it does not fit.
        TypeError: an annotation that a configuration cannot hold (a mistake in the code).
    """
    annotation = _bare(annotation)
    if annotation is Any or annotation is object:
        return value
    if annotation is None or annotation is type(None):
        return _null(value)
    origin = get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return _union(value, get_args(annotation))
    if origin is Literal:
        return _literal(value, get_args(annotation))
    handler = _HANDLERS.get(origin)
    if handler is None:
        if isinstance(annotation, type):
            raise MismatchError(f"is no node with _target_ for a {annotation.__name__}")
        raise TypeError(f"annotation {annotation!r} is not one a configuration can hold")
    return handler(value, get_args(annotation))


def describe(annotation: Any) -> str:
    """An annotation in a user's words."""
    annotation = _bare(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    origin = get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arm) for arm in get_args(annotation))
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(annotation))
    if origin in (list, Sequence) and get_args(annotation):
        return f"a list, each element {describe(get_args(annotation)[0])}"
    return _WORDS.get(origin, getattr(annotation, "__name__", str(annotation)))


def _bare(annotation: Any) -> Any:
    """The type below a NewType, such as `FilePath`."""
    return _bare(annotation.__supertype__) if isinstance(annotation, NewType) else annotation


def _null(value: Any) -> None:
    if value is not None:
        raise MismatchError("is not null")


def _union(value: Any, arms: tuple[Any, ...]) -> Any:
    """The exact type first, so that 1 stays an integer under `int | float`; then the first arm that accepts it."""
    for arm in sorted(arms, key=lambda arm: type(value) is not (get_origin(arm) or _bare(arm))):
        try:
            return conform(value, arm)
        except MismatchError:
            continue
    literal = next((arm for arm in arms if get_origin(arm) is Literal), None)
    if literal is not None and isinstance(value, str):
        return _literal(value, get_args(literal))
    hint = "write KEY=null for none" if type(None) in arms and value in ("None", "none", "") else ""
    raise MismatchError(f"is not {' or '.join(describe(arm) for arm in arms)}", hint)


def _literal(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1, cutoff=0.5)
    raise MismatchError(
        f"is not one of {', '.join('null' if choice is None else str(choice) for choice in choices)}",
        f"did you mean KEY={near[0]}?" if near else "",
    )


def _int(value: Any, _: tuple[Any, ...]) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MismatchError("is not an integer")
    if abs(value) > GREATEST_INTEGER:
        raise MismatchError(f"is beyond the integers that tensors can count with, {GREATEST_INTEGER:,}")
    return value


def _float(value: Any, _: tuple[Any, ...]) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or math.isnan(as_float(value)):
        raise MismatchError("is not a number")
    number = as_float(value)
    if math.isinf(number):
        raise MismatchError("is not a finite number")
    return number


def _bool(value: Any, _: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):
        return value
    raise MismatchError("is neither true nor false")


def _str(value: Any, _: tuple[Any, ...]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a file or a folder named 2024
    raise MismatchError("is not a text", "" if value is None else "put it in quotes; from the shell: 'KEY=\"...\"'")


def _list(value: Any, arguments: tuple[Any, ...]) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise MismatchError("is not a list", f"write KEY=[{value}]" if isinstance(value, (str, int, float)) else "")
    return [conform(part, arguments[0]) for part in value] if arguments else list(value)


def _tuple(value: Any, arguments: tuple[Any, ...]) -> list[Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list(value, arguments[:1])
    parts = _list(value, ())
    if len(parts) != len(arguments):
        raise MismatchError(f"has {len(parts)} elements where {len(arguments)} are meant")
    return [conform(part, argument) for part, argument in zip(parts, arguments, strict=True)]


def _dict(value: Any, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise MismatchError("is not a mapping of names to values", "write 'KEY={name: value}'")
    if not arguments:
        return dict(value)
    return {conform(name, arguments[0]): _element(part, arguments[1]) for name, part in value.items()}


def _element(value: Any, annotation: Any) -> Any:
    """A node inside a mapping is checked by its own target, later."""
    return value if isinstance(value, Mapping) and "_target_" in value else conform(value, annotation)


_HANDLERS: dict[Any, Callable[[Any, tuple[Any, ...]], Any]] = {
    int: _int, float: _float, bool: _bool, str: _str, list: _list, Sequence: _list, tuple: _tuple, dict: _dict,
    Mapping: _dict,
}  # fmt: skip
_WORDS = {
    int: "an integer", float: "a number", bool: "true or false", str: "a text", list: "a list", Sequence: "a list",
    tuple: "a list", dict: "a mapping", Mapping: "a mapping",
}  # fmt: skip
