"""The double-T maze of LMRL-Gym (Abdulhai et al. 2023), fully observed: rules, texts, best returns and logged episodes.

A walker stands in one of 26 cells and writes a command, `move up`, `move down`, `move left` or `move right`, ended by a
line break. A move into a wall has no effect. A command has reward -1, or 0 when it reaches the goal, which ends the
episode; any other text has reward -4 and no effect. Before each command the walker reads

    5,03 to 8,06 -dl-          row and column of the cell and of the goal; `udlr`: walls above, below, left, right

and a line break: always 18 characters, from 0 at the top left. The maze is drawn here, from its corridors.
"""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Cell = tuple[int, int]  # row, column

HEIGHT, WIDTH = 10, 13
CORRIDORS: list[tuple[Cell, Cell]] = [  # both ends belong to the corridor
    ((1, 1), (1, 5)),  # the bar of the left T
    ((1, 7), (1, 11)),  # the bar of the right T
    ((1, 3), (5, 3)),  # their stems
    ((1, 9), (5, 9)),
    ((5, 3), (5, 9)),  # what joins the stems
    ((5, 6), (8, 6)),  # the way to the goal
]
GOAL: Cell = (8, 6)
MOVES: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
COMMANDS: tuple[str, ...] = tuple(f"move {name}\n" for name in MOVES)
STEP_REWARD, GOAL_REWARD, INVALID_REWARD = -1.0, 0.0, -4.0
MAX_STEPS = 100  # commands in an episode


class Step(NamedTuple):
    """One step of an episode: observation, command, reward, next observation ("" when the goal is reached)."""

    observation: str
    command: str
    reward: float
    next_observation: str


def _free_cells() -> list[Cell]:
    cells = {
        (row, column)
        for (top, left), (bottom, right) in CORRIDORS
        for row in range(top, bottom + 1)
        for column in range(left, right + 1)
    }
    return sorted(cells)


CELLS: list[Cell] = _free_cells()
_FREE = frozenset(CELLS)
STARTS: list[Cell] = [cell for cell in CELLS if cell != GOAL]


def drawing() -> list[str]:
    """The maze, one text per row: `#` for a wall, a space for a free cell."""
    return ["".join(" " if (row, column) in _FREE else "#" for column in range(WIDTH)) for row in range(HEIGHT)]


def neighbour(cell: Cell, name: str) -> Cell:
    """The cell that a move leads to; `cell` itself where a wall is."""
    there = (cell[0] + MOVES[name][0], cell[1] + MOVES[name][1])
    return there if there in _FREE else cell


@functools.cache
def observation_text(cell: Cell) -> str:
    """The observation in a cell."""
    walls = "".join(name[0] if neighbour(cell, name) == cell else "-" for name in MOVES)
    return f"{cell[0]},{cell[1]:02d} to {GOAL[0]},{GOAL[1]:02d} {walls}\n"


OBSERVATION_LENGTH = len(observation_text(GOAL))
ALPHABET = "".join(sorted(set("".join([*COMMANDS, *(observation_text(cell) for cell in CELLS)]))))


def apply(cell: Cell, command: str) -> tuple[Cell, float]:
    """The cell after a command, and the command's reward."""
    if command not in COMMANDS:
        return cell, INVALID_REWARD
    there = neighbour(cell, list(MOVES)[COMMANDS.index(command)])
    return there, GOAL_REWARD if there == GOAL else STEP_REWARD


def distances(target: Cell) -> dict[Cell, int]:
    """Least number of moves from each cell to `target`, by breadth-first search (moves can be undone)."""
    found, queue = {target: 0}, deque([target])
    while queue:
        cell = queue.popleft()
        for name in MOVES:
            there = neighbour(cell, name)
            if there not in found:
                found[there] = found[cell] + 1
                queue.append(there)
    return found


def best_command(cell: Cell, distance: dict[Cell, int]) -> str:
    """A command that reduces `distance` to 0."""
    return next(f"move {name}\n" for name in MOVES if distance[neighbour(cell, name)] < distance[cell])


def starts(start_distance: int = 1) -> list[Cell]:
    """The cells so many moves from the goal or more; from 1 on all but the goal."""
    distance = distances(GOAL)
    return [cell for cell in CELLS if distance[cell] >= start_distance]


def optimal_return(cells: Sequence[Cell] = STARTS) -> float:
    """Mean over the starts of the best return: the last of d moves is free, so it is -(d - 1)."""
    distance = distances(GOAL)
    return sum(STEP_REWARD * (distance[cell] - 1) + GOAL_REWARD for cell in cells) / len(cells)


def random_return(max_steps: int, cells: Sequence[Cell] = STARTS) -> float:
    """Mean return over the starts when each command is one of the four with equal chance, exactly.

    v_0 = 0, v_k(s) = mean over commands of (reward + v_{k-1}(s')), and 0 at the goal.
    """
    value = dict.fromkeys(CELLS, 0.0)
    for _ in range(max_steps):
        after = {cell: [apply(cell, command) for command in COMMANDS] for cell in STARTS}
        value = {cell: sum(r + value[there] for there, r in after[cell]) / len(COMMANDS) for cell in STARTS}
        value[GOAL] = 0.0
    return sum(value[cell] for cell in cells) / len(cells)


def logged_episodes(
    seed: int, episodes: int, *, random_share: float = 0.7, max_steps: int = MAX_STEPS
) -> Iterator[list[Step]]:
    """Episodes of a suboptimal behaviour policy, which writes only valid commands and has no knowledge of the goal.

    In a share of the episodes every command is random. In the others the walker goes the shortest way to a random cell,
    then to the next, until the goal happens to be one of them. Starts are random. With the default share the mean return
    is about -82.6 (that of the data published with LMRL-Gym is -83). An episode cut at `max_steps` keeps its last text,
    to distinguish it from one that reached the goal.

    Args:
        seed: of the episodes; the same seed gives the same episodes, and more of them the same first ones.
        episodes: how many.
        random_share: of the episodes, in [0, 1].
        max_steps: commands in an episode.
    """
    source = random.Random(seed)
    distance = {cell: distances(cell) for cell in CELLS}
    for _ in range(episodes):
        wanders, cell = source.random() < random_share, source.choice(STARTS)
        waypoint, steps = cell, list[Step]()
        while cell != GOAL and len(steps) < max_steps:
            while waypoint == cell:
                waypoint = source.choice(CELLS)
            command = source.choice(COMMANDS) if wanders else best_command(cell, distance[waypoint])
            there, reward = apply(cell, command)
            text = "" if there == GOAL else observation_text(there)
            steps.append(Step(observation_text(cell), command, reward, text))
            cell = there
        yield steps
