"""Selects the kind of task of a run, by its environment's class."""

from __future__ import annotations

from typing import Any

from dqnlm.config.schema import resolve_target, unwritten
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.tasks.answers import AnswersTask
from dqnlm.tasks.base import Task
from dqnlm.tasks.environment import EnvironmentTask
from dqnlm.tasks.log import LogTask
from dqnlm.tasks.prompts import PromptsTask
from dqnlm.tasks.text import TextTask

TASKS: dict[str, type[Task]] = {task.kind: task for task in (TextTask, AnswersTask, PromptsTask, LogTask, EnvironmentTask)}


def task_class(config: dict[str, Any]) -> type[Task]:
    """The class of the run's task.

    Raises:
        UserError: the environment's class names no task, or one that is not complete.
    """
    target = config["env"]["_target_"]
    named = getattr(resolve_target(target), "task", Environment.task)
    if isinstance(named, type) and issubclass(named, Task):
        _require_complete(named)
        return named
    if named in TASKS:
        return TASKS[named]
    raise UserError(
        f"env: {target} has task = {named!r}, which is none of {', '.join(TASKS)}, and no subclass of dqnlm.tasks.base.Task"
    )


def _require_complete(task: type[Task]) -> None:
    """Raises UserError where a task class lacks a required member."""
    lacking = [*([] if hasattr(task, "kind") else ["kind"]), *unwritten(task)]
    if lacking:
        raise UserError(
            f"env: its task, {task.__module__}.{task.__qualname__}, has no {', '.join(lacking)} yet, which "
            "dqnlm.tasks.base.Task asks for"
        )
