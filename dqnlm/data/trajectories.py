"""Logged episodes with rewards, as rows to learn from; targets of the config group `data` that need no text.

A trajectory with P prompt tokens, C completion tokens and X tokens of the text after it becomes one row:

    time         0 ... P-2    P-1 ... P+C-2          P+C-1 ... P+C+X-2
    observation  the prompt   its last; completion   the completion's last; what follows but its last
    step         no decision  a decision each        no decision

The action at time t is observation t + 1. With X = 0 the episode terminates with the last decision; else the row is cut
after its last step, and its last observation has a value. In a dialogue the partner's parts of the completion are steps
without a decision, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from dqnlm.data.tokenizers import Tokenizer
from dqnlm.data.trajectory_files import DataSource, read_file, read_hub
from dqnlm.data.trajectory_records import Trajectory, content_sha256, dialogue
from dqnlm.data.trajectory_returns import RewardScaling, episode_returns, keep_best, scale
from dqnlm.errors import UserError
from dqnlm.tasks import maze, random_walks, wordle, wordle_players, wordle_words
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Rows


@dataclass(frozen=True)
class Trajectories:
    """Logged trajectories, filtered and scaled as the settings say.

    Attributes:
        items: at least one.
        source: where they came from, and in its notes what was done to them.
    """

    items: list[Trajectory]
    source: DataSource

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        """sha256 (hex) of everything that is learned from: equal exactly if texts, rewards and order are."""
        return content_sha256(self.items)

    def alphabet(self) -> str:
        """All characters that occur, in code-point order."""
        return "".join(sorted(set().union(*(t.prompt + t.completion + t.next for t in self.items))))

    def mean_return(self) -> float:
        """Mean over the episodes of the summed rewards, in the units that `reward_scaling` left."""
        returns = episode_returns(self.items)
        return sum(returns) / len(returns)

    def best_return(self) -> float:
        """The greatest sum of an episode's rewards, in the same units."""
        return max(episode_returns(self.items))

    def longest(self) -> int:
        """Transitions of the longest row when each character is one token."""
        return max(len(t.prompt) + len(t.completion) + len(t.next) for t in self.items) - 1

    def first_decision(self) -> int:
        """The earliest time of a decision in any row when each character is one token."""
        return min(len(t.prompt) for t in self.items) - 1

    def rows(self, tokenizer: Tokenizer, row_transitions: int, device: torch.device) -> Rows:
        """All trajectories as right-padded rows, B = len(self), T = row_transitions; ids in the tokenizer's dtype.

        Raises:
            UserError: a text has characters that the tokenizer does not know, a trajectory is longer than a row, or its
                rewards are not one for each token; the message names the file and the line.
        """

        @functools.cache  # observations and commands of a log repeat
        def encode(text: str) -> list[int]:
            return tokenizer.encode_strict(text).tolist()

        shape = (len(self.items), row_transitions)
        observation_BS = np.zeros((shape[0], row_transitions + 1), np.int32)
        reward_BT, flag_BT = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
        length_B = np.zeros(shape[0], np.int64)
        for b, trajectory in enumerate(self.items):
            prompt, after = (_ids(encode, trajectory, name, getattr(trajectory, name)) for name in ("prompt", "next"))
            completion, rewards, flags = _completion(encode, trajectory)
            tokens = [*prompt, *completion, *after]
            length_B[b] = length = len(tokens) - 1
            if length > row_transitions:
                raise self._too_long(trajectory, length, row_transitions)
            begin, end = len(prompt) - 1, len(prompt) - 1 + len(completion)
            observation_BS[b, : length + 1] = tokens
            reward_BT[b, begin:end] = rewards
            flag_BT[b, begin:end] = flags
            flag_BT[b, length - 1] |= TRUNCATED if after else TERMINATED
        observation = torch.from_numpy(observation_BS).to(device, tokenizer.dtype)
        tensors = (torch.from_numpy(array).to(device) for array in (reward_BT, flag_BT, length_B))
        return Rows(observation, observation[:, 1:].clone(), *tensors)

    def _too_long(self, trajectory: Trajectory, length: int, row_transitions: int) -> UserError:
        others = sum(len(t.prompt) + len(t.completion) + len(t.next) - 1 > row_transitions for t in self.items) - 1
        more = f" (and {others:,} others)" if others > 0 else ""
        return UserError(
            f"{trajectory.place}{more}: prompt, completion and next are {length + 1:,} tokens, {length:,} transitions, but a "
            f"row of this environment has {row_transitions:,}. Shorten the text, leave the line out, or set the environment "
            "to longer episodes."
        )


class NoData:
    """What a run has that learns from its environment alone."""

    def __init__(self) -> None:
        self.source = DataSource(
            "none", "the environment", content_sha256([]), notes=["The environment is all there is: no data was read."]
        )

    def fingerprint(self) -> str:
        """Always the same."""
        return self.source.sha256


def _completion(
    encode: Callable[[str], list[int]], trajectory: Trajectory
) -> tuple[list[int], list[float], list[int]]:
    """Tokens, rewards and flags of a completion, part by part."""
    tokens, rewards, flags = list[int](), list[float](), list[int]()
    for text, paid, agent in trajectory.parts():
        ids = _ids(encode, trajectory, "completion", text)
        tokens += ids
        rewards += _rewards(trajectory, paid, len(ids))
        flags += [DECISION if agent else 0] * len(ids)
    return tokens, rewards, flags


