"""The maze: its drawing against the published file, its rules by hand, and rows of the environment against the rules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.config import composition
from dqnlm.envs.maze import Maze
from dqnlm.errors import UserError
from dqnlm.problems import maze
from dqnlm.types import DECISION, TERMINATED, TRUNCATED
from tests.helpers.environments import NoHostSynchronisation, episodes, play

Row = dict[str, list[Any]]
L = maze.OBSERVATION_LENGTH


def make(seed: int = 0, evaluating: bool = False, **options: Any) -> Maze:
    settings = {"num_envs": 5, "max_steps": 100, "start_distance": 1, "command_length": 12} | options
    return Maze(torch.device("cpu"), seed, evaluating, **settings)


def text(ids: list[int]) -> str:
    return "".join(maze.ALPHABET[i] for i in ids)


def obey(env: Maze, commands: dict[str, str], rows: int) -> list[list[Row]]:
    """Plays until each walker has finished so many rows; what is read at a row's begin says which command is written.

    Where nothing is decided the line break is chosen, which must change nothing.
    """
    now_E, first_E = env.reset(), None
    first_E, read, actions, steps = now_E, [""] * env.num_envs, [], []
    finished = [0] * env.num_envs
    while min(finished) < rows:
        chosen = []
        for e, token in enumerate(now_E.tolist()):
            read[e] += maze.ALPHABET[token]
            command = commands[read[e][:L]] if len(read[e]) >= L else ""
            place = len(read[e]) - L
            chosen.append(maze.ALPHABET.index(command[place] if 0 <= place < len(command) else "\n"))
        actions.append(torch.tensor(chosen))
        steps.append(env.step(actions[-1]))
        now_E = steps[-1].next_observation_E
        for e, last in enumerate(steps[-1].row_end_E.tolist()):
            if last:
                read[e], finished[e] = "", finished[e] + 1
    return [found[:rows] for found in episodes(first_E, torch.stack(actions), steps)]


def everywhere(command: str) -> dict[str, str]:
    return {maze.observation_text(cell): command for cell in maze.CELLS}


def test_the_drawing_is_the_published_maze() -> None:
    """Bug: a corridor that is one cell short gives another task under the same name."""
    folder = os.environ.get("DQNLM_DATA_DIR")
    if not folder or not (Path(folder) / "maze" / "double_t.txt").exists():
        pytest.skip("DQNLM_DATA_DIR names no folder with maze/double_t.txt")
    assert maze.drawing() == (Path(folder) / "maze" / "double_t.txt").read_text().splitlines()
    assert len(maze.CELLS) == 26 and len(maze.STARTS) == 25 and maze.drawing()[8][6] == " "


def test_texts_and_rewards_by_hand() -> None:
    """Bug: rows and columns exchanged, a wall named on the wrong side, or a reward at the wrong text."""
    assert maze.observation_text((5, 3)) == "5,03 to 8,06 -dl-\n"  # the stem goes up, the corridor right
    assert maze.observation_text((1, 11)) == "1,11 to 8,06 ud-r\n"  # the right end of the right bar
    assert {len(maze.observation_text(cell)) for cell in maze.CELLS} == {18}
    assert maze.apply((5, 3), "move right\n") == ((5, 4), -1.0)
    assert maze.apply((5, 3), "move down\n") == ((5, 3), -1.0)  # a wall
    assert maze.apply((7, 6), "move down\n") == ((8, 6), 0.0)
    for wrong in ("", "move right", "move right\n\n", "Move right\n", "\n"):
        assert maze.apply((7, 6), wrong) == ((7, 6), -4.0)


def test_distances_and_the_best_return() -> None:
    """Bug: the goal's step counted as -1 (the optimum is then -7.84), or a start missing from the mean.

    By hand: from the corner (1, 1) it is 2 right, 4 down, 3 right, 3 down: 12 moves. RowTotals over the starts: the way to the
    goal 1 + 2 + 3; the corridor at distance 3 beside it (4 + 5 + 6) twice; each stem above it 7, 8, 9 and the bar's middle
    10; its other cells 11, 12 and 11, 12. 6 + 30 + 2 (24 + 10 + 46) = 196 = 25 x 7.84, less the free last move.
    """
    distance = maze.distances(maze.GOAL)
    assert distance[(1, 1)] == 12 and distance[(5, 3)] == 6 and sum(distance.values()) == 196
    assert maze.optimal_return() == pytest.approx(-6.84)


def test_random_return_against_a_simulation() -> None:
    """Bug: a value iterated in place, or the goal with a value. The random share of the log is another implementation."""
    one = sum(-1.0 if start != (7, 6) else -0.75 for start in maze.STARTS) / 25  # only from (7, 6) one in four is free
    assert maze.random_return(1) == pytest.approx(one)
    returns = [sum(step.reward for step in steps) for steps in maze.logged_episodes(0, 1000, random_share=1.0)]
    assert maze.random_return(100) == pytest.approx(sum(returns) / 1000, abs=4 * 30 / 1000**0.5)  # 4 standard errors
    assert make().references() == {"optimal": maze.optimal_return(), "random": maze.random_return(100)}


def test_logged_episodes() -> None:
    """Bug: steps that do not follow one another, a reward that the rules deny, an end that is not the goal."""
    logged = list(maze.logged_episodes(3, 1000))
    assert logged[:5] == list(maze.logged_episodes(3, 5)) != list(maze.logged_episodes(4, 5))
    cell_of = {maze.observation_text(cell): cell for cell in maze.CELLS}
    for steps in logged:
        for k, step in enumerate(steps):
            there, reward = maze.apply(cell_of[step.observation], step.command)
            assert step.reward == reward and step.command in maze.COMMANDS
            assert step.next_observation == ("" if there == maze.GOAL else maze.observation_text(there))
            assert k + 1 == len(steps) or steps[k + 1].observation == step.next_observation
        assert steps[-1].next_observation == "" or len(steps) == 100
    mean = sum(step.reward for steps in logged for step in steps) / 1000
    assert mean == pytest.approx(-82.6, abs=4)  # the standard deviation of an episode is 31: 4 standard errors


def test_evaluation_begins_far_from_the_goal() -> None:
    """Bug: a start too near, or one left out; a reference of other starts than the evaluation's; training begins there, too.

    Farther than 6 moves by hand: each stem above the corridor's end is 7, 8, 9 away, the bar's middle 10, its other cells 11 and
    12 on both sides: 2 (24 + 10 + 46) = 160 moves from 16 cells, less the free last move.
    """
    env = make(evaluating=True, start_distance=7, num_envs=33)
    begun = [text(rows[0]["observation"][:L]) for rows in obey(env, everywhere("\n"), 1)]
    far = [cell for cell in maze.CELLS if maze.distances(maze.GOAL)[cell] > 6]
    assert begun == [maze.observation_text(far[e % 16]) for e in range(33)] and len(far) == 16
    assert env.references() == {"optimal": -9.0, "random": maze.random_return(100, far)}
    assert maze.random_return(100, far) < maze.random_return(100)
    seen = {text(rows[0]["observation"][:L]) for rows in obey(make(start_distance=12, num_envs=200), everywhere("\n"), 1)}
    assert seen == {maze.observation_text(cell) for cell in maze.STARTS}


def test_the_experiment_s_log_has_no_way_from_an_evaluated_start() -> None:
    """Bug: a log in which some episode shows the way, so that cloning it would do; or one that lacks a move on the way."""
    settings = composition.compose(["+experiment=maze"])[0]
    far = maze.starts(settings["env"]["start_distance"])
    limit, count = settings["data"]["max_steps"], settings["data"]["episodes"]
    logged = list(maze.logged_episodes(settings["data"]["seed"], count, max_steps=limit))
    assert settings["evaluation"]["episodes"] == len(far) == 16 and len(logged) == count
    texts = {maze.observation_text(cell) for cell in far}
    from_far = [steps for steps in logged if steps[0].observation in texts]
    assert {sum(step.reward for step in steps) for steps in from_far} == {-float(limit)}  # all alike: a filter tells none apart
    assert {steps[0].observation for steps in from_far} == texts and any(steps[-1].next_observation == "" for steps in logged)
    moves = {(step.observation, step.command) for steps in logged for step in steps}
    assert len(moves) == len(maze.STARTS) * len(maze.COMMANDS)


def test_an_optimal_player_gets_the_optimum_from_every_start() -> None:
    """Bug: anything between the texts and the rules: a start twice, a step that pays late, a walk that is cut."""
    distance = maze.distances(maze.GOAL)
    best = {maze.observation_text(cell): maze.best_command(cell, distance) for cell in maze.STARTS}
    env = make(evaluating=True, num_envs=25)
    returns = []
    for start, rows in zip(maze.STARTS, obey(env, best, 12), strict=True):
        assert text(rows[0]["observation"][:L]) == maze.observation_text(start)
        end = next(k for k, row in enumerate(rows) if row["flag"][-1] & TERMINATED)
        assert end + 1 == distance[start]
        returns.append(sum(sum(row["reward"]) for row in rows[: end + 1]))
        if end + 1 < len(rows):  # an evaluation begins where it began
            assert rows[end + 1]["observation"][:L] == rows[0]["observation"][:L]
    assert sum(returns) / 25 == pytest.approx(-6.84)


def test_a_row_by_hand() -> None:
    """Bug: a flag or reward one step off, or a next text of the cell before the move.

    Text of 18 characters: 17 steps without a decision. `move down` and its line break: 10 decisions, at times 17 to 26,
    the reward at 26. Then the next text: 18 steps without a decision, the last one truncated.
    """
    env = make(evaluating=True, num_envs=25)
    e = maze.STARTS.index((1, 3))
    first, second = obey(env, everywhere("move down\n"), 2)[e]
    assert text(first["observation"]) == "1,03 to 8,06 u---\nmove down\n2,03 to 8,06 --lr\n"
    assert first["flag"] == [0] * 17 + [DECISION] * 10 + [0] * 17 + [TRUNCATED]
    assert first["reward"] == [0.0] * 26 + [-1.0] + [0.0] * 18
    assert text(second["observation"]).startswith("2,03 to 8,06 --lr\nmove down\n3,03 ")
    assert env.spec.first_decision == 17 and env.spec.row_transitions == 18 + 12 + 18 - 1
    e = maze.STARTS.index((7, 6))
    (row,) = obey(make(evaluating=True, num_envs=25), everywhere("move down\n"), 1)[e]
    assert text(row["observation"]) == "7,06 to 8,06 --lr\nmove down\n"  # the goal: nothing follows
    assert row["flag"] == [0] * 17 + [DECISION] * 9 + [DECISION | TERMINATED] and row["reward"] == [0.0] * 27


@pytest.mark.parametrize(
    ("command", "written"),
    [("\n", "\n"), ("move dow\n", "move dow\n"), ("move downn\n", "move downn\n"), ("move down move", "move down mo")],
)
def test_invalid_commands(command: str, written: str) -> None:
    """Bug: a beginning or a longer text taken for the command, a command without end, a move that is not paid for."""
    (row,) = obey(make(evaluating=True, num_envs=25), everywhere(command), 1)[maze.STARTS.index((1, 3))]
    here = maze.observation_text((1, 3))
    assert text(row["observation"]) == here + written + here
    assert row["reward"] == [0.0] * (16 + len(written)) + [-4.0] + [0.0] * 18
    assert row["flag"] == [0] * 17 + [DECISION] * len(written) + [0] * 17 + [TRUNCATED]


def test_the_longest_command_fits_exactly() -> None:
    """Bug: the last character allowed is not judged, so that `move right` is invalid at the least command_length."""
    (row,) = obey(make(evaluating=True, num_envs=25, command_length=11), everywhere("move right\n"), 1)[0]
    assert text(row["observation"]) == "1,01 to 8,06 udl-\nmove right\n1,02 to 8,06 ud--\n"
    assert sum(row["reward"]) == -1.0 and len(row["flag"]) == 46


def test_max_steps_cuts_the_episode() -> None:
    """Bug: the limit taken for a termination, hit a command late, or counted across episodes; rows that miss `over`."""
    env = make(max_steps=2, evaluating=True, num_envs=25)
    _, steps = play(env, torch.full((180, 25), maze.ALPHABET.index("\n")))  # each row: 17 + 1 + 18 steps
    for e, cell in enumerate(maze.STARTS):
        over = [t for t, step in enumerate(steps) if step.episode_end_E[e]]
        assert over == [71, 143] and [t for t, step in enumerate(steps) if step.row_end_E[e]] == [35, 71, 107, 143, 179]
        assert int(steps[71].flag_E[e]) == TRUNCATED
        assert int(steps[71].next_observation_E[e]) == maze.ALPHABET.index(maze.observation_text(cell)[0])
    assert env.spec.episode_steps == 2 * env.spec.row_transitions


def test_starts_are_random_and_follow_the_seed() -> None:
    """Bug: one start for all, the goal as a start, evaluation's starts used for training."""
    starts: set[str] = set()
    env = make(num_envs=200)
    for rows in obey(env, everywhere("\n"), 1):
        starts.add(text(rows[0]["observation"][:L]))
    assert starts == {maze.observation_text(cell) for cell in maze.STARTS}
    firsts = [make(seed, num_envs=25).reset().tolist() for seed in (0, 0, 1)]
    assert firsts[0] == firsts[1] != firsts[2]


