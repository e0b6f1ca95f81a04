"""Continuation by hand: alignment, prompts, stop tokens, windows, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from dqnlm.envs.continuation import Continuation
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, TRUNCATED
from tests.helpers.environments import (
    TEXT,
    A,
    continuation,
    episodes,
    exact,
    given,
    mixed,
    play,
    played,
    random_actions,
)
from tests.helpers.paths import CONFIGS

CONFIG = CONFIGS / "env" / "continuation.yaml"


@pytest.mark.parametrize("horizon_end", ["terminate", "truncate"])
@pytest.mark.parametrize(
    ("prompt_length", "horizon", "actions", "free", "teacher", "rewards", "flags"),
    [
        # window 1 2 3 4; every step is judged: 2 = 2, 9 != 3, 4 = 4
        (1, 3, [2, 9, 4], [1, 2, 9, 4], [1, 2, 3, 4], [1, -0.5, 1], [1, 1, 1]),
        # window 1 2 3 4 5; actions 2 and 0 fall into the prompt, also the right one; then 4 = 4, 6 != 5
        (3, 2, [2, 0, 4, 6], [1, 2, 3, 4, 6], [1, 2, 3, 4, 5], [0, 0, 1, -0.5], [0, 0, 1, 1]),
    ],
)
@pytest.mark.parametrize("transition", ["free", "teacher"])
def test_continuation_by_hand(
    transition: str,
    horizon_end: str,
    prompt_length: int,
    horizon: int,
    actions: list[int],
    free: list[int],
    teacher: list[int],
    rewards: list[float],
    flags: list[int],
) -> None:
    """Guards the alignment of prompt, decisions and references. The text is one window long, so the window is known."""
    text = torch.arange(1, prompt_length + horizon + 1, dtype=torch.uint8)
    options: dict[str, Any] = {"prompt_length": prompt_length, "horizon": horizon, "transition": transition}
    env = continuation(text, num_envs=2, horizon_end=horizon_end, **options)
    end = {"terminate": TERMINATED, "truncate": TRUNCATED}[horizon_end]
    assert (env.spec.row_transitions, env.spec.first_decision) == (len(actions), prompt_length - 1)
    assert (env.spec.teacher_forced, env.spec.lockstep) == (transition == "teacher", True)
    action_NE = torch.tensor([actions * 2, [20] * 2 * len(actions)]).T
    rows = episodes(*played(env, action_NE))
    expected = {
        "observation": {"free": free, "teacher": teacher}[transition],
        "action": actions,
        "reward": rewards,
        "flag": [*flags[:-1], flags[-1] | end],
    }
    assert rows[0] == [expected, expected, {"observation": [1], "action": [], "reward": [], "flag": []}]
    assert rows[1][0]["reward"] == [-0.5 * flag for flag in flags]
    prompt = list(range(1, prompt_length + 1))
    said = {"free": [20] * horizon, "teacher": teacher[prompt_length:]}[transition]
    assert rows[1][0]["observation"] == prompt + said


@pytest.mark.parametrize(("horizon_end", "end"), [("terminate", TERMINATED), ("truncate", TRUNCATED)])
def test_stop_token_by_hand(horizon_end: str, end: int) -> None:
    """Copies end at different times; choosing the stop token inside the prompt ends nothing.

    Window 1 2 3 4 5 with prompt 2, so T = 4; the stop token is 7. The first copy stops at its first decision, the
    second at its last (a stop, not the horizon: terminated also under truncate), the third never.
    """
    env = continuation(torch.arange(1, 6), stop=7, num_envs=3, prompt_length=2, horizon=3, horizon_end=horizon_end)
    assert not env.spec.lockstep
    action_NE = torch.tensor([[7, 7, 7], [7, 3, 3], [7, 4, 8], [7, 7, 5], [0, 0, 0]])
    rows = episodes(*played(env, action_NE))
    stop = DECISION | TERMINATED
    once = {"observation": [1, 2, 7], "action": [7, 7], "reward": [0, -0.5], "flag": [0, stop]}
    assert rows[0] == [once, once, {"observation": [1, 2], "action": [0], "reward": [0], "flag": [0]}]
    assert rows[1][0] == {
        "observation": [1, 2, 3, 4, 7],
        "action": [7, 3, 4, 7],
        "reward": [0, 1, 1, -0.5],
        "flag": [0, 1, 1, stop],
    }
    assert rows[2][0] == {
        "observation": [1, 2, 3, 8, 5],
        "action": [7, 3, 8, 5],
        "reward": [0, 1, -0.5, 1],
        "flag": [0, 1, 1, DECISION | end],
    }
    assert [row[1]["observation"] for row in rows[1:]] == [[1, 2], [1, 2]]


def test_stop_token_that_is_never_chosen_changes_nothing() -> None:
    """Guards the masked step against the lockstep one; with a text of one window both know the same episodes."""
    text = torch.arange(1, 8)
    plain, masked = continuation(text, reward=mixed), continuation(text, reward=mixed, stop=29)
    action_NE = random_actions(plain, 25).clamp(max=28)
    for a, b in zip(play(plain, action_NE)[1], play(masked, action_NE)[1], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(given(a), given(b), strict=True))


@pytest.mark.parametrize("options", [{"transition": "teacher"}, {"transition": "free"}, {"stop": 2}])
def test_successor_in_a_row_is_never_the_next_episode(options: dict[str, Any]) -> None:
    """Guards the reset row entering the buffer as a transition. In this text the next token follows every token."""
    env = continuation(**options)
    teacher = options.get("transition") == "teacher"
    for rows in episodes(*played(env, random_actions(env, 80))):
        for row in rows:
            for t, (token, action) in enumerate(zip(row["observation"][1:], row["action"], strict=True)):
                forced = teacher or t < env.spec.first_decision
                assert token == ((row["observation"][t] + 1) % A if forced else action)


def test_masked_reset_leaves_other_windows_alone() -> None:
    """Guards a neighbour's early end that swaps the reference under a running episode: right answers go on paying."""
    env = continuation(stop=29, num_envs=2, prompt_length=1, horizon=12, seed=3)
    observation_E = env.reset()
    right_answers = 0
    for t in range(60):
        right_E = (observation_E + 1) % A
        action_E = torch.stack([torch.tensor(29) if t % 2 else right_E[0], right_E[1]])
        step = env.step(action_E)
        if int(right_E[1]) != 29:
            assert float(step.reward_E[1]) == 1.0
            right_answers += 1
        observation_E = step.next_observation_E
    assert right_answers > 40


