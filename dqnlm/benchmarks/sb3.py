"""stable-baselines3's DQN on the same footing as ours: the same transformer, teacher-forced exact match on the same text.

Its replay buffer holds windows of 64 tokens, one transition each; a gradient step is a batch of windows, each read whole
for the Q-values of its last position. That is what a library without sequence models does with text.
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from dqnlm.benchmarks.runs import SMALL, TEXT, built
from dqnlm.benchmarks.timing import Row
from dqnlm.data.text.bundled import write_plays
from dqnlm.networks.base import QNetwork

WINDOW = 64
DECISIONS = 640  # that stable-baselines3 is timed on, after its warm-up


class GuessNext(gymnasium.Env[Any, Any]):
    """Observation: the last 64 tokens; action: a guess of the next; reward 1 if right; the text goes on as it is."""

    def __init__(self, ids: np.ndarray, actions: int) -> None:
        self.ids, self.at = ids, 0
        self.observation_space = gymnasium.spaces.Box(0, actions - 1, (WINDOW,), np.int64)
        self.action_space = gymnasium.spaces.Discrete(actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(len(self.ids) - 3 * WINDOW))
        self.end = self.at + WINDOW
        return self.ids[self.at : self.at + WINDOW], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.ids[self.at + WINDOW])
        self.at += 1
        return self.ids[self.at : self.at + WINDOW], reward, self.at == self.end, False, {}


class Features(BaseFeaturesExtractor):
    """Our encoder and body, read at the last position."""

    def __init__(self, space: gymnasium.spaces.Box, network: QNetwork) -> None:
        super().__init__(space, network.body.features)
        self.encoder, self.body = copy.deepcopy(network.encoder), copy.deepcopy(network.body)

    def forward(self, observations: Tensor) -> Tensor:
        return self.body(self.encoder(observations.long()), observations.shape[1] - 1)[:, -1]


def row(rounds: int) -> Row:
    """Transitions that enter updates in a second: an update of 16 x 64 of ours, and theirs, acting included."""
    with built(*TEXT, SMALL, "device=cpu", "gamma=0.5", "trainer.batch_size=16") as run:
        run.train_round(run.phase)
        parts, times = run.components, []
        for _ in range(rounds):
            started = time.perf_counter()
            parts.learner.update(parts.buffer.sample(16))
            times.append(time.perf_counter() - started)
        ours, peer = 16 * WINDOW / statistics.median(times), transitions_per_second(parts.policy.network, DECISIONS)
    return Row("peer", "transitions trained a second: ours / stable-baselines3", ours, peer, "/s", ours / peer, ">= 50")


def transitions_per_second(network: QNetwork, decisions: int) -> float:
    """Transitions that enter gradient steps a second, acting included: batch 64, one update for four decisions."""
    text = write_plays(50_000, 0)
    kinds = sorted(set(text))
    ids = np.array([kinds.index(c) for c in text])
    model = DQN(
        "MlpPolicy", GuessNext(ids, len(kinds)), learning_starts=128, batch_size=64, train_freq=4, gradient_steps=1,
        buffer_size=10_000, seed=0, device="cpu",
        policy_kwargs={"features_extractor_class": Features, "features_extractor_kwargs": {"network": network}, "net_arch": []},
    )  # fmt: skip
    model.learn(128 + 32)
    started, updates = time.perf_counter(), model._n_updates
    model.learn(decisions, reset_num_timesteps=False)
    return (model._n_updates - updates) * 64 / (time.perf_counter() - started)
