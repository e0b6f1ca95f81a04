"""What the text itself would have said: cloned before trial and error begins, or mixed into its batches.

A demonstration is a row of the task in which every decision is the reference's, paid as the agent's would be. Under
`transition: free` the state after it holds these very tokens, so the choice depends on nothing hidden, and the row is
ordinary off-policy experience. Under `teacher` it would not be: see `checks`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dqnlm.envs.base import Environment
from dqnlm.learner import Learner
from dqnlm.types import DECISION, Batch, Rows, discount_from_flags


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
        return batch_of(rows, self.gamma, self.env.first_decision)

    def mixed(self, own: int) -> int:
        """How many of `own` rows of a batch are replaced by demonstrations; at least one row stays experience."""
        return min(round(self.share * own), own - 1)

    def state(self) -> Tensor:
        """Of the generator."""
        return self.generator.get_state()

    def load_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


def batch_of(rows: Rows, gamma: float, first: int) -> Batch:
    """Whole rows as a batch in which all decisions learn, each row with weight 1.

    Args:
        rows: right-padded rows on the device.
        gamma: discount of one decision.
        first: no row has a decision before this time.
    """
    count, device = len(rows.length_B), rows.length_B.device
    return Batch(
        rows.observation_BS.long(), rows.action_BT.long(), rows.reward_BT,
        discount_from_flags(rows.flag_BT, rows.length_B, gamma), ((rows.flag_BT & DECISION) != 0).float(), rows.length_B,
        torch.ones(count, device=device), torch.full((count,), -1, device=device), first,
    )  # fmt: skip


def trimmed(batch: Batch) -> Batch:
    """The same rows without what all of them lack: padding at the end, and decisions before the first that one has.

    Prompts and answers have lengths of their own, and most are far from the longest, or the shortest, that there could be.
    Asks the host for the two times.
    """
    first_B = (batch.mask_BT > 0).float().argmax(1)
    longest, first = torch.stack([batch.length_B.max(), first_B.min()]).tolist()
    longest, first = max(longest, batch.first + 1), max(first, batch.first)
    width = {name: longest for name in ("action_BT", "reward_BT", "discount_BT", "mask_BT", "learn_BT")}
    fields: dict[str, Any] = dict(vars(batch)) | {"first": first}
    for name, times in (width | {"observation_BS": longest + 1}).items():
        fields[name] = None if fields[name] is None else fields[name][:, :times]
    return Batch(**fields)


def joined(one: Batch, other: Batch) -> Batch:
    """Rows of both, in this order; both of the same width, without copies or single learned decisions."""
    fields: dict[str, Any] = {
        name: torch.cat([value, getattr(other, name)]) for name, value in vars(one).items() if isinstance(value, Tensor)
    }
    return Batch(**fields, first=min(one.first, other.first))


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
            self.cloner.update(trimmed(batch) if self.demonstrations.env.uneven else batch)
        return self.cloner.updates == self.updates

    def state_dict(self) -> dict[str, Any]:
        state = self.cloner.state_dict()
        del state["network"]  # stands in the policy
        return {"cloner": state, "generator": self.demonstrations.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        network = self.cloner.network.state_dict()
        self.cloner.load_state_dict(state["cloner"] | {"network": network})
        self.demonstrations.load_state(state["generator"])
