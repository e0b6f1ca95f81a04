"""A small random Markov decision process, solvable by dynamic programming (`dqnlm.problems.tabular`)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dqnlm.envs.base import StepEnvironment
from dqnlm.errors import UserError
from dqnlm.problems.tabular import MAX_SEED, random_process
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Bounds, TaskSpec, TimeStep


class Tabular(StepEnvironment):
    """Trajectories of one process. An observation is the state, so the task is fully observed.

    An episode starts at a uniform state and is over only at a terminating transition; rows are cut at `horizon`, and
    the episode continues in the next. In an evaluation it is over where its row is cut, because it might never end.

    Args:
        device: where everything lives.
        seed: of the generator that draws starts and transitions.
        evaluating: copy i starts every episode at state i modulo `states`.
        num_envs: E, episodes played at once.
        mdp_seed: of the process.
        states, actions: their numbers.
        branching: successors of each state and action; 1 for a deterministic process.
        horizon: T, transitions in a row.
        terminal_probability: chance that a transition of the process is one that ends the episode.

    Attributes:
        transition_SAS, reward_SA, terminal_SAS: the process, float64 and bool, on `device`.

    Raises:
        UserError: a number out of range.
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        evaluating: bool,
        *,
        num_envs: int,
        mdp_seed: int,
        states: int,
        actions: int,
        branching: int,
        horizon: int,
        terminal_probability: float,
    ) -> None:
        _check({"num_envs": num_envs, "states": states, "actions": actions, "branching": branching, "horizon": horizon})
        _check_process(mdp_seed, states, branching, terminal_probability)
        self.device = torch.device(device)
        self.num_envs, self.row_transitions, self.evaluating = num_envs, horizon, evaluating
        self.spec = TaskSpec(
            num_actions=actions, num_tokens=states, row_transitions=horizon, episode_steps=horizon, truncates=True,
            context_carry=1, deterministic=branching == 1,
        )  # fmt: skip
        process = random_process(mdp_seed, states, actions, branching, terminal_probability)
        self.transition_SAS, self.reward_SA, self.terminal_SAS = (table.to(self.device) for table in process)
        self._rewards = Bounds(float(process.reward_SA.min()), float(process.reward_SA.max()))
        # The successors that are possible, in ascending order, and the probability of each or one before it.
        successor_SAK = process.transition_SAS.topk(branching).indices.sort().values
        cumulative_SAK = process.transition_SAS.gather(2, successor_SAK).cumsum(2).float()
        self._successor_SAK, self._cumulative_SAK = successor_SAK.to(self.device), cumulative_SAK.to(self.device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._listed_E = torch.arange(num_envs, device=self.device) % states
        self._state_E, self._time_E = self._listed_E, torch.zeros_like(self._listed_E)

    def reset(self) -> Tensor:
        self._state_E, self._time_E = self._draw_starts(), torch.zeros_like(self._time_E)
        return self._state_E

    def _draw_starts(self) -> Tensor:
        if self.evaluating:
            return self._listed_E
        return torch.randint(self.spec.num_tokens, (self.num_envs,), generator=self._generator, device=self.device)

    def step(self, action_E: Tensor) -> TimeStep:
        state_E, time_E = self._state_E, self._time_E + 1
        successor_E = self._draw_successors(state_E, action_E)
        ends_E = self.terminal_SAS[state_E, action_E, successor_E]
        row_end_E = ends_E | (time_E == self.row_transitions)
        episode_end_E = row_end_E if self.evaluating else ends_E
        reward_E = self.reward_SA[state_E, action_E].float()
        flag_E = (DECISION + torch.where(ends_E, TERMINATED, row_end_E * TRUNCATED)).to(torch.uint8)
        # Starts are drawn for all at every step, so nobody asks who needs one.
        self._state_E = torch.where(episode_end_E, self._draw_starts(), successor_E)
        self._time_E = torch.where(row_end_E, 0, time_E)
        return TimeStep(successor_E, reward_E, flag_E, row_end_E, self._state_E, episode_end_E)

    def _draw_successors(self, state_E: Tensor, action_E: Tensor) -> Tensor:
        """Samples one of the K successors of each state and action, by its probability."""
        chance_E1 = torch.rand(self.num_envs, 1, generator=self._generator, device=self.device)
        # The last is left out: rounding may leave its cumulative probability below 1.
        k_E1 = (chance_E1 >= self._cumulative_SAK[state_E, action_E, :-1]).sum(1, keepdim=True)
        return self._successor_SAK[state_E, action_E].gather(1, k_E1).squeeze(1)

    def return_bounds(self, gamma: float) -> Bounds:
        """Bounds from one reward up to the infinite discounted sum."""
        low, high = self._rewards
        times = 1 / (1 - gamma) if gamma < 1 else math.inf
        return Bounds(low * times if low < 0 else low, high * times if high > 0 else high)

    @property
    def reward_bounds(self) -> Bounds:
        return self._rewards

    def state_dict(self) -> dict[str, Any]:
        return {"state_E": self._state_E, "time_E": self._time_E, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["state_E"].shape != self._state_E.shape:
            raise ValueError(f"saved episodes of {len(state['state_E'])} copies; this environment has {self.num_envs}")
        self._state_E, self._time_E = state["state_E"].to(self.device), state["time_E"].to(self.device)
        self._generator.set_state(state["generator"].cpu())


def _check(numbers: dict[str, int]) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"env.{name} is {value}; it must be 1 or more")


def _check_process(mdp_seed: int, states: int, branching: int, terminal_probability: float) -> None:
    if branching > states:
        raise UserError(
            f"env.branching is {branching}, but there are only env.states={states} to go to; set env.branching to {states} "
            "or less"
        )
    if not 0 <= mdp_seed <= MAX_SEED:
        raise UserError(f"env.mdp_seed is {mdp_seed}; it must be from 0 to {MAX_SEED}")
    if not 0 <= terminal_probability <= 1:
        raise UserError(f"env.terminal_probability is {terminal_probability}; it must be from 0 to 1")
