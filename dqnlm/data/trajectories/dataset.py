"""Logged episodes with rewards as training rows; targets of the config group `data` that need no text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.trajectories.files import DataSource, read_file, read_hub
from dqnlm.data.trajectories.forms import FormSettings, form_settings
from dqnlm.data.trajectories.records import Trajectory, content_sha256, dialogue
from dqnlm.data.trajectories.rewards import RewardScaling, episode_returns, keep_best, scale
from dqnlm.data.trajectories.rows import padded, token_rows
from dqnlm.errors import UserError
from dqnlm.problems import maze, random_walks, wordle, wordle_players, wordle_words
from dqnlm.types import Rows
from dqnlm.utils.paths import FilePath, PathOrName


@dataclass(frozen=True)
class Trajectories:
    """Logged trajectories after the filtering and scaling of the settings.

    Attributes:
        items: at least one.
        source: their origin, with notes about the processing.
    """

    task: ClassVar[str] = "environment"
    items: list[Trajectory]
    source: DataSource

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        """sha256 (hex) of the training data: equal exactly if texts, rewards and order are."""
        return content_sha256(self.items)

    def alphabet(self) -> str:
        """All characters that occur, in code-point order."""
        return "".join(sorted(set().union(*(t.prompt + t.completion + t.next for t in self.items))))

    def mean_return(self) -> float:
        """Mean over the episodes of the summed rewards, in the units after `reward_scaling`."""
        returns = episode_returns(self.items)
        return sum(returns) / len(returns)

    def best_return(self) -> float:
        """The greatest sum of an episode's rewards, in the units after `reward_scaling`."""
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
        rows = token_rows(self.items, tokenizer)
        too_long = [row.transitions > row_transitions for row in rows]
        if any(too_long):
            first = too_long.index(True)
            raise self._too_long(self.items[first], rows[first].transitions, row_transitions, sum(too_long) - 1)
        return padded(rows, row_transitions, tokenizer.dtype, device)

    def _too_long(self, trajectory: Trajectory, length: int, row_transitions: int, others: int) -> UserError:
        more = f" (and {others:,} others)" if others > 0 else ""
        return UserError(
            f"{trajectory.place}{more}: prompt, completion and next are {length + 1:,} tokens, {length:,} transitions, but a "
            f"row of this environment has {row_transitions:,}. Shorten the text, leave the line out, or set the environment "
            "to longer episodes."
        )


class NoData:
    """The empty data set of a run that learns from its environment alone."""

    task: ClassVar[str] = "environment"

    def __init__(self) -> None:
        self.source = DataSource(
            "none", "the environment", content_sha256([]), notes=["The environment is all there is: no data was read."]
        )

    def __len__(self) -> int:
        """Number of logged rows: 0."""
        return 0

    def fingerprint(self) -> str:
        """A constant."""
        return self.source.sha256


def _prepared(items: list[Trajectory], source: DataSource, best: float | None, scaling: RewardScaling) -> Trajectories:
    """Filters the best episodes, then scales the remaining rewards."""
    notes, every = list(source.notes), items
    if best is not None:
        items, kept = keep_best(items, best)
        notes.append(kept)
    items, scaled = scale(items, scaling, every)
    return Trajectories(items, replace(source, notes=[*notes, scaled] if scaled else notes))


def trajectories(
    *,
    path: FilePath | None,
    name: PathOrName | None,
    config: str | None,
    split: str,
    revision: str | None,
    limit: int | None,
    keep_best: float | None,
    reward_scaling: RewardScaling,
    pair_rewards: list[float],
    ratings: dict[str | bool | float, float] | None,
) -> Trajectories:
    """Target of `data=trajectories`; see `forms` for what is read (conversations need data=logged).

    Raises:
        UserError: neither or both of path and name, a file or a line that is wrong, a share or a scaling that cannot be.
    """
    forms = form_settings(None, pair_rewards, ratings, "every")  # conversations, which need a tokenizer, are refused
    items, source = read_log(path, name, config, split, revision, "trajectories", forms, limit)
    return _prepared(items, source, keep_best, reward_scaling)


