"""Maps code locations in saved runs of earlier versions to the current ones."""

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


def renewed(node: Any) -> Any:
    """A saved configuration with each `_target_` at its current location; everything else is unchanged."""
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
    return found
