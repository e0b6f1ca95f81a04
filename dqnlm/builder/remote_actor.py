"""What plays in a process of its own: environments, a copy of the network, exploration; rows are collected and sent."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dqnlm.agent.actor import Actor
from dqnlm.builder import agent
from dqnlm.builder.learning_parts import build_learning_parts
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.networks.fixed_weights import load_changing_state
from dqnlm.tasks.base import build_data
from dqnlm.tasks.select import task_class
from dqnlm.training.acting import Player
from dqnlm.training.phases import MakeRemote
from dqnlm.types import Rows
from dqnlm.utils import user_code
from dqnlm.utils.permissions import permit_targets, permitted
from dqnlm.utils.ranks import SEEDS_APART

Config = dict[str, Any]


@dataclass
class Played:
    """One rollout of some of the environments, on the CPU.

    Attributes:
        rows: in the order in which they were finished.
        sums: of metrics, (total, count) by name.
        env_steps, episodes: in it.
        error: the user's mistake that ended it; None for none.
    """

    rows: list[Rows] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)
    env_steps: int = 0
    episodes: int = 0
    error: str | None = None


class Collected:
    """Receives finished rows (`agent.actor.RowSink`)."""

    def __init__(self) -> None:
        self.rows: list[Rows] = []

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        """Keeps copies of those rows, on the CPU."""
        chosen = slice(None) if keep_B is None else keep_B
        block = Rows(**{name: value[chosen].clone().cpu() for name, value in vars(rows).items()})
        if len(block.length_B):
            self.rows.append(block)

    def finished(self, return_E: Tensor, episode_end_E: Tensor) -> None:
        """Returns are in the metrics."""

    def taken(self) -> list[Rows]:
        """The rows since the last call."""
        rows, self.rows = self.rows, []
        return rows


class RemoteActor:
    """Lives in a process of its own, and is built there at its first rollout.

    Args:
        config: of the run, with this actor's share of the environments, its seed and its device.
        choices: options as typed, by group.
        steps: decisions of each environment in a rollout; None for whole episodes.
        folder: where the run was started, for relative paths.
        path: where Python looks for modules.
        permissions: modules and files of the user's that may run.
    """

    def __init__(
        self, config: Config, choices: dict[str, Any], steps: int | None, folder: str, path: Sequence[str],
        permissions: Sequence[str],
    ) -> None:  # fmt: skip
        self.config, self.choices, self.steps = config, choices, steps
        self.folder, self.path, self.permissions = folder, path, permissions
        self._player: Player | None = None

    def play(self, weights: dict[str, Tensor] | None, progress: float) -> Played:
        """One rollout; with these weights, or (None) those of the last one."""
        try:
            with user_code.explaining():
                player = self._built()
                if weights is not None:
                    load_changing_state(player.actor.network, weights)
                return self._rollout(player, progress)
        except UserError as error:
            return Played(error=str(error))

    def _rollout(self, player: Player, progress: float) -> Played:
        actor = player.actor
        steps, episodes = actor.env_steps, int(actor.episodes)
        player.play(progress)
        sums = {name: pair.cpu() for name, pair in self._accumulator.pop_sums().items()}
        return Played(self._collected.taken(), sums, actor.env_steps - steps, int(actor.episodes) - episodes)

    def _built(self) -> Player:
        if self._player is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that learns, which ends this one
            if os.path.isdir(self.folder):
                os.chdir(self.folder)
            sys.path += [place for place in self.path if place not in sys.path]
            permit_targets(list(self.permissions))
            torch.set_num_threads(self.config["threads"] or 1)
            self._player = self._build()
        return self._player

    def _build(self) -> Player:
        config = self.config
        device = agent.choose_device(config["device"])
        agent.set_precision(config, device)
        task = task_class(config)(config, build_data(config, True), device, self.choices)
        torch.manual_seed(config["seed"])
        learning = build_learning_parts(config, task)
        outputs = agent.outputs_of(config, learning.objectives)
        policy = agent.build_policy(config, task, learning.head, outputs, device)
        self._collected, self._accumulator = Collected(), Accumulator(device)
        actor = Actor(task.env, policy, learning.exploration, self._collected, self._accumulator)
        return Player(actor, learning.exploration, self.steps)


def remote_actors(config: Config, choices: Mapping[str, Any] | None) -> MakeRemote:
    """Gives, at each call, the class of one more remote actor and its arguments; each has random streams of its own."""
    numbers = itertools.count(1)

    def one_more(count: int, device: str, steps: int | None) -> tuple[type, tuple[Any, ...]]:
        env = config["env"]
        own = config | {
            "env": env | {"num_envs": env["num_envs"] // count}, "device": device,
            "seed": config["seed"] + next(numbers) * SEEDS_APART,
        }  # fmt: skip
        return RemoteActor, (own, dict(choices or {}), steps, os.getcwd(), list(sys.path), sorted(permitted()))

    return one_more
