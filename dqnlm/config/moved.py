"""Where the parts of saved runs are found now: runs of earlier versions name them by the places of then."""

from __future__ import annotations

from typing import Any

# Module of then -> module of now, for `_target_`; the name after the last dot is the same.
MODULES = {
    "dqnlm.bootstraps": "dqnlm.objectives.bootstrap",
    "dqnlm.data.corpora": "dqnlm.data.text.corpora",
    "dqnlm.data.logs": "dqnlm.data.trajectories.log",
    "dqnlm.data.pairs": "dqnlm.data.pairs.dataset",
    "dqnlm.data.trajectories": "dqnlm.data.trajectories.dataset",
    "dqnlm.exploration": "dqnlm.agent.exploration",
    "dqnlm.learner": "dqnlm.agent.learner",
    "dqnlm.multistep": "dqnlm.objectives.returns",
    "dqnlm.optimization": "dqnlm.agent.optimizer",
    "dqnlm.rewards.overlap": "dqnlm.rewards.reference_metrics",
    "dqnlm.rewards.wording": "dqnlm.rewards.text_statistics",
    "dqnlm.target": "dqnlm.agent.target",
    "dqnlm.trainer": "dqnlm.training.trainer",
}

# Class or function of then -> that of now, both in today's modules; its settings are the same.
TARGETS = {
    "dqnlm.objectives.td.TemporalDifference": "dqnlm.objectives.td.td",
}

# Target of today -> settings that it did not have when a run may have been saved, with the values that mean what was then.
ADDED: dict[str, dict[str, Any]] = {
    "dqnlm.envs.gymnasium_env.Gymnasium": {"path": None},
}


def renewed(node: Any) -> Any:
    """A saved configuration with each `_target_` where it is now, and settings that came later; everything else as it was."""
    if isinstance(node, list):
        return [renewed(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: renewed(value) for key, value in node.items()}
    module, _, name = str(found.get("_target_", "")).rpartition(".")
    if module in MODULES:
        found["_target_"] = f"{MODULES[module]}.{name}"
    if found.get("_target_") in TARGETS:
        found["_target_"] = TARGETS[found["_target_"]]
    return ADDED.get(str(found.get("_target_")), {}) | found
