"""Meaning of Q under a run's objectives: a return, its units, or only a preference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dqnlm.objectives.base import Objective
from dqnlm.types import TaskSpec

Config = dict[str, Any]
Objectives = Mapping[str, Objective]

_ONLY_DIFFERENCES = "only differences within a position mean anything"


def learns_returns(objectives: Objectives) -> bool:
    """Whether an objective makes Q estimate returns."""
    return any(objective.learns_returns for objective in objectives.values())


def why_q_is_no_expected_return(config: Config, objectives: Objectives) -> str | None:
    """The reason why Q is not the expected return, as a sentence; None where it is, in whatever units.

    Soft values count as returns: the entropy is a part of what they predict.
    """
    if not learns_returns(objectives):
        return (
            f"No objective of this run ({', '.join(objectives)}) learns returns: Q is a preference, a logit of the actions that "
            f"the run has copied, and {_ONLY_DIFFERENCES}."
        )
    for name, objective in objectives.items():
        if objective.leaves_level_open:
            return (
                f"Objective {name} compares the answers to a prompt with each other (baseline=group), which leaves Q open by "
                f"a number in each state: {_ONLY_DIFFERENCES}."
            )
    if config["head"].get("temperature") is not None:
        return (
            "Q is eta log E exp(Z / eta) of the distribution of returns Z that the head predicts (head.temperature), which lies "
            "above their mean."
        )
    if config["learner"]["kl_weight"] > 0 or any(o.requires.reference for o in objectives.values()):
        return "Q holds log-probabilities of the policy that the run began with beside the rewards."
    return None


def notes_on_paths(objectives: Objectives, spec: TaskSpec, env: str) -> list[str]:
    """A note for each objective that assumes a deterministic task, where this one is random or may be (Nachum et al. 2017)."""
    if spec.deterministic:
        return []
    return [
        f"objective {name} sums over whole paths, which is right in deterministic tasks alone. With env={env} the next "
        "observation does not follow from the actions, and the policy learned is biased by luck; with "
        "algorithm=path_consistency objective.path_consistency.n=1 it is not"
        for name, objective in objectives.items()
        if objective.assumes_determinism
    ]


def why_q_is_not_in_reward_units(config: Config, objectives: Objectives) -> str | None:
    """The reason why Q is no return in the units of the reward, as a sentence; None where it is."""
    scaling = config["data"].get("reward_scaling", "none")
    scaled = f"Q is in the units that data.reward_scaling={scaling} left, not in the rewards'."
    return why_q_is_no_expected_return(config, objectives) or (None if scaling == "none" else scaled)


def reads_reference(config: Config) -> bool:
    """Whether the run keeps the network as it was at the start of reinforcement learning."""
    referred = any(node.get("reference") == "start" for node in config["objective"].values())
    return bool(config["learner"]["kl_weight"]) or referred
