"""Run summary printed at start: data, inactive components, memory and time estimate."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dqnlm.runs.console import clock
from dqnlm.training.trainer import Trainer
from dqnlm.utils import sharding
from dqnlm.utils.context import RunContext
from dqnlm.utils.output_names import first_q

Config = dict[str, Any]


def idle_components(settings: Config, context: RunContext) -> list[str]:
    """Components without effect in this run, each with the reason; `settings` are those of `pretraining`."""
    own_rewards = not context.is_on_text and context.option("reward") != "none"
    idle = ["reward: the environment has its own rewards"] if own_rewards else []
    for key in ("lr", "batch_size"):
        if settings[key] is not None and not settings["updates"]:
            idle.append(f"pretraining.{key}: this run has no pretraining")
    if context.clones_only:
        return [
            *idle,
            "rewards, exploration, target network, bootstrap and gamma: this is supervised learning (the data's "
            "actions are cloned), the supervised baseline, not Q-learning",
        ]
    return [*idle, *_idle_in_q_learning(context)]


def _idle_in_q_learning(context: RunContext) -> list[str]:
    gamma, all_actions, idle = context.gamma, context.feedback == "all_actions", []
    if not context.uses_bootstrap:
        idle.append(f"bootstrap and returns: {' + '.join(context.objectives)} has targets of its own")
    elif not context.bootstraps_inside:
        idle.append(
            f"bootstrap: returns={context.option('returns')} needs no bootstrap value (except where a row is truncated)"
        )
    if context.rollouts == 0:
        idle.append("exploration: the agent acts only in evaluations and learns from logged data")
    if all_actions:
        idle.append(
            "exploration and replay of past actions: the rewards of all actions are learned at every position"
        )
    if gamma == 0:
        idle.append("target network and bootstrap: gamma is 0, so targets have no bootstrap")
    elif context.is_teacher_forced:
        idle.append(
            f"gamma {gamma} cannot change which action is best: under transition teacher the future is the same for all of "
            "them. Target network and bootstrap learn the level of Q, not its ranking"
        )
    if gamma > 0 and not context.has_target_copy and context.bootstrap_asks_online and context.uses_bootstrap:
        idle.append(
            f"bootstrap={context.option('bootstrap')}: with target={context.option('target')} the same network selects and "
            "evaluates the next action"
        )
    if all_actions and gamma == 0:
        idle.append(
            "reinforcement learning: all_actions with gamma 0 equals one-against-all supervised learning. It is an "
            "upper bound for comparison, not reinforcement learning"
        )
    return idle


def is_pretrained(trainer: Trainer) -> bool:
    """Whether the network's trunk is a model of transformers."""
    return trainer.components.policy.network.body.recipe is not None


def show(config: Config, trainer: Trainer, resumed_from: Path | None = None) -> None:
    """Shows the panels: a note if the bundled text is used as a fallback, then the run."""
    components, task = trainer.components, trainer.components.task
    source, (label, data) = task.data.source, task.describe_data()
    if source.bundled:
        components.console.panel(
            "NOT SHAKESPEARE", [*task.notes(), "give the real text with data.path=FILE or DQNLM_DATA_DIR"], "yellow"
        )
    weights_of, world = list(components.policy.network.parameters()), components.ranks.world
    parameters, learned = (sum(p.numel() for p in weights_of if p.requires_grad >= least) for least in (False, True))
    held = {learns: sum(_numel_held(p) for p in weights_of if p.requires_grad == learns) for learns in (False, True)}
    shared = f" (the trunk is divided among {world} processes)" if sum(held.values()) < parameters else ""
    fixed = held[False] * min((p.element_size() for p in weights_of if not p.requires_grad), default=4)
    buffer, device = components.buffer, components.accumulator.device
    ring = (buffer.rows + 1) * (buffer.storage.row_transitions + 1) * buffer.bytes_per_transition
    # What learns: weights, gradient, two moments (Muon: one), target.
    weights = fixed + held[True] * 4 * (4 + components.learner.target.copies)
    saved = ring + held[True] * 4 * (3 + components.learner.target.copies)  # without the gradient
    learner, option = config["learner"], components.context.option
    rollout_steps, updates = config["trainer"]["rollout_steps"], trainer.total_rounds * trainer.updates_per_rollout
    lines = [
        f"{label:<11} {data}",
        f"environment {task.describe_env(rollout_steps)}",
        f"learning    {_learning_line(config, trainer)}",
        f"policy      {_policy_line(config, trainer)}",
        f"network     {option('network')}, {parameters:,} parameters"
        f"{'' if learned == parameters else f', {learned:,} of them learn'}, head {option('head')}, context "
        f"{components.policy.network.context}",
        f"memory      weights and optimizer {weights / 2**20:.1f} MiB{shared}; buffer {buffer.rows:,} rows, "
        f"{buffer.bytes_per_transition} bytes a transition, {ring / 2**20:.1f} MiB; a checkpoint at most {saved / 2**20:.1f} MiB",
        f"device      {device}, {torch.get_num_threads()} threads, {learner['precision']}"
        + (", compiled" if learner["compile"] else ""),
        f"length      {phases_line(trainer)}, {updates:,} updates of {trainer.batch_size} rows; {_time(trainer, rollout_steps)}",
        f"folder      {components.directory.path}",
    ]
    lines += [f"your own    {text}" for text in _own_parts(config)]
    shown = task.notes() if source.bundled else []  # in the panel above
    lines += [f"note        {text}" for text in components.notes if text not in shown]
    lines += [f"inactive    {text}" for text in idle_components(config["pretraining"], components.context)]
    if components.policy.network.body.shard and world == 1:
        lines.append("inactive    network.shard: one process holds the whole model")
    if not task.spec.exact_resume:
        lines.append("note        this environment's state cannot be saved: resuming starts its episodes anew")
    if resumed_from is not None:
        lines.append(f"resumed     from {resumed_from.name}, {trainer.rounds[:-1]} {trainer.rounds_done}")
    components.console.panel("dqnlm", lines)


