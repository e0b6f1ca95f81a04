"""The maze of dqnlm/problems/maze.py: the agent reads its position and writes a command character by character.

A row is one text, one command and the text that follows it; an episode is as many rows. With L characters in a text and
a command of k characters, line break included:

    time         0 ... L-2    L-1 ... L+k-2            L+k-1 ... 2L+k-2
    observation  the text     its last; the command    the command's last; the next text but its last
    step         no decision  a decision each          no decision: the next text comes whatever is chosen

The reward of a move stands at the command's last character. The row is cut after the next text (its last observation has
a value), and the next row begins with the same text; with `max_steps` commands written the episode is over there too.
At the goal the row terminates with the command. A command ends with its line break or at `command_length` characters;
any other text has reward -4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dqnlm.envs.base import StepEnvironment
from dqnlm.errors import UserError
from dqnlm.problems import maze
from dqnlm.rewards.base import discounted_length
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Bounds, TaskSpec, TimeStep

_INVALID = len(maze.COMMANDS)  # number of the outcome that is no command
_CLOCKS = ("cell_E", "moves_E", "place_E", "written_E", "node_E", "after_E")


class Maze(StepEnvironment):
    """E parallel episodes in the double-T maze.

    Args:
        device: where everything lives.
        seed: of the generator that draws the starts.
        evaluating: walker i begins every episode at the i-th (modulo) of the cells `start_distance` moves from the goal or more,
            instead of at a random one of all 25 starts.
        num_envs: E, walkers at once.
        max_steps: commands in an episode.
        start_distance: least number of moves from an evaluation's start to the goal.
        command_length: most characters in a command, line break included.

    Raises:
        UserError: a number below 1, a `start_distance` that no cell has, or a `command_length` in which some command has no room.
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        evaluating: bool,
        *,
        num_envs: int,
        max_steps: int,
        start_distance: int,
        command_length: int,
    ) -> None:
        _check(num_envs, max_steps, start_distance, command_length)
        self.device, self.num_envs, self.max_steps = torch.device(device), num_envs, max_steps
        self.command_length, self.length = command_length, maze.OBSERVATION_LENGTH
        longest = 2 * self.length + command_length - 1
        self.spec = TaskSpec(
            num_actions=len(maze.ALPHABET), num_tokens=len(maze.ALPHABET), alphabet=maze.ALPHABET, row_transitions=longest,
            episode_steps=max_steps * longest, first_decision=self.length - 1, stores_actions=False, multi_turn=True,
            truncates=True, context_carry=maze.OBSERVATION_LENGTH, deterministic=True,
        )  # fmt: skip
        self._listed = maze.starts(start_distance)
        self._build_tables()
        self._fixed_E = None
        if evaluating:
            place_E = torch.arange(num_envs, device=self.device) % len(self._listed)
            self._fixed_E = torch.tensor([maze.CELLS.index(cell) for cell in self._listed], device=self.device)[place_E]
        self._generator = torch.Generator(self.device).manual_seed(seed)
        zero_E = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.cell_E = zero_E  # place of each walker in maze.CELLS
        self.moves_E = zero_E  # commands finished in this episode
        self.place_E = zero_E  # character of the text that was read last; -1 before the first of the next text
        self.written_E = zero_E  # characters of the command written
        self.node_E = zero_E  # of the tree of commands, see _command_tree
        self.after_E = zero_E.bool()  # the command of this row is finished

    def _build_tables(self) -> None:
        """Lookup tables of `step`, as tensors: cells and outcomes are numbers, characters are token ids."""

        def tensor(rows: list[Any], dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor(rows, dtype=dtype, device=self.device)

        results = [[maze.apply(cell, command) for command in (*maze.COMMANDS, "")] for cell in maze.CELLS]
        ids = [[maze.ALPHABET.index(c) for c in maze.observation_text(cell)] for cell in maze.CELLS]
        child, outcome = _command_tree()
        self._text_CL = tensor(ids)
        self._there_CM = tensor([[maze.CELLS.index(there) for there, _ in row] for row in results])
        self._reward_CM = tensor([[reward for _, reward in row] for row in results], torch.float32)
        self._child_NA, self._outcome_N = tensor(child), tensor(outcome)
        self._start_N = tensor([maze.CELLS.index(cell) for cell in maze.STARTS])
        self._goal, self._line_break = maze.CELLS.index(maze.GOAL), maze.ALPHABET.index("\n")

    def reset(self) -> Tensor:
        self.cell_E = self._starts()
        for name in _CLOCKS[1:]:
            setattr(self, name, torch.zeros_like(getattr(self, name)))
        return self._text_CL[self.cell_E, 0]

    def _starts(self) -> Tensor:
        if self._fixed_E is not None:
            return self._fixed_E
        shape = (self.num_envs,)
        return self._start_N[torch.randint(len(maze.STARTS), shape, generator=self._generator, device=self.device)]

    def step(self, action_E: Tensor) -> TimeStep:
        decision_E = ~self.after_E & (self.place_E == self.length - 1)
        reward_E, goal_E = self._write(action_E, decision_E)
        self.place_E = torch.where(decision_E, torch.where(self.after_E, -1, self.place_E), self.place_E + 1)
        text_E = self._text_CL[self.cell_E, self.place_E.clamp(min=0)]
        observation_E = torch.where(decision_E, action_E, text_E)
        cut_E = self.after_E & (self.place_E == self.length - 1)
        row_end_E, episode_end_E = goal_E | cut_E, goal_E | (cut_E & (self.moves_E == self.max_steps))
        flag_E = (decision_E * DECISION + goal_E * TERMINATED + cut_E * TRUNCATED).to(torch.uint8)
        self._begin(row_end_E, episode_end_E)
        next_observation_E = torch.where(row_end_E, self._text_CL[self.cell_E, 0], observation_E)
        return TimeStep(observation_E, reward_E, flag_E, row_end_E, next_observation_E, episode_end_E)

    def _write(self, action_E: Tensor, decision_E: Tensor) -> tuple[Tensor, Tensor]:
        """Appends a character at each decision; finished commands are executed. Returns (reward_E, goal_E)."""
        self.node_E = torch.where(decision_E, self._child_NA[self.node_E, action_E], self.node_E)
        self.written_E = self.written_E + decision_E
        full_E = self.written_E == self.command_length
        ended_E = decision_E & ((action_E == self._line_break) | full_E)
        outcome_E = self._outcome_N[self.node_E]
        reward_E = torch.where(ended_E, self._reward_CM[self.cell_E, outcome_E], 0.0)
        self.cell_E = torch.where(ended_E, self._there_CM[self.cell_E, outcome_E], self.cell_E)
        self.moves_E = self.moves_E + ended_E
        self.after_E = self.after_E | ended_E
        return reward_E, ended_E & (self.cell_E == self._goal)

    def _begin(self, row_end_E: Tensor, episode_end_E: Tensor) -> None:
        """Starts new rows and episodes; starts are drawn for all at every step, which avoids a host sync."""
        self.cell_E = torch.where(episode_end_E, self._starts(), self.cell_E)
        self.moves_E = self.moves_E.masked_fill(episode_end_E, 0)
        self.place_E, self.written_E, self.node_E, self.after_E = (
            clock_E.masked_fill(row_end_E, 0) for clock_E in (self.place_E, self.written_E, self.node_E, self.after_E)
        )

    def return_bounds(self, gamma: float) -> Bounds:
        """Lower bound: every command is a single wrong character, -4 (1 + gamma + gamma^2 + ...).

        An episode that is cut has a value beyond it, so the sum has no end; at gamma 1, where it would be no bound,
        `max_steps` commands are counted.
        """
        steps = self.max_steps if gamma == 1.0 else float("inf")
        return Bounds(maze.INVALID_REWARD * discounted_length(gamma, steps), maze.GOAL_REWARD)

    @property
    def reward_bounds(self) -> Bounds:
        return Bounds(maze.INVALID_REWARD, maze.GOAL_REWARD)

    def references(self) -> dict[str, float]:
        """The best return, and that of random commands (none of them invalid), both as a mean over an evaluation's starts."""
        return {"optimal": maze.optimal_return(self._listed), "random": maze.random_return(self.max_steps, self._listed)}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CLOCKS} | {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["cell_E"].shape != self.cell_E.shape:
            raise ValueError(f"{len(state['cell_E'])} walkers were saved; this environment has {self.num_envs}")
        for name in _CLOCKS:
            setattr(self, name, state[name].to(self.device))
        self._generator.set_state(state["generator"].cpu())


def _command_tree() -> tuple[list[list[int]], list[int]]:
    """The commands as a tree of characters.

    Returns:
        child_NA, the node after node n and character a (node 0: nothing written; node 1: no command begins so), and
        outcome_N, the number of the command that a node ends, `_INVALID` for all others.
    """
    width = len(maze.ALPHABET)
    child, outcome = [[1] * width, [1] * width], [_INVALID, _INVALID]
    for number, command in enumerate(maze.COMMANDS):
        node = 0
        for token in (maze.ALPHABET.index(character) for character in command):
            if child[node][token] == 1:
                child[node][token] = len(child)
                child.append([1] * width)
                outcome.append(_INVALID)
            node = child[node][token]
        outcome[node] = number
    return child, outcome


def _check(num_envs: int, max_steps: int, start_distance: int, command_length: int) -> None:
    for name, value in {"num_envs": num_envs, "max_steps": max_steps}.items():
        if value < 1:
            raise UserError(f"env.{name} is {value}; it must be 1 or more")
    farthest = max(maze.distances(maze.GOAL).values())
    if not 1 <= start_distance <= farthest:
        raise UserError(f"env.start_distance is {start_distance}; it must be from 1 to {farthest}, that of the farthest cells")
    longest = max(maze.COMMANDS, key=len)
    if command_length < len(longest):
        raise UserError(
            f"env.command_length={command_length} has no room for {longest!r}, {len(longest)} characters with its line "
            f"break; set it to {len(longest)} or more"
        )
