"""How a user's reward function is called: with three lists in order, or by the names of its parameters, as TRL calls its own.

    def score(prompts, completions, references)
    def score(prompts, completions, references, answer)           with the column `answer` of the data
    def score(completions, answer, **kwargs)                      by name; the other columns are in kwargs
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

LISTS = ("prompts", "completions", "references")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Call:
    """Calls `function` with lists and columns.

    Raises:
        TypeError: it can be called in neither way, whatever columns there are.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        try:
            parameters = inspect.signature(function).parameters
        except ValueError:  # a function of C without a signature: its first call tells
            parameters = inspect.signature(lambda prompts, completions, references: None).parameters
        self.takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        named = {name: p for name, p in parameters.items() if p.kind in _NAMED}
        self.by_name = "completions" in named
        places = [p for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        first = {p.name for p in places[: len(LISTS)]}
        self.names = set(named) - (set(LISTS) if self.by_name else first)
        self.required = {name for name in self.names if named[name].default is inspect.Parameter.empty}
        if self.by_name:
            self.lists = [name for name in LISTS if name in named or self.takes_all]
        else:
            inspect.signature(function).bind([], [], [], **dict.fromkeys(self.required)) if places else _refuse()

    def missing(self, columns: Mapping[str, Any]) -> list[str]:
        """Parameters that the function requires and no column gives."""
        return sorted(self.required - set(columns))

    def __call__(self, lists: tuple[list[str], ...], columns: Mapping[str, list[Any]]) -> Any:
        """What it returns for three lists of texts, and columns of as many values."""
        given = {name: column for name, column in columns.items() if self.takes_all or name in self.names}
        if not self.by_name:
            return self.function(*lists, **given)
        texts = dict(zip(LISTS, lists, strict=True))
        return self.function(**{name: texts[name] for name in self.lists}, **given)


def _refuse() -> None:
    raise TypeError("it takes no list")