def test_windows_cover_the_whole_text() -> None:
    """Guards an off-by-one in the draw: a text of 9 has three windows of 7, and each comes about equally often."""
    env = continuation(torch.arange(9), num_envs=3000)
    counts = torch.bincount(env.reset(), minlength=3)
    assert counts.shape == (3,)
    assert int(counts.min()) > 900


def test_legal_and_allowed() -> None:
    """Guards a mask that does not reach the actor, or one where none was asked for."""
    mask_A = torch.arange(A) < 5
    observation_BS = torch.zeros(2, 3, dtype=torch.int64)
    found = continuation(legal=mask_A, allowed="abcde", stop=4).legal(observation_BS)
    assert found is not None and torch.equal(found.expand(2, 3, A), mask_A.expand(2, 3, A))
    assert continuation().legal(observation_BS) is None


def test_truncation_values_what_follows() -> None:
    """Guards bounds for a logistic loss: a cut episode bootstraps, so its return has no horizon. Gamma 1/2, 4 steps."""
    assert continuation().return_bounds(0.5) == (-0.5 * 1.875, 1.875)
    assert continuation(horizon_end="truncate").return_bounds(0.5) == (-1.0, 2.0)
    assert continuation(horizon_end="truncate").return_bounds(1.0) == (-float("inf"), float("inf"))
    assert continuation(horizon_end="truncate").reward_bounds == (-0.5, 1.0)


def test_reward_parts_reach_the_environment() -> None:
    env = continuation(reward=mixed, transition="teacher")
    env.reset()
    rows = env.score_actions(env.teacher_forced_observations()[:, 1:])
    parts = env.reward_parts()
    assert set(parts) == {"exact", "edit"}
    torch.testing.assert_close(parts["exact"] + 2 * parts["edit"], rows.reward_BT[:, env.spec.first_decision :])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "env.num_envs is 0"),
        ({"prompt_length": 0}, "env.prompt_length is 0"),
        ({"horizon": -1}, "env.horizon is -1"),
        ({"transition": "forced"}, "free, teacher"),
        ({"horizon_end": "stop"}, "terminate, truncate"),
        ({"corpus": torch.arange(6)}, "6 tokens"),
        ({"stop": 2, "transition": "teacher"}, "env.transition=free"),
        ({"stop": 2, "stop_token": "ab"}, "one character"),
        ({"stop": 7, "legal": torch.arange(A) < 5, "allowed": "abcde"}, "not among env.allowed"),
        ({"allowed": ""}, "env.allowed"),
        ({"legal": torch.zeros(A, dtype=torch.bool), "allowed": "~"}, "env.allowed"),
    ],
)
def test_user_errors(options: dict[str, Any], words: str) -> None:
    """Guards a message that does not name the key and what to do."""
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        continuation(**options)


def test_a_token_without_an_action_is_refused() -> None:
    """Guards an index out of range that on a GPU would kill the process much later."""
    with pytest.raises(ValueError, match="only 30 actions"):
        continuation(torch.arange(31))


def test_shipped_config_builds() -> None:
    """Guards a YAML key that no parameter reads, and a parameter that no key sets."""
    config: Any = OmegaConf.to_container(OmegaConf.load(CONFIG))
    assert config.pop("_target_") == f"{Continuation.__module__}.{Continuation.__name__}"
    env = Continuation(TEXT, exact(), A, None, None, "cpu", 0, **config)
    assert env.reset().shape == (config["num_envs"],)


def test_copies_read_the_same_text_and_choose_for_themselves() -> None:
    """Guards guesses_per_position: groups of environments share a window, groups differ, rewards are each row's own."""
    env = continuation(torch.arange(9), transition="teacher", num_envs=300, guesses_per_position=3, prompt_length=1)
    env.reset()
    observation_ES = env.teacher_forced_observations()
    groups = observation_ES.view(100, 3, -1)
    assert (groups == groups[:, :1]).all()
    assert len({tuple(g.tolist()) for g in groups[:, 0]}) > 1
    action_ET = observation_ES[:, 1:].clone()
    action_ET[1::3] = (action_ET[1::3] + 1) % 9  # the second of each group guesses wrong
    reward_BT = env.score_actions(action_ET).reward_BT
    low, high = env.reward_bounds
    assert (reward_BT[0::3] == high).all() and (reward_BT[1::3] == low).all() and (reward_BT[2::3] == high).all()


@pytest.mark.parametrize(("options", "named"), [
    ({"guesses_per_position": 2, "num_envs": 4, "transition": "free"}, "env.transition=teacher"),
    ({"guesses_per_position": 2, "num_envs": 5, "transition": "teacher"}, "env.num_envs=5"),
])  # fmt: skip
def test_copies_are_refused_where_they_cannot_be(options: dict[str, object], named: str) -> None:
    """Guards against copies under `free` (they would part at the first choice) and against broken groups."""
    with pytest.raises(UserError, match=named):
        continuation(**options)
