"""The contract of every environment: one test for all of them. A new one joins in environment_tools.ENVIRONMENTS."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.envs.base import Environment, TeacherForced
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, TimeStep
from tests.helpers.environments import (
    ENVIRONMENTS,
    NoHostSynchronisation,
    episodes,
    given,
    play,
    played,
    random_actions,
)

EVERY = pytest.mark.parametrize("make", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())


@EVERY
def test_contract_shapes_and_flags(make: Callable[[int], Environment]) -> None:
    """Guards what every caller relies on: shapes, types, token range, flags where allowed, nothing read by the host."""
    env = make(0)
    action_NE = random_actions(env, 3 * env.spec.row_transitions + 2)
    first_E, steps = play(env, action_NE)
    dtypes = TimeStep(torch.int64, torch.float32, torch.uint8, torch.bool, torch.int64, torch.bool)  # type: ignore[arg-type]
    assert first_E.shape == (env.num_envs,) and first_E.dtype == torch.int64
    for step in steps:
        assert all(tensor.shape == (env.num_envs,) for tensor in given(step))
        assert tuple(tensor.dtype for tensor in given(step)) == tuple(given(dtypes))
        assert bool(((step.observation_E >= 0) & (step.observation_E < env.spec.num_tokens)).all())
        ended_E = (step.flag_E & (TERMINATED | TRUNCATED)) != 0
        assert torch.equal(ended_E, step.row_end_E)
        assert not bool(((step.flag_E & TERMINATED != 0) & (step.flag_E & TRUNCATED != 0)).any())
        assert bool((step.flag_E <= DECISION | TERMINATED | TRUNCATED).all())
        assert bool((step.reward_E[step.flag_E & DECISION == 0] == 0).all())
        assert torch.equal(step.next_observation_E[~step.row_end_E], step.observation_E[~step.row_end_E])
    if env.spec.lockstep:
        assert all(bool((step.row_end_E == step.row_end_E[0]).all()) for step in steps)


@EVERY
def test_contract_rows(make: Callable[[int], Environment]) -> None:
    """Guards rows that are too long, decisions before `first_decision`, and flags after the end."""
    env = make(0)
    action_NE = random_actions(env, 5 * env.spec.row_transitions)
    for rows in episodes(*played(env, action_NE)):
        assert len(rows) > 4
        for row in rows[:-1]:
            assert len(row["flag"]) <= env.spec.row_transitions
            assert all(not flag & DECISION for flag in row["flag"][: env.spec.first_decision])
            assert any(flag & DECISION for flag in row["flag"])
            assert not any(flag & (TERMINATED | TRUNCATED) for flag in row["flag"][:-1])


@EVERY
@pytest.mark.parametrize("before", [0, 1, 7, 23])
def test_contract_state_dict(make: Callable[[int], Environment], before: int) -> None:
    """Guards resuming: whatever moment is saved, the same actions have the same future, bit for bit, elsewhere."""
    env = make(0)
    action_NE = random_actions(env, before + 40)
    play(env, action_NE[:before])
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    expected = [env.step(action_E) for action_E in action_NE[before:]]
    file.seek(0)
    other = make(99)
    play(other, action_NE[:3])
    other.load_state_dict(torch.load(file, weights_only=True))
    for step, action_E in zip(expected, action_NE[before:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(given(step), given(other.step(action_E)), strict=True))


@EVERY
def test_contract_seed(make: Callable[[int], Environment]) -> None:
    """Guards seed 0 treated as no seed, randomness from elsewhere, and a reset that starts the stream again."""
    firsts = [make(seed).reset().tolist() for seed in (0, 0, 1)]
    assert firsts[0] == firsts[1] != firsts[2]
    env = make(0)
    assert env.reset().tolist() != env.reset().tolist()


@EVERY
@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
def test_contract_return_bounds(make: Callable[[int], Environment], gamma: float) -> None:
    """Guards bounds that a logistic loss would clamp real returns to."""
    env = make(0)
    low, high = env.return_bounds(gamma)
    for rows in episodes(*played(env, random_actions(env, 5 * env.spec.row_transitions))):
        for row in rows[:-1]:
            value = 0.0
            for reward, flag in reversed(list(zip(row["reward"], row["flag"], strict=True))):
                value = reward + gamma * value if flag & DECISION else value
                assert low - 1e-5 <= value <= high + 1e-5
                assert env.reward_bounds.low - 1e-6 <= reward <= env.reward_bounds.high + 1e-6


@EVERY
def test_contract_skip_prompt(make: Callable[[int], Environment]) -> None:
    """Guards a prefix that is not what stepping shows, and one that is skipped in the middle of an episode."""
    env, twin = make(0), make(0)
    env.reset()
    first_E, steps = play(twin, torch.zeros(twin.spec.first_decision, twin.num_envs, dtype=torch.int64))
    prompt_EP = env.skip_prompt()
    if not env.spec.lockstep or env.spec.first_decision == 0:
        assert prompt_EP is None
    else:
        assert prompt_EP is not None
        assert torch.equal(prompt_EP, torch.stack([first_E] + [step.observation_E for step in steps], 1))
        assert env.skip_prompt() is None
        for action_E in random_actions(env, 2 * env.spec.row_transitions):
            assert all(torch.equal(a, b) for a, b in zip(given(env.step(action_E)), given(twin.step(action_E)), strict=True))


@EVERY
def test_contract_parallel_equals_step_by_step(make: Callable[[int], Environment]) -> None:
    """Guards the fast path of teacher forcing: same windows, rewards, flags and random stream as step by step."""
    env, twin = make(0), make(0)
    if not env.spec.teacher_forced:
        if not isinstance(env, TeacherForced):
            return
        action_ET = torch.zeros(env.num_envs, env.spec.row_transitions, dtype=torch.int64)
        for call in (env.teacher_forced_observations, lambda: env.score_actions(action_ET)):
            with pytest.raises(RuntimeError):
                call()
        return
    env.reset()
    count, T = 3, env.spec.row_transitions
    action_NE = random_actions(env, count * T)
    all_rows = episodes(*played(twin, action_NE))
    for k in range(count):
        with NoHostSynchronisation():
            observation_ES, action_ET = env.teacher_forced_observations(), action_NE[k * T : (k + 1) * T].T
            block = env.score_actions(action_ET)
        assert torch.equal(observation_ES, block.observation_BS)
        assert (block.reward_BT.dtype, block.flag_BT.dtype, block.length_B.dtype) == (
            torch.float32,
            torch.uint8,
            torch.int64,
        )
        for e, rows in enumerate(all_rows):
            row = rows[k]
            assert row["observation"] == block.observation_BS[e].tolist()
            assert row["action"] == block.action_BT[e].tolist()
            assert row["reward"] == block.reward_BT[e].tolist()
            assert row["flag"] == block.flag_BT[e].tolist()
            assert len(row["flag"]) == int(block.length_B[e])
    _assert_same(env.state_dict(), twin.state_dict())
    env.step(action_NE[0])
    with pytest.raises(RuntimeError):
        env.teacher_forced_observations()


def _assert_same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_same(a[key], b[key])
    else:
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
