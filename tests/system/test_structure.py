"""The numbers of scripts/structure.py, and that its searches find what they look for."""

from __future__ import annotations

import ast

from scripts import structure


def test_the_numbers_are_what_they_must_be() -> None:
    """Bug: a circle of imports, a root that fills up, a file of many concepts, a kind of data asked for by hand."""
    for what, (number, most, examples) in structure.numbers().items():
        assert number <= most, f"{number} {what}: {examples}"


def test_circles_are_found() -> None:
    """Bug: a search that finds nothing. a -> b -> c -> a is one circle; d only reads it."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert structure.circles(graph) == [{"a", "b", "c"}]


def test_kinds_of_data_are_found() -> None:
    """Bug: `isinstance` in a union, or in a function, is overlooked; the task package is not left out."""
    tree = ast.parse("def f(x):\n    return isinstance(x, Corpus | Log)")
    assert structure.asked_kinds({"commands.x": tree, "tasks.x": tree}) == ["commands.x:2"]
