"""Builds the phases of a run from its settings."""

from __future__ import annotations

import math
from collections.abc import Callable

from dqnlm.training.components import Components
from dqnlm.training.phases import DemonstrationSampler, Phase, ReplaySampler


def build_phases(
    components: Components,
    rollouts: int,
    offline_rounds: int,
    batch_size: int,
    demonstration_fraction: float,
    updates_per_round: int,
    learning_starts: int,
) -> list[Phase]:
    """The phases that have at least one round, in their order; arguments: see `Trainer`."""
    trims, learner = components.task.spec.variable_length, components.learner
    phases, begun = [], 0
    if components.pretraining is not None:
        cloner, updates = components.pretraining.learner, components.pretraining.updates
        begun = math.ceil(updates / updates_per_round)
        sampler = DemonstrationSampler(components.pretraining.demonstrations, components.pretraining.batch_size, trims)
        phases.append(
            Phase(
                "pretraining", 0, begun, cloner, sampler, lambda: min(updates_per_round, updates - cloner.updates),
                finish=learner.sync_target_and_reference,
            )
        )  # fmt: skip
    replay = ReplaySampler(
        components.buffer, components.demonstrations, demonstration_fraction, batch_size, trims, begun,
        max(offline_rounds + rollouts, 1),
    )  # fmt: skip

    def num_updates() -> int:
        """None before there is something to learn from."""
        starts = bool(components.logged_rows) or components.env_steps >= learning_starts
        return updates_per_round if starts else 0

    if offline_rounds:
        phases.append(Phase("offline", begun, offline_rounds, learner, replay, num_updates))
    if rollouts:
        first = begun + offline_rounds
        phases.append(Phase("online", first, rollouts, learner, replay, num_updates, rollout=_rollout(components)))
    return phases


def _rollout(components: Components) -> Callable[[float], None]:
    """Plays one rollout at some progress of the phase."""
    acting = components.acting
    assert acting is not None, "refused before: a run that plays has something to play"

    def play(progress: float) -> None:
        acting.play(progress)
        components.count_env_steps()
        components.buffer.begin()

    return play