def _random_steps(env: Maze, action_NE: Tensor) -> list[Any]:
    with NoHostSynchronisation():
        return [env.step(action_E) for action_E in action_NE]


@pytest.mark.parametrize("before", [0, 17, 20, 40])
def test_resuming_in_a_text_and_in_a_command(before: int) -> None:
    """Bug: a part of the state that is not saved: the place in a text, the command so far, moves, random starts."""
    source = torch.Generator().manual_seed(0)
    action_NE = torch.randint(len(maze.ALPHABET), (before + 120, 5), generator=source)
    env, other = make(max_steps=2), make(seed=9, max_steps=2)
    env.reset(), other.reset()
    _random_steps(env, action_NE[:before])
    state = {name: value.clone() for name, value in env.state_dict().items()}
    expected = _random_steps(env, action_NE[before:])
    _random_steps(other, action_NE[:3])
    other.load_state_dict(state)
    for a, b in zip(expected, _random_steps(other, action_NE[before:]), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[:6], b[:6], strict=True))
    with pytest.raises(ValueError, match="5 walkers"):
        make(num_envs=3).load_state_dict(state)


def test_bounds() -> None:
    """Bug: bounds that real returns leave. At gamma 1 the worst is 100 wrong texts; at gamma 1/2 the sum is twice -4."""
    assert tuple(make().return_bounds(1.0)) == (-400.0, 0.0)
    assert tuple(make().return_bounds(0.5)) == (-8.0, 0.0)
    assert tuple(make().return_bounds(0.0)) == tuple(make().reward_bounds) == (-4.0, 0.0)


def test_what_is_refused() -> None:
    """Bug: a limit in which `move right` can never be written; no walkers."""
    for key, value in {"command_length": 10, "num_envs": 0, "max_steps": 0, "start_distance": 13}.items():
        with pytest.raises(UserError, match=f"env.{key}"):
            make(**{key: value})