def _learning_line(config: Config, trainer: Trainer) -> str:
    context, objectives = trainer.components.context, trainer.components.learner.objectives
    option = context.option
    weighted = [name if o.weight == 1 else f"{o.weight:g} {name}" for name, o in objectives.items()]
    td = f" (bootstrap={option('bootstrap')}, returns={option('returns')})" if context.uses_bootstrap else ""
    return (
        f"{' + '.join(weighted)}{td}, feedback {config['feedback']}, gamma {config['gamma']}, target="
        f"{option('target')}, exploration={option('exploration')}, optimizer={option('optimizer')}"
    )


def _policy_line(config: Config, trainer: Trainer) -> str:
    """What is evaluated, how often, and when the run is saved."""
    components, policy, saved = trainer.components, config["policy"], config["checkpoint"]
    beta = "" if policy["beta"] is None else f" with beta {policy['beta']:g}"
    every = [f"every {saved['every']:,} rounds"] if saved["every"] is not None else []
    every += [f"every {saved['minutes']:g} minutes"] if saved["minutes"] is not None else []
    return (
        f"{components.policy.declared}{beta}; evaluated every {components.evaluation.every:,} rounds, the best kept by "
        f"{trainer.recorder.best_metric}; saved {', '.join([*every, 'at the end'])}"
    )


def _time(trainer: Trainer, rollout_steps: int | None) -> str:
    """How long the rest of the run takes, or that this is measured first."""
    if trainer.is_measured:
        return "the time is measured first, see below"
    left = trainer.costs.left(trainer.rounds_done)
    if left is not None:
        return f"about {clock(left.seconds)} more (as its rounds so far took)"
    return f"about {clock(estimated_seconds(trainer, rollout_steps))} for updates and acting (from three passes)"


def phases_line(trainer: Trainer) -> str:
    """The phases with their rounds."""
    if trainer.rounds == "rollouts":
        return f"{trainer.total_rounds:,} rollouts"
    return " + ".join(f"{phase.rounds:,} {phase.name}" for phase in trainer.phases) + " rounds"


def _own_parts(config: Config, key: str = "") -> list[str]:
    """The settings of the parts whose class is outside dqnlm."""
    found = []
    for name, node in config.items():
        inner = f"{key}.{name}" if key else name
        if isinstance(node, dict) and not str(node.get("_target_", "dqnlm.")).startswith("dqnlm."):
            values = ", ".join(f"{k}={v}" for k, v in node.items() if k != "_target_" and not isinstance(v, dict))
            found += [f"{inner}: {values}"] if values else []
        if isinstance(node, dict):
            found += _own_parts(node, inner)
    return found


def estimated_seconds(trainer: Trainer, rollout_steps: int | None) -> float:
    """Remaining rollouts and updates times the measured time of passes through a copy of the network."""
    components = trainer.components
    env, spec, device = components.env, components.task.spec, components.accumulator.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = components.policy.network
        network = network if sharding.has_shards(network) else copy.deepcopy(network)  # parts cannot be copied
        width = components.buffer.width
        rows = trainer.batch_size // spec.guesses_per_position
        size = spec.observation_size
        shape, dtype = ((size,), torch.float32) if size else ((), torch.int64)
        ids_BS = torch.zeros(rows, width, *shape, dtype=dtype, device=device)
        forward = _seconds(device, lambda: _no_grad(network, ids_BS))
        both = _seconds(device, lambda: network(ids_BS)[first_q(network.projections)].square().sum().backward())
        network.zero_grad()
    update = both + (forward if components.learner.requires.target else 0)
    steps = 1 if spec.teacher_forced else max(1, (rollout_steps or components.episode_decisions) // 8)
    rollout = forward * steps * (env.num_envs // spec.guesses_per_position) / rows if components.exploration.needs_q else 0
    left = trainer.total_rounds - trainer.rounds_done
    played = sum(min(phase.end - trainer.rounds_done, phase.rounds) for phase in trainer.phases if phase.rollout is not None)
    return left * update * trainer.updates_per_rollout + max(played, 0) * rollout


def _numel_held(parameter: nn.Parameter) -> int:
    """Numbers of it that this process holds."""
    return sharding.own_part(parameter.detach()).numel()


def _no_grad(network: nn.Module, ids_BS: torch.Tensor) -> None:
    with torch.no_grad():
        network(ids_BS)


def _seconds(device: torch.device, work: Any) -> float:
    """The least of three timings."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)
