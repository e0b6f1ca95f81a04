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
from dqnlm.types import Batch


class Demonstrations:
    """Samples demonstrations.

    Args:
        env: makes the rows, by `Environment.demonstrate`.
        generator: samples the references, on the environment's device.
        gamma: discount of one decision.
        share: fraction of demonstrations in each mixed batch, in [0, 1).
    """

    def __init__(self, env: Environment, generator: torch.Generator, gamma: float, share: float) -> None:
        self.env, self.generator, self.gamma, self.share = env, generator, gamma, share

    def batch(self, count: int, judged: bool) -> Batch:
        """`count` rows; their rewards are 0 unless `judged`."""
        rows = self.env.demonstrate(count, self.generator, judged)
        assert rows is not None, "refused before it trains: see part_checks"
        return Batch.from_rows(rows, self.gamma, self.env.spec.first_decision)

    def num_rows(self, batch_rows: int) -> int:
        """Demonstrations in a batch of so many rows; at least one row stays experience."""
        return min(round(self.share * batch_rows), batch_rows - 1)

    def state(self) -> Tensor:
        """State of the generator."""
        return self.generator.get_state()

    def load_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


class WarmStart:
    """Behaviour-cloning pretraining of the output that the policy acts by, before the first round of the run.

    Args:
        cloner: a learner of the same network, with the objective `cross_entropy` and an optimizer of its own.
        demonstrations: the rows that are cloned.
        updates: gradient steps in all.
        rows: demonstrations in each.
    """

    def __init__(self, cloner: Learner, demonstrations: Demonstrations, updates: int, rows: int) -> None:
        self.cloner, self.demonstrations, self.updates, self.rows = cloner, demonstrations, updates, rows

    def advance(self, updates: int) -> bool:
        """Up to so many gradient steps, fewer where fewer remain.

        Returns:
            True when no step remains.
        """
        for _ in range(min(updates, self.updates - self.cloner.updates)):
            batch = self.demonstrations.batch(self.rows, judged=False)
            self.cloner.update(batch.trim() if self.demonstrations.env.spec.variable_length else batch)
        return self.cloner.updates == self.updates

    def state_dict(self) -> dict[str, Any]:
        state = self.cloner.state_dict()
        del state["network"]  # saved with the policy
        return {"cloner": state, "generator": self.demonstrations.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        network = self.cloner.network.state_dict()
        self.cloner.load_state_dict(state["cloner"] | {"network": network})
        self.demonstrations.load_state(state["generator"])
