"""Who plays the rollouts of a run: its own process, between its updates, or others beside it (`ray_actors`)."""

from __future__ import annotations

from dqnlm.agent.actor import Actor
from dqnlm.agent.exploration import Exploration
from dqnlm.training.components import Components
from dqnlm.training.phases import Acting, MakeRemote


class Player:
    """Plays rollouts with one actor; its exploration follows the course of the run.

    Args:
        actor: plays.
        exploration: of the actor.
        steps: decisions of each environment in a rollout; None for whole episodes.
    """

    def __init__(self, actor: Actor, exploration: Exploration, steps: int | None) -> None:
        self.actor, self.exploration, self.steps = actor, exploration, steps

    def play(self, progress: float) -> None:
        """One rollout, at this progress of the online phase in [0, 1)."""
        # Read from the device only where a schedule asks for it.
        episodes = float(self.actor.episodes) / self.actor.env.num_envs if self.exploration.counts_episodes else 0.0
        self.exploration.advance(progress, episodes)
        self.actor.rollout(self.steps)


class Own(Acting):
    """The run's own process plays."""

    def __init__(self, components: Components, steps: int | None, remote: MakeRemote) -> None:
        del remote  # nobody else plays
        assert components.actor is not None, "refused before: a run that plays has something to play"
        self.player = Player(components.actor, components.exploration, steps)

    def play(self, progress: float) -> None:
        self.player.play(progress)