def _ids(encode: Callable[[str], list[int]], trajectory: Trajectory, name: str, text: str) -> list[int]:
    try:
        return encode(text)
    except UserError as error:
        raise UserError(f"{trajectory.place}, {name}: {error}") from error


def _rewards(trajectory: Trajectory, rewards: tuple[float, ...], tokens: int) -> list[float]:
    """One for each token; where tokens are not characters, a single reward at the end moves to the last token."""
    if len(rewards) == tokens:
        return list(rewards)
    if any(rewards[:-1]):
        raise UserError(
            f"{trajectory.place}: there are {len(rewards)} rewards, but the completion is {tokens} tokens. Give one for each "
            "token, or a single reward."
        )
    return [0.0] * (tokens - 1) + list(rewards[-1:])


def _prepared(items: list[Trajectory], source: DataSource, best: float | None, scaling: RewardScaling) -> Trajectories:
    """First the best episodes are kept, then the rewards that are left are scaled."""
    notes = list(source.notes)
    if best is not None:
        items, kept = keep_best(items, best)
        notes.append(kept)
    items, scaled = scale(items, scaling)
    return Trajectories(items, replace(source, notes=[*notes, scaled] if scaled else notes))


def trajectories(
    *,
    path: str | None,
    name: str | None,
    config: str | None,
    split: str,
    revision: str | None,
    keep_best: float | None,
    reward_scaling: RewardScaling,
) -> Trajectories:
    """Target of `data=trajectories`; see `trajectory_records` for the format.

    Raises:
        UserError: neither or both of path and name, a file or a line that is wrong, a share or a scaling that cannot be.
    """
    if (path is None) == (name is None):
        what = "a file or a data set" if path is None else "only one of the two"
        raise UserError(f"data=trajectories needs {what}: data.path=FILE or data.name=OWNER/NAME.")
    if path is not None:
        items, source = read_file(path)
    else:
        assert name is not None
        items, source = read_hub(name=name, config=config, split=split, revision=revision)
    return _prepared(items, source, keep_best, reward_scaling)


def random_walks_log(*, graph_seed: int, keep_best: float | None, reward_scaling: RewardScaling) -> Trajectories:
    """Target of `data=random_walks`: 1,000 random walks, each paid its optimality at its last node.

    Raises:
        UserError: a seed, a share or a scaling that cannot be.
    """
    if not 0 <= graph_seed <= random_walks.MAX_SEED:
        raise UserError(f"data.graph_seed is {graph_seed}; it must be from 0 to {random_walks.MAX_SEED}")
    items = [
        Trajectory(prompt, completion, (0.0,) * (len(completion) - 1) + (reward,), place=f"random walk {number}")
        for number, (prompt, completion, reward) in enumerate(random_walks.logged_walks(graph_seed), 1)
    ]
    return _prepared(items, _generated("random walks", f"graph seed {graph_seed}", items), keep_best, reward_scaling)


def maze_log(*, seed: int, episodes: int, keep_best: float | None, reward_scaling: RewardScaling) -> Trajectories:
    """Target of `data=maze`: episodes of a walker without a plan, a row for each command.

    Raises:
        UserError: no episode, a share or a scaling that cannot be.
    """
    if episodes < 1:
        raise UserError(f"data.episodes is {episodes}; it must be 1 or more")
    items = [
        Trajectory(
            step.observation,
            step.command,
            (0.0,) * (len(step.command) - 1) + (step.reward,),
            step.next_observation,
            number,
            f"maze episode {number}, command {k}",
        )
        for number, steps in enumerate(maze.logged_episodes(seed, episodes))
        for k, step in enumerate(steps, 1)
    ]
    source = _generated("maze episodes", f"seed {seed}, {episodes:,} episodes", items)
    return _prepared(items, source, keep_best, reward_scaling)


def wordle_log(
    *, seed: int, games: int, words: str, keep_best: float | None, reward_scaling: RewardScaling
) -> Trajectories:
    """Target of `data=wordle`: games of a player who often begins to look at the answers late, a row each.

    Raises:
        UserError: no game, a list of words that cannot be read, a share or a scaling that cannot be.
    """
    if games < 1:
        raise UserError(f"data.games is {games}; it must be 1 or more")
    known = wordle_words.word_list(words)
    items = []
    for number, turns in enumerate(wordle_players.logged_games(seed, games, known.words)):
        said = [(wordle.OPENING, False, 0.0)]
        for turn in turns:
            said.append((turn.utterance, True, turn.verdict.reward))
            if turn.verdict.answer:
                said.append((turn.verdict.answer, False, 0.0))
        items.append(dialogue(said, number, f"Wordle game {number}"))
    source = _generated("Wordle games", f"seed {seed}, {games:,} games with {known.origin}", items)
    return _prepared(items, source, keep_best, reward_scaling)


def _generated(name: str, settings: str, items: Iterable[Trajectory]) -> DataSource:
    return DataSource(name, f"generated: {settings}", content_sha256(items))


def no_data() -> NoData:
    """Target of `data=none`."""
    return NoData()
