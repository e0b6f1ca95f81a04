"""One objective for each of several rewards: every reward has outputs of its own, on the same features.

    loss_t = sum over rewards i of loss_t(q_i, q2_i, v_i; r_i)

The objective within sees one reward and outputs called `q`, `q2` and `v`, as in any other run, so every objective that learns
values from the rewards of actions can be used, and Q_i is exactly what a run on reward i alone would learn on these features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch

from dqnlm.errors import UserError
from dqnlm.networks.deferred import DeferredOutputs
from dqnlm.objectives.base import LossOutput, Objective, Outputs
from dqnlm.types import Decisions
from dqnlm.utils.context import RunContext
from dqnlm.utils.output_names import VALUES, named, of_reward, suffix


class PerReward(Objective):
    """The module's loss.

    Args:
        objective: of one reward.
        rewards: names; `reward_BT` of a batch has them as a last axis, in this order.
    """

    def __init__(self, objective: Objective, rewards: Sequence[str]) -> None:
        super().__init__(objective.weight)
        self.objective, self.rewards = objective, tuple(rewards)
        needed = dict.fromkeys(("q", *objective.requires.outputs))
        outputs = dict.fromkeys(named(name, reward) for name in needed for reward in rewards)
        self.requires = replace(objective.requires, outputs=tuple(outputs))
        self.learns_outputs = objective.learns_outputs
        self.learns_returns, self.learns_all_actions = objective.learns_returns, objective.learns_all_actions
        self.uses_bootstrap, self.adds_entropy = objective.uses_bootstrap, objective.adds_entropy
        self.clones_actions, self.reads_in_full = objective.clones_actions, objective.reads_in_full
        self.leaves_level_open, self.assumes_determinism = objective.leaves_level_open, objective.assumes_determinism

    def check(self, context: RunContext) -> None:
        self.objective.check(context)

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_BT (or loss_B), the sum over the rewards; the metrics of each; the mean of their absolute errors."""
        found = {}
        for place, reward in enumerate(self.rewards):
            own = replace(batch, reward_BT=batch.reward_BT[..., place])
            of_target = None if target is None else _of_reward(target, reward)
            of_reference = None if reference is None else _of_reward(reference, reward)
            found[reward] = self.objective(_of_reward(online, reward), of_target, own, of_reference)
        metrics = {f"{name}_{suffix(reward)}": x for reward, one in found.items() for name, x in one.metrics.items()}
        errors = [one.error_BT.abs() for one in found.values() if one.error_BT is not None]
        error_BT = torch.stack(errors).mean(0) if errors else None
        return LossOutput(reduce(torch.add, [one.loss_BT for one in found.values()]), metrics, error_BT)


def _of_reward(outputs: Outputs, reward: str) -> Outputs:
    if isinstance(outputs, DeferredOutputs):
        return outputs.renamed({named(name, reward): name for name in VALUES})
    return of_reward(outputs, reward)


def for_rewards(objectives: dict[str, Objective], rewards: Sequence[str]) -> dict[str, Objective]:
    """The objectives of a run with these rewards (none: one reward); what learns no value is applied once.

    Raises:
        UserError: one of them makes Q something else than a return, so that a sum over rewards means nothing.
    """
    if not rewards:
        return objectives
    found: dict[str, Objective] = {}
    for name, objective in objectives.items():
        if not set(objective.learns_outputs) & set(VALUES):
            found[name] = objective
            continue
        why = "clones actions into q" if objective.clones_actions else "adds the entropy of one reward's own policy to its return"
        if objective.clones_actions or objective.adds_entropy:
            raise UserError(
                f"objective {name} {why}, and data.rewards learns a Q for each of {', '.join(rewards)}, which are added up when "
                "the run acts: use td, expectile_value and conservative (algorithm=ilql_lambda), or learn one reward, "
                f"data.rewards=null 'data.reward_weights={{{', '.join(f'{reward}: 1' for reward in rewards)}}}'"
            )
        found[name] = PerReward(objective, rewards)
    return found
