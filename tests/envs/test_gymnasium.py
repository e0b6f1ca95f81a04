"""Environments of Gymnasium: rows against the bare environment, ends, saved states, and what is refused."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dqnlm.envs.gymnasium_env import Gymnasium
from dqnlm.envs.gymnasium_state import SAVABLE
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, TimeStep

gymnasium = pytest.importorskip("gymnasium")

KINDS = {name.rsplit(".", 1)[1].removesuffix("Env") for name in SAVABLE}
IDS = sorted(  # the newest version of each; older ones are refused by Gymnasium
    max(
        (spec.id for spec in gymnasium.registry.values() if spec.name == kind),
        key=lambda id: int(id.rsplit("-v", 1)[1]),
    )
    for kind in KINDS
)


class Counting(gymnasium.Env):  # type: ignore[misc]
    """Observes (episode, step); action 5 terminates, action 6 truncates, any other pays its number."""

    def __init__(self, shape: tuple[int, ...] = (2,)) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, shape)
        self.action_space = gymnasium.spaces.Discrete(4, start=3)
        self.episode, self.time = 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._observation(), float(action), action == 5, action == 6, {}

    def _observation(self) -> Any:
        return np.array([self.episode, self.time], np.float32).reshape(self.observation_space.shape)


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gymnasium.register("Counting-v0", Counting, max_episode_steps=7)
    gymnasium.register("Endless-v0", Counting)
    yield
    del gymnasium.registry["Counting-v0"], gymnasium.registry["Endless-v0"]


def make(id: str | None = "CartPole-v1", seed: int = 0, **options: Any) -> Gymnasium:
    settings: dict[str, Any] = {
        "path": None,
        "num_envs": 3,
        "row_transitions": 16,
        "max_episode_steps": None,
        "arguments": {},
        "observation_scale": None,
        "reward_low": None,
        "reward_high": None,
    }
    return Gymnasium(torch.device("cpu"), seed, False, id=id, **settings | options)


def actions(env: Gymnasium, steps: int, seed: int = 1) -> Tensor:
    return torch.randint(env.spec.num_actions, (steps, env.num_envs), generator=torch.Generator().manual_seed(seed))


def same(a: list[TimeStep], b: list[TimeStep]) -> bool:
    return all(torch.equal(x, y) for left, right in zip(a, b, strict=True) for x, y in zip(left[:6], right[:6], strict=True))


def counted(chosen: list[int], **options: Any) -> tuple[list[Any], list[TimeStep]]:
    """One copy of Counting; for each step (observation, next observation), as episode and step of it."""
    env = make("Counting-v0", num_envs=1, **options)
    assert env.reset().tolist() == [[2.0, 0.0]]  # episode 1 took the seed
    steps = [env.step(torch.tensor([action])) for action in chosen]
    return [(tuple(s.observation_E[0].tolist()), tuple(s.next_observation_E[0].tolist())) for s in steps], steps


@pytest.mark.fault("the reset row of a vector environment stored as a transition")
def test_the_reset_observation_never_follows_an_action() -> None:
    """Bug: Gymnasium's NEXT_STEP autoreset, whose reset enters a row as a transition that no action made.

    Action 2 is number 5 of the space that starts at 3: it terminates. Nothing is lost and nothing is played twice: the
    episode's last observation (2, 2) is kept, and (3, 0) is what the next action answers to.
    """
    seen, steps = counted([0, 2, 1])
    assert seen == [((2, 1), (2, 1)), ((2, 2), (3, 0)), ((3, 1), (3, 1))]
    assert [int(s.flag_E) for s in steps] == [DECISION, DECISION | TERMINATED, DECISION]
    assert [float(s.reward_E) for s in steps] == [3.0, 5.0, 4.0]
    assert [bool(s.episode_end_E) for s in steps] == [bool(s.row_end_E) for s in steps] == [False, True, False]


def test_observations_are_divided_by_their_scale() -> None:
    """Bug: the first observation of an episode, or the last of one, that is not scaled as the others are."""
    env = make("Counting-v0", num_envs=1, observation_scale=[2.0, 4.0])
    assert env.reset().tolist() == [[1.0, 0.0]]
    seen = [env.step(torch.tensor([action])) for action in (0, 2, 1)]
    assert [s.observation_E[0].tolist() for s in seen] == [[1.0, 0.25], [1.0, 0.5], [1.5, 0.25]]
    assert [s.next_observation_E[0].tolist() for s in seen] == [[1.0, 0.25], [1.5, 0.0], [1.5, 0.25]]


@pytest.mark.fault("truncation treated as termination")
def test_truncation_is_no_termination() -> None:
    """Bug: an episode that ran out of time taught as one that ended: its last value would be 0 (PQN)."""
    seen, steps = counted([3, 0, 0, 0, 0, 0, 0, 0])  # the environment's own truncation, then 7 steps: the limit
    assert [int(s.flag_E) for s in steps] == [DECISION | TRUNCATED] + [DECISION] * 6 + [DECISION | TRUNCATED]
    assert seen[0] == ((2, 1), (3, 0)) and seen[-1] == ((3, 7), (4, 0))
    assert bool(steps[0].episode_end_E) and bool(steps[-1].episode_end_E) and bool(steps[-1].row_end_E)
    _, steps = counted([0] * 6 + [2])  # ends by itself in the very step of the limit: nothing follows
    assert int(steps[-1].flag_E) == DECISION | TERMINATED


def test_rows_overlap_by_one_observation() -> None:
    """Bug: a cut that loses an observation, resets the episode, or counts as its end; a clock that a cut does not reset.

    Rows of 3 transitions in an episode of 7: cut after 3 and 6, over after 7; then a row of 3 again.
    """
    seen, steps = counted([0] * 10, row_transitions=3)
    assert [t for t, s in enumerate(steps) if bool(s.row_end_E)] == [2, 5, 6, 9]
    assert [t for t, s in enumerate(steps) if bool(s.episode_end_E)] == [6]
    assert seen[2] == ((2, 3), (2, 3)) and seen[5] == ((2, 6), (2, 6)) and seen[6] == ((2, 7), (3, 0))
    assert all(int(steps[t].flag_E) == DECISION | TRUNCATED for t in (2, 5, 6, 9))


def test_the_limit_can_be_set() -> None:
    """Bug: `max_episode_steps` that nothing reads; rows longer than any episode."""
    _, steps = counted([0] * 4, max_episode_steps=2)
    assert [bool(s.episode_end_E) for s in steps] == [False, True, False, True]
    assert (make().episode_steps, make("Endless-v0", max_episode_steps=5).row_transitions) == (500, 5)


def test_cartpole_against_the_bare_environment() -> None:
    """Bug: copies exchanged, actions given to the wrong copy, rounding, a copy that is not reset alone."""
    env = make(num_envs=3, row_transitions=500)
    bare = [gymnasium.make("CartPole-v1") for _ in range(3)]
    for i, one in enumerate(bare):
        one.reset(seed=int(np.random.SeedSequence([0, i, 0]).generate_state(1)[0]))
    now = [one.reset()[0] for one in bare]
    assert np.array_equal(env.reset().numpy(), now) and not np.array_equal(now[0], now[1])
    over = 0
    for action_E in actions(env, 100):
        step = env.step(action_E)
        assert step.observation_E.dtype == torch.float32 and step.observation_E.shape == (3, 4)
        assert (step.flag_E.dtype, step.row_end_E.dtype, step.episode_end_E.dtype) == (torch.uint8, torch.bool, torch.bool)
        for i, one in enumerate(bare):
            observation, reward, terminated, _, _ = one.step(int(action_E[i]))
            assert np.array_equal(step.observation_E[i].numpy(), observation) and step.reward_E[i] == reward
            assert int(step.flag_E[i]) == (DECISION | TERMINATED if terminated else DECISION)
            after = one.reset()[0] if terminated else observation
            assert np.array_equal(step.next_observation_E[i].numpy(), after)
            over += terminated
    assert over > 5 and env.references() == {"solved at": 475.0}
    assert (env.spec.num_tokens, env.spec.observation_size, env.spec.num_actions) == (0, 4, 2)


def test_tokens_and_flattened_boxes() -> None:
    """Bug: a Discrete observation handed on as a number, or a Box with axes that no network reads."""
    env = make("FrozenLake-v1", arguments={"is_slippery": False})
    assert env.reset().tolist() == [0, 0, 0] and (env.spec.num_tokens, env.spec.observation_size) == (16, 0)
    step = env.step(torch.tensor([1, 2, 0]))  # down, right, against the border
    assert step.observation_E.tolist() == [4, 1, 0] and step.observation_E.dtype == torch.int64
    flat = make("Counting-v0", arguments={"shape": (2, 1)})
    assert flat.spec.observation_size == 2 and flat.reset().tolist() == [[2.0, 0.0]] * 3


def test_seeds() -> None:
    """Bug: seed 0 treated as no seed; the same start in every copy; a reset that starts the stream again."""
    firsts = [make(seed=seed).reset() for seed in (0, 0, 1)]
    assert torch.equal(firsts[0], firsts[1]) and not torch.equal(firsts[0], firsts[2])
    env = make()
    assert not torch.equal(env.reset(), env.reset()) and len(env.reset().unique(dim=0)) == 3


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("before", [0, 1, 37])
def test_exact_resume(id: str, before: int) -> None:
    """Bug: a resumed run that is another run: state, its type, the limit's counter, the row's, or the random stream."""
    options: dict[str, Any] = {"row_transitions": 11, "max_episode_steps": 23}
    env, other = make(id, **options), make(id, seed=9, **options)
    assert env.spec.exact_resume and len(IDS) == len(SAVABLE)  # each that is called exact is played here
    env.reset(), other.reset()
    action_NE = actions(env, before + 60)
    for action_E in action_NE[:before]:
        env.step(action_E)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    expected = [env.step(action_E) for action_E in action_NE[before:]]
    for action_E in action_NE[:5]:
        other.step(action_E)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(expected, [other.step(action_E) for action_E in action_NE[before:]])
    assert any(bool(step.episode_end_E.any()) for step in expected)
    with pytest.raises(ValueError, match="3 copies"):
        make(id, num_envs=2, **options).load_state_dict(env.state_dict())


class Drawing(Counting):
    """Observes a number drawn at the episode's begin."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.drawn = self.np_random.random(2).astype(np.float32)
        return self.drawn, {}


