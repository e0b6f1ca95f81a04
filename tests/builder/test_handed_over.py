"""What the builder hands to the parts: the facts of the task and the settings of the run, not others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqnlm.builder import agent, launch
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.components import Components
from dqnlm.utils import streams
from tests.helpers import runs as tools

HEAD: Any = SimpleNamespace()


def pool_of(
    monkeypatch: pytest.MonkeyPatch, gamma: float, multi_turn: bool, truncates: bool, sample: str, reward: Any = None
) -> dict[str, Any]:
    """What an objective can ask for, by the name of its parameter."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(agent, "_objectives", lambda config, pool, rewards: found.update(pool) or {})
    task: Any = SimpleNamespace(spec=SimpleNamespace(multi_turn=multi_turn, truncates=truncates, reward_names=()), reward=reward)
    feedback = "taken" if reward is None else "all_actions"
    config: dict[str, Any] = {"feedback": feedback, "gamma": gamma, "buffer": {"sample": sample}, "objective": {}}
    agent.build_objectives(config, task, HEAD, HEAD, HEAD)
    return found


@pytest.mark.parametrize(
    ("gamma", "multi_turn", "truncates", "sample", "values_matter", "last_has_value"),
    [
        (0.0, False, False, "rows", False, False),
        (0.5, False, False, "rows", True, False),
        (0.0, True, False, "rows", True, False),  # a partner's step has discount 1, and carries the value behind it
        (0.5, False, True, "rows", True, True),  # a row that is cut has a value at its end
        (0.5, False, False, "transitions", True, True),  # and so has a window that ends within a row
    ],
)
def test_which_values_an_objective_must_read(
    gamma: float, multi_turn: bool, truncates: bool, sample: str, values_matter: bool, last_has_value: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Bug: no target network where one is needed, or a last observation without a value."""
    pool = pool_of(monkeypatch, gamma, multi_turn, truncates, sample)
    assert (pool["values_matter"], pool["last_has_value"]) == (values_matter, last_has_value) and pool["reward_all"] is None


def test_rewards_of_all_actions_are_those_of_the_tokens_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: every action is compared with the token that was just read, not with the one to come."""
    reward = SimpleNamespace(all_actions=lambda reference_BT: reference_BT * 10)
    pool = pool_of(monkeypatch, 0.0, False, False, "rows", reward)
    assert pool["reward_all"](torch.tensor([[1, 2, 3]])).tolist() == [[20, 30]]


def built(folder: Path, *overrides: str) -> Components:
    text = tools.write_text(folder / "text.txt")
    checked, choices = tools.settings(tools.tiny(text, *overrides))
    return launch.build(checked, RunDirectory(folder), choices=choices).components


def test_the_buffer_has_the_settings_of_the_run(tmp_path: Path) -> None:
    """Bug: another discount, priorities that count burn-in, or the random numbers of another stream."""
    parts = built(
        tmp_path, "gamma=0.375", "buffer=prioritized", "learner.burn_in=2", "network=gru", "seed=5", "env.allowed=' etanhs'"
    )
    buffer: Any = parts.buffer
    assert buffer.storage.gamma == 0.375 and buffer.burn_in == 2 == parts.learner.burn_in
    assert buffer.generator.initial_seed() == streams.seed_of(5, streams.BUFFER)
    legal = parts.learner.legal
    assert legal is not None
    mask = legal(torch.zeros(1, 1, dtype=torch.int64))
    assert mask is not None and int(mask.sum()) == 7 and not parts.learner.multi_turn


def test_the_learner_is_told_that_steps_of_a_partner_are_carried(tmp_path: Path) -> None:
    """Bug: an earlier decision bootstraps from a state in which the environment writes."""
    from dqnlm.config import composition, validation

    typed = ["+experiment=maze", "device=cpu", "threads=1", "logger=none", "progress=false"]
    composed, choices = composition.compose(typed)
    checked = validation.validate(composed, choices, typed)
    parts = launch.build(checked, RunDirectory(tmp_path), choices=choices).components
    assert parts.task.spec.multi_turn and parts.learner.multi_turn
