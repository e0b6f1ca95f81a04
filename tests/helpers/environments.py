"""Environments to test and what reads their episodes; used by test_environment.py and test_continuation.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dqnlm.envs.base import Environment
from dqnlm.envs.continuation import Continuation
from dqnlm.rewards.base import Reward
from dqnlm.rewards.exact_match import ExactMatch
from dqnlm.rewards.mixture import Mixture
from dqnlm.rewards.similarity import build_similarity
from dqnlm.types import TimeStep

A = 30
TEXT = torch.arange(200).remainder(A).to(torch.uint8)  # what follows a token is always the next one


def exact() -> Reward:
    return ExactMatch(A, match=1.0, mismatch=-0.5)


def mixed() -> Reward:
    parts = {"exact": {"weight": 1.0}, "edit": {"weight": 2.0}}
    made = iter([exact(), build_similarity(A, kind="edit", max_n=None)])
    return Mixture(A, lambda part: next(made), parts=parts)


def continuation(
    corpus: Tensor = TEXT,
    reward: Callable[[], Reward] = exact,
    legal: Tensor | None = None,
    stop: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Continuation:
    settings: dict[str, Any] = {
        "num_envs": 5,
        "guesses_per_position": 1,
        "prompt_length": 3,
        "horizon": 4,
        "transition": "free",
        "horizon_end": "terminate",
    }
    settings |= {"stop_token": None if stop is None else chr(97 + stop), "allowed": None, **options}
    return Continuation(corpus, reward(), A, legal, stop, "cpu", seed, **settings)


# Every environment joins here: a name and how to make one with a given seed.
ENVIRONMENTS: dict[str, Callable[[int], Environment]] = {
    "free": lambda seed: continuation(seed=seed),
    "free_truncate": lambda seed: continuation(seed=seed, horizon_end="truncate", prompt_length=1, reward=mixed),
    "teacher": lambda seed: continuation(seed=seed, transition="teacher", reward=mixed),
    "teacher_truncate": lambda seed: continuation(seed=seed, transition="teacher", horizon_end="truncate", horizon=1),
    "copies": lambda seed: continuation(seed=seed, transition="teacher", num_envs=6, guesses_per_position=3, reward=mixed),
    "stop": lambda seed: continuation(seed=seed, stop=2, num_envs=9, horizon=20, reward=mixed),
    "stop_truncate": lambda seed: continuation(seed=seed, stop=2, num_envs=9, horizon_end="truncate", prompt_length=1),
}


def random_actions(env: Environment, steps: int, seed: int = 1) -> Tensor:
    return torch.randint(env.spec.num_actions, (steps, env.num_envs), generator=torch.Generator().manual_seed(seed))


class NoHostSynchronisation(TorchDispatchMode):
    """Fails where a tensor's values reach the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}, name
        return func(*args, **(kwargs or {}))


def given(step: TimeStep) -> list[Tensor]:
    """The tensors of a step, without `sequence_reward_ET` where there is none."""
    return [tensor for tensor in step if tensor is not None]


def play(env: Environment, action_NE: Tensor) -> tuple[Tensor, list[TimeStep]]:
    with NoHostSynchronisation():
        return env.reset(), [env.step(action_E) for action_E in action_NE]


def episodes(first_E: Tensor, action_NE: Tensor, steps: list[TimeStep]) -> list[list[dict[str, list[Any]]]]:
    """For each copy its rows: observations (one more), actions, rewards and flags; the last row may be unfinished."""
    found = []
    for e, first in enumerate(first_E.tolist()):
        rows: list[dict[str, list[Any]]] = [{"observation": [first], "action": [], "reward": [], "flag": []}]
        for action_E, step in zip(action_NE, steps, strict=True):
            rows[-1]["observation"].append(int(step.observation_E[e]))
            rows[-1]["action"].append(int(action_E[e]))
            rows[-1]["reward"].append(float(step.reward_E[e]))
            rows[-1]["flag"].append(int(step.flag_E[e]))
            if step.row_end_E[e]:
                rows.append({"observation": [int(step.next_observation_E[e])], "action": [], "reward": [], "flag": []})
        found.append(rows)
    return found


def played(env: Environment, action_NE: Tensor) -> tuple[Tensor, Tensor, list[TimeStep]]:
    first_E, steps = play(env, action_NE)
    return first_E, action_NE, steps
