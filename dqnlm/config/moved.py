"""Moved targets, renamed settings and renamed metrics: maps old names in saved runs and commands to the new ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
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

# Setting of then -> setting of now. Typed by a user, the old name is answered with the new one.
SETTINGS = {
    "learner.gamma": "gamma",
    "learner.feedback": "feedback",
    "learner.reference_weight": "learner.kl_weight",
    "learner.reference_temperature": "learner.kl_temperature",
    "learner.rows_at_once": "learner.micro_batch_size",
    "env.copies_of_a_prompt": "env.samples_per_prompt",
    "env.copies": "env.guesses_per_position",
    "trainer.batch_rows": "trainer.batch_size",
    "trainer.demonstration_share": "trainer.demonstration_fraction",
    "trainer.warm_start_updates": "pretraining.updates",
    "trainer.warm_start_lr": "pretraining.lr",
    "trainer.warm_start_rows": "pretraining.batch_size",
    "trainer.init_from": "pretraining.init_from",
    "trainer.init_scale": "pretraining.init_scale",
    "trainer.evaluate_every": "evaluation.every",
    "trainer.best_metric": "evaluation.best_metric",
    "trainer.early_stopping_evaluations": "evaluation.patience",
    "trainer.samples": "evaluation.samples",
    "trainer.sample_tokens": "evaluation.sample_tokens",
    "trainer.sample_temperature": "evaluation.sample_temperature",
    "trainer.evaluation_episodes": "evaluation.episodes",
    "trainer.betas": "evaluation.betas",
    "trainer.save_every": "checkpoint.every",
    "trainer.save_minutes": "checkpoint.minutes",
    "trainer.keep_last": "checkpoint.keep_last",
    "trainer.declared_policy": "policy.kind",
    "trainer.beta": "policy.beta",
    "trainer.progress": "progress",
}

# Renamed settings of a part that may stand anywhere, such as within a mixture: its target -> {setting of then: of now}.
PARAMETERS = {
    "dqnlm.rewards.causal_model.CausalModel": {"batch_rows": "batch_size"},
    "dqnlm.rewards.classifier.Classifier": {"batch_rows": "batch_size"},
}

# Values of settings that have new names.
VALUES = {("objective.trajectory.baseline", "siblings"): "group"}

# Groups that did not exist, with their targets.
GROUPS = {
    "evaluation": "dqnlm.evaluation.settings.EvaluationSettings",
    "checkpoint": "dqnlm.runs.settings.CheckpointSettings",
    "pretraining": "dqnlm.agent.settings.PretrainingSettings",
    "policy": "dqnlm.agent.settings.PolicySettings",
}

# Settings that did not exist when a node was saved -> the value that does what was done then.
ADDED: dict[str, dict[str, Any]] = {
    "dqnlm.data.text.corpora.build_tiny_shakespeare": {"test_fraction": 0.0, "characters": None, "unseen_bytes": True},
    "dqnlm.data.text.corpora.build_text_file": {"test_fraction": 0.0, "characters": None, "unseen_bytes": True},
    "dqnlm.data.text.corpora.build_bundled": {"test_fraction": 0.0, "unseen_bytes": True},
    "dqnlm.data.text.corpora.build_hub": {"test_fraction": 0.0, "characters": None, "unseen_bytes": True},
    "dqnlm.data.trajectories.dataset.maze_log": {"max_steps": 100},
    "dqnlm.data.trajectories.dataset.random_walks_log": {"nodes": 21, "max_nodes": 10, "out_degree": None, "walks": 1000},
    "dqnlm.envs.gymnasium_env.Gymnasium": {"path": None, "observation_scale": None},
    "dqnlm.partners.wordle.Wordle": {"legal_words": False},
    "dqnlm.envs.maze.Maze": {"start_distance": 1},
    "dqnlm.envs.random_walks.RandomWalks": {"nodes": 21, "max_nodes": 10, "out_degree": None},
    "dqnlm.data.trajectories.dataset.trajectories": {"pair_rewards": [1.0, 0.0], "ratings": None, "limit": None},
    "dqnlm.data.trajectories.log.logged": {
        "pair_rewards": [1.0, 0.0], "ratings": None, "assistant_turns": "every", "test_path": None, "test_fraction": 0.0,
        "rewards": None, "reward_weights": None, "limit": None,
    },
    "dqnlm.data.prompts.dataset.prompts": {"test_path": None, "test_fraction": 0.0, "limit": None},
    "dqnlm.heads.categorical.Categorical": {"temperature": None},
    "dqnlm.networks.pretrained.Pretrained": {
        "train_output_layer": True, "dtype": "float32", "gradient_checkpointing": False, "shard": False,
    },
}

# Beginning of a metric's name of then -> of now.
METRICS = {"eval/nats": "eval/nll", "loss/warm_start": "loss/pretraining"}


def new_name(key: str, target: str = "") -> str | None:
    """Today's name of a setting of then, by its dotted key, or by the `_target_` that it stands beside; None: it has none."""
    parent, _, name = key.rpartition(".")
    renamed = PARAMETERS.get(target, {}).get(name)
    return SETTINGS.get(key) if renamed is None else f"{parent}.{renamed}"


