"""What the groups of a configuration were set to."""

from __future__ import annotations

from typing import Any

from dqnlm.config.catalogue import option_of

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


LEARN_RETURNS = ("td", "path_consistency", "trajectory")  # objectives after which Q is a return


def learns_returns(config: Config) -> bool:
    """Whether an objective makes Q follow the returns."""
    return bool(set(LEARN_RETURNS) & set(config["objective"]))


def why_q_promises_nothing(config: Config) -> str | None:
    """Why Q is not the return that is to be expected, as a sentence; None where it is, in whatever units.

    Soft values count as returns: the entropy that they are paid for is a part of what they promise.
    """
    objectives, only_differences = config["objective"], "only differences within a position mean anything"
    if not learns_returns(config):
        return (
            f"No objective of this run ({', '.join(objectives)}) learns returns: Q is a preference, a logit of the actions that "
            f"the run has copied, and {only_differences}."
        )
    if any(settings.get("baseline") == "siblings" for settings in objectives.values()):
        return (
            "The answers to a prompt are compared with each other (objective.trajectory.baseline=siblings), which leaves Q open "
            f"by a number in each state: {only_differences}."
        )
    if config["learner"]["reference_weight"] > 0 or any(o.get("reference") == "start" for o in objectives.values()):
        return "Q holds log-probabilities of the policy that the run began with beside the rewards."
    return None


def why_q_is_no_return(config: Config) -> str | None:
    """Why Q cannot be compared with the return in the units of the reward, as a sentence; None where it can."""
    scaling = config["data"].get("reward_scaling", "none")
    scaled = f"Q is in the units that data.reward_scaling={scaling} left, not in the rewards'."
    return why_q_promises_nothing(config) or (None if scaling == "none" else scaled)