def test_resume_where_the_state_cannot_be_saved() -> None:
    """Bug: an unknown environment called exact, or begun anew with the random numbers of the run's start."""
    gymnasium.register("Drawing-v0", Drawing, max_episode_steps=9)
    env, other = make("Drawing-v0"), make("Drawing-v0")
    assert not env.spec.exact_resume
    first_EF = env.reset()
    state = env.state_dict()
    for fresh in (env, other):
        fresh.load_state_dict(state)
    again_EF = env.reset()
    assert torch.equal(again_EF, other.reset()) and not torch.equal(again_EF, first_EF)
    del gymnasium.registry["Drawing-v0"]


def test_bounds() -> None:
    """Bug: bounds of an episode that is cut taken for those of one that ends; bounds invented where none are known."""
    assert tuple(make().return_bounds(0.9)) == (-float("inf"), float("inf"))
    env = make(reward_low=-1.0, reward_high=2.0)
    assert tuple(env.return_bounds(0.9)) == pytest.approx((-10.0, 20.0))
    assert tuple(env.return_bounds(1.0)) == (-500.0, 1000.0) and tuple(env.reward_bounds) == (-1.0, 2.0)
    assert tuple(make(reward_low=0.5, reward_high=1.0).return_bounds(0.5)) == (0.5, 2.0)  # one step may be the last
    with pytest.raises(UserError, match=r"the reward 1\.0, outside"):
        make(reward_high=0.5, reward_low=0.0).step(torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "CartPole-v9"}, "CartPole-v9.*v1"),
        ({"id": "Pendulum-v1"}, "Box.*only Discrete"),
        ({"id": "Blackjack-v1"}, "Tuple.*supported are Box"),
        ({"id": "Endless-v0"}, "env.max_episode_steps"),
        ({"id": "os:CartPole-v1"}, "module.*env.path=FILE.py:CLASS"),
        ({"id": None}, "needs env.id=NAME.*or env.path=FILE.py:CLASS"),
        ({"path": "mine.py:Corridor"}, "env.id=CartPole-v1 and env.path=mine.py:Corridor name two"),
        ({"id": None, "path": "mine.Corridor"}, "env.path is 'mine.Corridor'; it must be FILE.py:CLASS"),
        ({"arguments": {"colour": 3}}, "colour"),
        ({"arguments": {"max_episode_steps": 3}}, "env.max_episode_steps"),
        ({"num_envs": 0}, "env.num_envs"),
        ({"row_transitions": 0}, "env.row_transitions"),
        ({"max_episode_steps": 0}, "env.max_episode_steps"),
        ({"reward_low": 1.0, "reward_high": 1.0}, "env.reward_low"),
        ({"observation_scale": [1.0, 2.0]}, "has 2 numbers; the observations of env.id=CartPole-v1 have 4"),
        ({"observation_scale": [1.0, 0.0, 1.0, 1.0]}, "finite and above 0"),
        ({"observation_scale": [1.0, float("inf"), 1.0, 1.0]}, "finite and above 0"),
        ({"id": "FrozenLake-v1", "observation_scale": [1.0]}, "observations that are tokens"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    """Bug: a traceback of Gymnasium's, code imported because a configuration names it, a key set in two places."""
    with pytest.raises(UserError, match=message):
        make(**options)


def test_gymnasium_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: an ImportError where a line to type would help."""
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"pip install 'dqnlm\[gymnasium\]'"):
        make()
