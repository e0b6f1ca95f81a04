"""What the groups of a configuration were set to."""

from __future__ import annotations

from typing import Any

from dqnlm.catalogue import option_of

Config = dict[str, Any]


def kind(node: Config) -> str:
    """The last part of `_target_`: what a group was set to, in code."""
    return str(node["_target_"]).rsplit(".", 1)[-1]


def named(config: Config, group: str) -> str:
    """What a group was set to, as it is typed."""
    return option_of(group, config[group]["_target_"])


def pays_only_the_match(reward: Config) -> bool:
    """Whether a reward is 1 for the text's own token and 0 for any other, so that its mean is a probability."""
    return kind(reward) == "ExactMatch" and (reward["match"], reward["mismatch"]) == (1, 0)
