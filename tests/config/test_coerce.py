"""Values against annotations: strict, except where the meaning is beyond doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from dqnlm.config.coerce import MismatchError, conform


@pytest.mark.parametrize(
    ("value", "annotation", "result"),
    [
        (1e6, int, 1_000_000), (3, float, 3.0), (3, int | float, 3), (None, int | None, None), (2024, str, "2024"),
        ("a", Literal["a", "b"], "a"), ([1.0, 2], list[int], [1, 2]), ({"a": 1}, dict[str, float], {"a": 1.0}),
        ("taken", Literal["taken"] | None, "taken"), ([0.9, 1], tuple[float, float], [0.9, 1.0]), ({1}, Any, {1}),
    ],
)  # fmt: skip
def test_conform_accepts(value: Any, annotation: Any, result: Any) -> None:
    """Bug: an exact value is changed, or a harmless one refused."""
    found = conform(value, annotation)
    assert found == result and type(found) is type(result)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, int), (True, float), (1, bool), ("1", int), (1.5, int), (float("nan"), float), (float("inf"), int),
        (float("inf"), float), (-float("inf"), float), (10**400, float),
        (None, int), (None, str), (False, str), ("c", Literal["a", "b"]), (True, Literal[1]), ("a", list[str]),
        ([1, "x"], list[int]), (2**63, int), (1e30, int),
        (-(2**64), int | None), ([1.0], tuple[float, float]), ("None", int | None), (3, dict), (1, Path),
    ],
)  # fmt: skip
def test_conform_refuses(value: Any, annotation: Any) -> None:
    """Bug: true counts as 1, a text as a number, nan as a learning rate."""
    with pytest.raises(MismatchError):
        conform(value, annotation)
