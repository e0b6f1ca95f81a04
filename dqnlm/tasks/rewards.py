"""Builds a reward from its settings."""

from __future__ import annotations

from typing import Any

from dqnlm.config.schema import instantiate_with
from dqnlm.rewards.base import Reward


def build_reward(node: dict[str, Any], dependencies: dict[str, Any]) -> Reward:
    """Builds a reward with the dependencies it names: device, num_actions, tokenizer, eos_id, train_ids; mixtures recursively.

    Raises:
        UserError: it names a dependency that this run does not have, or refuses a setting.
    """
    given: dict[str, Any] = dict(dependencies)
    given["build_part"] = lambda part: build_reward(part, given)
    reward: Reward = instantiate_with(node, given, "reward")
    return reward
