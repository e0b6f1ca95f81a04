"""Static facts of small tasks on tokens."""

from __future__ import annotations

from typing import Any

from dqnlm.types import TaskSpec


def task_spec(size: int, **changes: Any) -> TaskSpec:
    """A task of rows of 8 transitions in which `size` tokens are observed and chosen."""
    facts: dict[str, Any] = {"num_actions": size, "num_tokens": size, "row_transitions": 8, "episode_steps": 8}
    return TaskSpec(**facts | changes)
