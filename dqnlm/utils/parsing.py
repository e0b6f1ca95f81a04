"""JSON and YAML of files that may be damaged or foreign: what cannot be read is a ValueError, and nothing else happens.

Both parsers recurse. A text of nothing but brackets ends the one in a RecursionError, and the other, where it is written in C, in
a segmentation fault; so the depth of YAML is counted before it is read. And aliases of aliases let a few lines of YAML stand
for any number of values, which are counted too.
"""

from __future__ import annotations

import json
from typing import Any

MOST_LEVELS = 100  # of YAML; configurations have about six
MOST_VALUES = 100_000  # of YAML, aliases counted as what they stand for; configurations have about two hundred


def json_value(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON (`json.JSONDecodeError`, with the place), no text, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def yaml_value(text: str) -> Any:
    """The plain value of a YAML text; of several documents an error.

    Raises:
        ValueError: it is no YAML (with the place), has tags for other than plain values, or is too deep or too large.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _require_small(text, loader)
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # Beside its own errors the parser lets through those of int(), float() and the like, for values such as `!!int ""`.
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _require_small(text: str, loader: Any) -> None:
    """Raises ValueError where a text has more levels or values than a configuration. The parser's events are no recursion."""
    import yaml

    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the number of values before the node
    values, sizes = 0, dict[str, int]()
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_nodes):
                raise ValueError(f"the alias *{event.anchor} stands within what it refers to")
            values += sizes.get(event.anchor, 1)  # an unknown one is the parser's own error, later
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: values - before} if anchor else {}
        if len(open_nodes) > MOST_LEVELS or values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_LEVELS} levels or {MOST_VALUES:,} values, which no configuration has")
