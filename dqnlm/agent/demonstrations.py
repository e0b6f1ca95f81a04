"""Demonstrations: rows sampled from the data, used for behaviour-cloning pretraining and mixed into replay batches.

A demonstration is a row of the task in which every decision is the reference's, rewarded as the agent's would be. Under
`transition: free` the state after it holds these very tokens, so the choice depends on nothing hidden, and the row is
ordinary off-policy experience. Under `teacher` it would not be: `builder.checks` refuses that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dqnlm.agent.learner import Learner
from dqnlm.envs.base import Environment
from dqnlm.networks.fixed_weights import changing_state
from dqnlm.types import Batch


class Demonstrations:
    """Samples demonstrations.

    Args:
        env: makes the rows, by `Environment.demonstrate`.
        generator: samples the references, on the environment's device.
        gamma: discount of one decision.
    """

    def __init__(self, env: Environment, generator: torch.Generator, gamma: float) -> None:
        self.env, self.generator, self.gamma = env, generator, gamma

    def batch(self, count: int, with_rewards: bool) -> Batch:
        """`count` rows; their rewards are 0 unless `with_rewards`."""
        rows = self.env.demonstrate(count, self.generator, with_rewards)
        assert rows is not None, "refused before it trains: see part_checks"
        return Batch.from_rows(rows, self.gamma, self.env.spec.first_decision)

    def state(self) -> Tensor:
        """State of the generator."""
        return self.generator.get_state()

    def load_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


class Pretraining:
    """Behaviour-cloning pretraining of the output that the policy acts by, before the first round of the run.

    Args:
        learner: of the same network, with the objective `cross_entropy` and an optimizer of its own.
        demonstrations: the rows that are cloned.
        updates: gradient steps in all.
        batch_size: demonstrations in each.
    """

    def __init__(self, learner: Learner, demonstrations: Demonstrations, updates: int, batch_size: int) -> None:
        self.learner, self.demonstrations, self.updates, self.batch_size = learner, demonstrations, updates, batch_size

    def state_dict(self) -> dict[str, Any]:
        state = self.learner.state_dict()
        del state["network"]  # saved with the policy
        return {"cloner": state, "generator": self.demonstrations.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        network = changing_state(self.learner.network)
        self.learner.load_state_dict(state["cloner"] | {"network": network})
        self.demonstrations.load_state(state["generator"])