_WITH_PLACE = ("dqnlm.buffers.uniform.UniformBuffer", "dqnlm.buffers.prioritized.PrioritizedBuffer")


def renewed_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The saved configuration of any earlier version, in today's names; one of today is returned as it is."""
    found = renewed_targets(copy.deepcopy(dict(config)))
    for old, new in SETTINGS.items():
        _move(found, old.split("."), new.split("."))
    for (setting, old), new in VALUES.items():
        *path, name = setting.split(".")
        node = _node(found, path)
        if node is not None and node.get(name) == old:
            node[name] = new
    found.setdefault("max_rounds", None)
    found.setdefault("at_most", {})
    if isinstance(found.get("trainer"), dict):
        found["trainer"].setdefault("preflight", False)
    if isinstance(found.get("learner"), dict):
        found["learner"].setdefault("record", True)
    buffer = _node(found, ["buffer"])
    if buffer is not None and str(buffer.get("_target_")) in _WITH_PLACE:
        buffer.setdefault("place", "device")
    if isinstance(found.get("policy"), dict):
        found["policy"].setdefault("acting_q", "min")
        found["policy"].setdefault("temperature", None)
        found["policy"].setdefault("weights", None)
    found.setdefault("actors", {"_target_": "dqnlm.training.acting.Own"})
    evaluation = _node(found, ["evaluation"]) or {}
    if isinstance(evaluation.get("best_metric"), str):
        evaluation["best_metric"] = renewed_metric(evaluation["best_metric"])
    return found


def renewed_metric(name: str) -> str:
    """A metric's name of today."""
    return next((new + name.removeprefix(old) for old, new in METRICS.items() if name.startswith(old)), name)


def renewed_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by their names of today."""
    return {renewed_metric(name): value for name, value in metrics.items()}


def _move(config: dict[str, Any], old: list[str], new: list[str]) -> None:
    """Moves one setting, if it is there under its old name; makes a group that did not exist."""
    source = _node(config, old[:-1])
    if source is None or old[-1] not in source:
        return
    value, group = source.pop(old[-1]), config
    if len(new) > 1:
        group = config.setdefault(new[0], {"_target_": GROUPS[new[0]]} if new[0] in GROUPS else {})
    if isinstance(group, dict):  # else whoever validates it says so
        group[new[-1]] = value


def _node(config: dict[str, Any], path: list[str]) -> dict[str, Any] | None:
    node: Any = config
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None


def renewed_targets(node: Any) -> Any:
    """A saved configuration with each `_target_` at its current location; everything else is unchanged."""
    if isinstance(node, list):
        return [renewed_targets(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: renewed_targets(value) for key, value in node.items()}
    module, _, name = str(found.get("_target_", "")).rpartition(".")
    if module in MODULES:
        found["_target_"] = f"{MODULES[module]}.{name}"
    if str(found.get("_target_")) in TARGETS:
        found["_target_"] = TARGETS[str(found["_target_"])]
    renamed = PARAMETERS.get(str(found.get("_target_")), {})
    return ADDED.get(str(found.get("_target_")), {}) | {renamed.get(key, key): value for key, value in found.items()}
