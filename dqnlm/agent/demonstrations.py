"""What the text itself would have said: cloned before trial and error begins, or mixed into its batches.

A demonstration is a row of the task in which every decision is the reference's, paid as the agent's would be. Under
`transition: free` the state after it holds these very tokens, so the choice depends on nothing hidden, and the row is
ordinary off-policy experience. Under `teacher` it would not be: see `checks`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dqnlm.agent.learner import Learner
from dqnlm.envs.base import Environment
from dqnlm.types import Batch


class Demonstrations:
    """Draws rows of references.

    Args:
        env: whose task it is, through `Environment.demonstrate`.
        generator: draws the references, on the environment's device.
        gamma: discount of one decision.
        share: of the rows of each mixed batch, in [0, 1).
    """

    def __init__(self, env: Environment, generator: torch.Generator, gamma: float, share: float) -> None:
        self.env, self.generator, self.gamma, self.share = env, generator, gamma, share

    def batch(self, count: int, judged: bool) -> Batch:
        """`count` rows; their rewards are 0 unless `judged`."""
        rows = self.env.demonstrate(count, self.generator, judged)
        assert rows is not None, "refused before it trains: see part_checks"
        return Batch.from_rows(rows, self.gamma, self.env.spec.first_decision)

    def mixed(self, own: int) -> int:
        """How many of `own` rows of a batch are replaced by demonstrations; at least one row stays experience."""
        return min(round(self.share * own), own - 1)

    def state(self) -> Tensor:
        """Of the generator."""
        return self.generator.get_state()

    def load_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


class WarmStart:
    """Behaviour cloning of the references, into the output that the policy acts by, before the first round of the run.

    Args:
        cloner: a learner of the same network, with the objective `cross_entropy` and an optimizer of its own.
        demonstrations: what is cloned.
        updates: gradient steps.
        rows: references in each.
    """

    def __init__(self, cloner: Learner, demonstrations: Demonstrations, updates: int, rows: int) -> None:
        self.cloner, self.demonstrations, self.updates, self.rows = cloner, demonstrations, updates, rows

    def advance(self, updates: int) -> bool:
        """Some gradient steps, fewer at the end; True when they were the last."""
        for _ in range(min(updates, self.updates - self.cloner.updates)):
            batch = self.demonstrations.batch(self.rows, judged=False)
            self.cloner.update(batch.trim() if self.demonstrations.env.spec.variable_length else batch)
        return self.cloner.updates == self.updates

    def state_dict(self) -> dict[str, Any]:
        state = self.cloner.state_dict()
        del state["network"]  # stands in the policy
        return {"cloner": state, "generator": self.demonstrations.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        network = self.cloner.network.state_dict()
        self.cloner.load_state_dict(state["cloner"] | {"network": network})
        self.demonstrations.load_state(state["generator"])
