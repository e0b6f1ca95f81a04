"""What parts declare of themselves is read by something."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import dqnlm
from dqnlm.agent.exploration import Exploration
from dqnlm.buffers.base import Buffer
from dqnlm.evaluation.base import Evaluator
from dqnlm.heads.base import Head
from dqnlm.networks.base import Body
from dqnlm.objectives.base import Objective
from dqnlm.objectives.bootstrap import Bootstrap
from dqnlm.objectives.returns import Returns
from dqnlm.rewards.base import Reward
from dqnlm.tasks.base import Task
from dqnlm.types import TaskSpec
from dqnlm.utils.context import RunContext

BASES = (Exploration, Buffer, Head, Body, Objective, Bootstrap, Returns, Reward, Task, Evaluator, TaskSpec)


def read_attributes() -> set[str]:
    """Names x of all `something.x` that the package reads."""
    found = set()
    for path in Path(dqnlm.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return found


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_every_flag_is_read(base: type) -> None:
    """Bug: a flag is declared, documented and set by users' parts, and nothing asks for it."""
    flags = {name for name, value in vars(base).items() if isinstance(value, bool)}
    assert flags and not flags - read_attributes()


def test_every_fact_of_the_context_is_read() -> None:
    """Bug: a fact is gathered for a check that is gone."""
    assert not {field.name for field in dataclasses.fields(RunContext)} - read_attributes()