def read_log(
    path: str | None, name: str | None, config: str | None, split: str, revision: str | None, option: str,
    forms: FormSettings | None = None, limit: int | None = None,
) -> tuple[list[Trajectory], DataSource]:
    """Reads a log from a file, or from the Hub; `option` is the name of the data in messages, `limit` the rows that are read.

    Raises:
        UserError: neither or both of path and name, or a file or a line that is wrong.
    """
    if path is not None and name is None:
        return read_file(path, forms, limit)
    if name is not None and path is None:
        return read_hub(name=name, config=config, split=split, revision=revision, forms=forms, limit=limit)
    what = "a file or a data set" if path is None else "only one of the two"
    raise UserError(f"data={option} needs {what}: data.path=FILE or data.name=OWNER/NAME.")


def random_walks_log(
    *,
    graph_seed: int,
    nodes: int,
    max_nodes: int,
    out_degree: int | None,
    walks: int,
    keep_best: float | None,
    reward_scaling: RewardScaling,
) -> Trajectories:
    """Target of `data=random_walks`: random walks, with the optimality as the reward of the last node.

    Raises:
        UserError: a seed, a size, a share or a scaling that cannot be.
    """
    if not 0 <= graph_seed <= random_walks.MAX_SEED:
        raise UserError(f"data.graph_seed is {graph_seed}; it must be from 0 to {random_walks.MAX_SEED}")
    if walks < 1:
        raise UserError(f"data.walks is {walks}; it must be 1 or more")
    size = random_walks.Size(nodes, max_nodes, out_degree)
    size.check("data")
    logged = random_walks.logged_walks(graph_seed, walks, size)
    items = [
        Trajectory(prompt, completion, (0.0,) * (len(completion) - 1) + (reward,), place=f"random walk {number}")
        for number, (prompt, completion, reward) in enumerate(logged, 1)
    ]
    published = size == random_walks.PUBLISHED and walks == random_walks.LOGGED_WALKS
    told = "" if published else f", {nodes:,} nodes, {walks:,} walks of at most {max_nodes}"
    return _prepared(items, _generated("random walks", f"graph seed {graph_seed}{told}", items), keep_best, reward_scaling)


def maze_log(
    *, seed: int, episodes: int, max_steps: int, keep_best: float | None, reward_scaling: RewardScaling
) -> Trajectories:
    """Target of `data=maze`: episodes of a suboptimal behaviour policy, one row per command.

    Raises:
        UserError: no episode or command, a share or a scaling that cannot be.
    """
    for name, value in {"episodes": episodes, "max_steps": max_steps}.items():
        if value < 1:
            raise UserError(f"data.{name} is {value}; it must be 1 or more")
    items = [
        Trajectory(
            step.observation,
            step.command,
            (0.0,) * (len(step.command) - 1) + (step.reward,),
            step.next_observation,
            number,
            f"maze episode {number}, command {k}",
        )
        for number, steps in enumerate(maze.logged_episodes(seed, episodes, max_steps=max_steps))
        for k, step in enumerate(steps, 1)
    ]
    source = _generated("maze episodes", f"seed {seed}, {episodes:,} episodes of at most {max_steps:,} commands", items)
    return _prepared(items, source, keep_best, reward_scaling)


def wordle_log(
    *,
    seed: int,
    games: int,
    words: Literal["auto", "bundled"] | PathOrName,
    keep_best: float | None,
    reward_scaling: RewardScaling,
) -> Trajectories:
    """Target of `data=wordle`: games of a suboptimal behaviour policy, one row per game.

    Raises:
        UserError: no game, a list of words that cannot be read, a share or a scaling that cannot be.
    """
    if games < 1:
        raise UserError(f"data.games is {games}; it must be 1 or more")
    known = wordle_words.word_list(words)
    items = []
    for number, turns in enumerate(wordle_players.logged_games(seed, games, known.words)):
        utterances = [(wordle.OPENING, False, 0.0)]
        for turn in turns:
            utterances.append((turn.utterance, True, turn.verdict.reward))
            if turn.verdict.answer:
                utterances.append((turn.verdict.answer, False, 0.0))
        items.append(dialogue(utterances, number, f"Wordle game {number}"))
    source = _generated("Wordle games", f"seed {seed}, {games:,} games with {known.origin}", items)
    return _prepared(items, source, keep_best, reward_scaling)


def _generated(name: str, settings: str, items: Iterable[Trajectory]) -> DataSource:
    return DataSource(name, f"generated: {settings}", content_sha256(items))


def no_data() -> NoData:
    """Target of `data=none`."""
    return NoData()
