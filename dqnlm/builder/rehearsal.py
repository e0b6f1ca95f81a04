"""All that a run does before its first update, without its folder and without the weights of pretrained models.

The data are read whole, every part is built, and all checks between parts are made, by the code that starts runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dqnlm.builder import agent, launch
from dqnlm.builder.checks.learner import check_learning
from dqnlm.builder.checks.settings import check_settings
from dqnlm.builder.learning_parts import build_learning_parts
from dqnlm.config.schema import instantiate
from dqnlm.rewards.pretrained import without_weights
from dqnlm.runs.directory import RunDirectory
from dqnlm.tasks.base import Task, build_data
from dqnlm.tasks.select import task_class
from dqnlm.training import summary
from dqnlm.utils import user_code
from dqnlm.utils.failures import explain_memory_error
from dqnlm.utils.weight_files import require_readable

Config = dict[str, Any]
QUIET = {"logger": {"_target_": "dqnlm.metrics.NoLogger"}, "progress": False}  # nothing is sent, and nobody waits
UPDATES = "an update and an evaluation (a run tries both, in small, before its first update)"


@dataclass(frozen=True)
class Rehearsal:
    """What was found.

    Attributes:
        facts: (label, text) of data, environment and network, and notes.
        untried: what only the run itself will try.
    """

    facts: list[tuple[str, str]]
    untried: list[str]


def rehearse(config: Config, choices: Mapping[str, Any]) -> Rehearsal:
    """Checks a validated configuration.

    Raises:
        UserError: what would have ended the run at its start.
    """
    with explain_memory_error(), user_code.explaining(), without_weights():
        instantiate(config["logger"], Path("unused"), None, config)  # refuses where its package is not installed
        quiet = config | QUIET
        return _before_the_model(quiet, choices) if "name_or_path" in config["network"] else _whole(quiet, choices)


def _whole(config: Config, choices: Mapping[str, Any]) -> Rehearsal:
    with tempfile.TemporaryDirectory(prefix="dqnlm-") as folder:
        trainer = launch.build(config, RunDirectory(Path(folder)), choices=choices)
        parts = trainer.components
        parts.console.close()
        parameters = sum(weight.numel() for weight in parts.policy.network.parameters())
        network = f"{parts.context.option('network')}, {parameters:,} parameters, head {parts.context.option('head')}"
        updates = trainer.total_rounds * trainer.updates_per_rollout
        facts = [
            *_facts_of_task(config, parts.task), ("network", network),
            ("length", f"{summary.phases_line(trainer)}, {updates:,} updates of {trainer.batch_size} rows"),
            *(("note", note) for note in parts.notes),
        ]  # fmt: skip
    return Rehearsal(facts, [UPDATES])


def _before_the_model(config: Config, choices: Mapping[str, Any]) -> Rehearsal:
    """What does not need the weights of the network: settings, data, rewards, objectives, and the model's own configuration."""
    from dqnlm.networks.pretrained_checks import check_context
    from dqnlm.networks.pretrained_source import read_config

    check_settings(config)
    node = config["network"]
    model = read_config(node["name_or_path"], node["revision"])
    require_readable(node["name_or_path"], "network.name_or_path")
    check_context(model, node["context"] + 1)
    kind, device = task_class(config), agent.choose_device(config["device"])
    task = kind(config, build_data(config), device, choices)
    torch.manual_seed(config["seed"])
    check_learning(config, build_learning_parts(config, task))
    network = f"{model.model_type} in {node['name_or_path']}, its weights not loaded"
    facts = [*_facts_of_task(config, task), ("network", network), *(("note", note) for note in task.notes())]
    return Rehearsal(facts, ["the model's weights, and whether the other parts fit its outputs", UPDATES])


def _facts_of_task(config: Config, task: Task) -> list[tuple[str, str]]:
    return [task.describe_data(), ("environment", task.describe_env(config["trainer"]["rollout_steps"]))]
