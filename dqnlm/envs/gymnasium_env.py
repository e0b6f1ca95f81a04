"""Any Gymnasium environment with discrete actions: E copies on the host, one transfer in each direction per step.

    terminated             flag TERMINATED, the episode is over, nothing follows
    truncated, time limit  flag TRUNCATED, the episode is over, its last observation has a value
    row is full            flag TRUNCATED, the episode goes on: the next row begins with this row's last observation

A copy is reset in the step that ends its episode; the first observation of the next one is only used to choose the
next action and is never the result of an action. The time limit is counted here, not by Gymnasium's wrapper, so that it
can be saved.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqnlm.envs import gymnasium_state as copies
from dqnlm.envs.base import StepEnvironment
from dqnlm.errors import UserError
from dqnlm.rewards.base import discounted_length
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Bounds, TaskSpec, TimeStep
from dqnlm.utils.paths import CodePath

_OVER = 8  # a further bit of the flag on its way to the device: the episode is over
_LARGEST_TOKEN = 2**24  # observations travel as float32, which holds whole numbers up to here


class Gymnasium(StepEnvironment):
    """E copies of a Gymnasium environment.

    Observations are vectors of float32 (a Box, flattened), or tokens (a Discrete space).

    Args:
        device: where observations live and actions are expected; the copies themselves play on the host.
        seed: copy i is seeded from (seed, i).
        evaluating: changes nothing, as starts cannot be listed.
        id: name under which Gymnasium knows the environment; None where `path` is given.
        path: FILE.py:Class, an environment of the user's own in place of `id`; it is run, see `dqnlm.utils.user_code`.
        num_envs: E.
        row_transitions: T, most transitions in a row; a longer episode is cut into rows.
        max_episode_steps: an episode is truncated after so many; None for the environment's own limit.
        arguments: further arguments of `gymnasium.make`, or of the class.
        observation_scale: number i of an observation is divided by entry i, so that the network reads numbers of like size;
            None leaves them as they are. One entry for each of the F numbers, in the order of the flattened Box.
        reward_low: least reward of a step, where known; None where not.
        reward_high: greatest reward of a step, where known; None where not.

    Attributes:
        spec.exact_resume: `state_dict` holds all of the copies' state. Where it does not, `load_state_dict` begins new
            episodes, and a caller that keeps open rows must call `reset` and begin them anew.

    Raises:
        UserError: Gymnasium or a package of the environment is missing, there is no such environment, its spaces are
            not supported, it has no limit of steps, a number is out of its range, or not one of id and path is given;
            from any method, an error in the user's class.
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        evaluating: bool,
        *,
        id: str | None,
        path: CodePath | None,
        num_envs: int,
        row_transitions: int,
        max_episode_steps: int | None,
        arguments: dict[str, Any],
        observation_scale: list[float] | None,
        reward_low: float | None,
        reward_high: float | None,
    ) -> None:
        _check({"num_envs": num_envs, "row_transitions": row_transitions, "max_episode_steps": max_episode_steps})
        self.reward_bounds_given = _reward_bounds(reward_low, reward_high)
        self.device, self.seed, self.num_envs = torch.device(device), seed, num_envs
        self._name, self._setting, self._envs = copies.make(id, path, arguments, num_envs)
        num_actions, num_tokens, observation_size = self._read_spaces(self._setting)
        self._scale_F = _scale(observation_scale, observation_size, self._setting)
        self.episode_steps = copies.limit(self._envs[0], self._setting, max_episode_steps)
        self.row_transitions = min(row_transitions, self.episode_steps)
        self._elapsed = [0] * num_envs  # steps of the episode
        self._row_time = [0] * num_envs  # transitions of the row
        self._episodes = [0] * num_envs  # begun so far
        self._seed_copies()
        self._attributes = copies.savable_attributes(self._envs[0])
        self.spec = TaskSpec(
            num_actions=num_actions, num_tokens=num_tokens, observation_size=observation_size,
            row_transitions=self.row_transitions, episode_steps=self.episode_steps, truncates=True,
            context_carry=int(self.row_transitions < self.episode_steps),  # else no row begins within an episode
            exact_resume=self._attributes is not None,
        )  # fmt: skip

    def _read_spaces(self, setting: str) -> tuple[int, int, int]:
        """(actions, tokens, numbers of a vector); keeps the first number of both spaces."""
        import gymnasium

        observations: Any = self._envs[0].observation_space
        actions: Any = self._envs[0].action_space
        if not isinstance(actions, gymnasium.spaces.Discrete):
            raise UserError(
                f"{setting} has actions of the space {actions}; only Discrete actions can be learned here, as in CartPole-v1"
            )
        box = isinstance(observations, gymnasium.spaces.Box)
        if not box and not isinstance(observations, gymnasium.spaces.Discrete):
            raise UserError(
                f"{setting} has observations of the space {observations}; supported are Box (numbers, as in CartPole-v1) "
                "and Discrete (tokens, as in FrozenLake-v1)"
            )
        self._vectors, self._first_action = box, int(actions.start)
        self._first_token = 0 if box else int(observations.start)
        num_tokens, observation_size = (0, math.prod(observations.shape)) if box else (int(observations.n), 0)
        if num_tokens > _LARGEST_TOKEN or (box and observation_size == 0):
            raise UserError(f"{setting} has observations of the space {observations}, which cannot be read here")
        return int(actions.n), num_tokens, observation_size

    def _seed_copies(self) -> None:
        """Seeds each copy's generator from (seed, copy, episodes begun), so that no seed is used twice."""
        for i, env in enumerate(self._envs):
            sequence = np.random.SeedSequence([self.seed, i, self._episodes[i]])
            env.reset(seed=int(sequence.generate_state(1)[0]))

    def _begin(self, i: int) -> Any:
        """Starts a new episode of copy i; returns its first observation."""
        self._elapsed[i] = self._row_time[i] = 0
        self._episodes[i] += 1
        return self._envs[i].reset()[0]

    def reset(self) -> Tensor:
        observation_EF = self._flat([self._begin(i) for i in range(self.num_envs)])
        return self._observation(torch.from_numpy(observation_EF).to(self.device))

    def _flat(self, observations: list[Any]) -> Any:
        """float32, one scaled row per observation; a copy, as environments may overwrite their arrays."""
        return np.array(observations, np.float32).reshape(len(observations), -1) / self._scale_F

    def step(self, action_E: Tensor) -> TimeStep:
        observations, rewards, codes = [], [], []
        for i, action in enumerate(action_E.tolist()):
            observation, reward, code = self._step_one(i, action)
            observations.append(observation)
            rewards.append(reward)
            codes.append(code)
        observation_EF = self._flat(observations)
        next_EF = observation_EF.copy()
        for i, code in enumerate(codes):
            if code & _OVER:
                next_EF[i] = self._flat([self._begin(i)])[0]
        columns = [np.array([rewards, codes], np.float32).T, observation_EF, next_EF]
        answer = torch.from_numpy(np.concatenate(columns, 1)).to(self.device)
        code_E, width = answer[:, 1].to(torch.uint8), observation_EF.shape[1]
        return TimeStep(
            self._observation(answer[:, 2 : 2 + width]), answer[:, 0], code_E & (_OVER - 1),
            (code_E & (TERMINATED | TRUNCATED)) != 0, self._observation(answer[:, 2 + width :]), (code_E & _OVER) != 0,
        )  # fmt: skip

    def _step_one(self, i: int, action: int) -> tuple[Any, float, int]:
        """(observation, reward, flag with the bit _OVER) of copy i."""
        observation, paid, terminated, truncated, _ = self._envs[i].step(self._first_action + action)
        self._elapsed[i] += 1
        self._row_time[i] += 1
        over = terminated or truncated or self._elapsed[i] >= self.episode_steps
        full = self._row_time[i] == self.row_transitions
        if full:
            self._row_time[i] = 0
        flag = DECISION | (TERMINATED if terminated else TRUNCATED if over or full else 0)
        reward, (low, high) = float(paid), self.reward_bounds_given
        if not low <= reward <= high:
            raise UserError(
                f"the environment gave the reward {reward}, outside env.reward_low={low} to env.reward_high={high}; "
                "widen them, or set them to null"
            )
        return observation, reward, flag | _OVER if over else flag

    def _observation(self, answer_EF: Tensor) -> Tensor:
        return answer_EF if self._vectors else answer_EF[:, 0].long() - self._first_token

    def return_bounds(self, gamma: float) -> Bounds:
        """Reward bounds times (1 + gamma + gamma^2 + ...), as a truncated episode has a value beyond its end.

        At gamma 1, where that would be no bound, the steps of the longest episode are counted.
        """
        length = discounted_length(gamma, self.episode_steps if gamma == 1.0 else math.inf)
        low, high = self.reward_bounds_given
        return Bounds(low * length if low < 0 else low, high * length if high > 0 else high)

    @property
    def reward_bounds(self) -> Bounds:
        return self.reward_bounds_given

    def describe(self) -> str:
        return self._name

    def references(self) -> dict[str, float]:
        """The mean return at which the environment counts as solved, where its registration gives one."""
        spec = self._envs[0].spec
        threshold = None if spec is None else spec.reward_threshold
        return {} if threshold is None else {"solved at": float(threshold)}

    def state_dict(self) -> dict[str, Any]:
        clocks = {"elapsed": list(self._elapsed), "row_time": list(self._row_time), "episodes": list(self._episodes)}
        saved = [] if self._attributes is None else [copies.save(env, self._attributes) for env in self._envs]
        return clocks | {"copies": saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["episodes"]) != self.num_envs:
            raise ValueError(f"{len(state['episodes'])} copies were saved; this environment has {self.num_envs}")
        self._episodes = list(state["episodes"])
        if self._attributes is None:
            self._seed_copies()
            return
        self._elapsed, self._row_time = list(state["elapsed"]), list(state["row_time"])
        for env, saved in zip(self._envs, state["copies"], strict=True):
            copies.restore(env, saved)


def _reward_bounds(low: float | None, high: float | None) -> Bounds:
    bounds = Bounds(-math.inf if low is None else low, math.inf if high is None else high)
    if bounds.low >= bounds.high:
        raise UserError(f"env.reward_low={low} is not below env.reward_high={high}")
    return bounds


def _scale(entries: list[float] | None, size: int, setting: str) -> Any:
    """float32 divisors (size,), or (1,) where there are none."""
    if entries is None:
        return np.ones(1, np.float32)
    if size == 0:
        raise UserError(f"env.observation_scale={entries}: {setting} has observations that are tokens; set it to null")
    if len(entries) != size:
        raise UserError(
            f"env.observation_scale has {len(entries)} numbers; the observations of {setting} have {size}; "
            "give one for each, or null"
        )
    if not all(math.isfinite(entry) and entry > 0 for entry in entries):
        raise UserError(f"env.observation_scale={entries}; each of its numbers must be finite and above 0")
    return np.array(entries, np.float32)


def _check(numbers: dict[str, int | None]) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"env.{name} is {value}; it must be 1 or more")
