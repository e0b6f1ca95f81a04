"""From a checked configuration to the objects of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dqnlm.agent.actor import Actor
from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.builder import agent, evaluators, initialization, logged_rows, task_assembly
from dqnlm.builder.checks.built import ask_parts, check_parts
from dqnlm.builder.checks.learner import check_learning
from dqnlm.builder.checks.settings import check_settings
from dqnlm.builder.learning_parts import build_learning_parts, run_context
from dqnlm.config.run_config import load_run_config, save_run_config
from dqnlm.config.schema import instantiate
from dqnlm.data.text.corpora import Corpus
from dqnlm.data.trajectories.dataset import Trajectories
from dqnlm.data.trajectories.log import Log
from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator
from dqnlm.objectives.base import Objective
from dqnlm.runs import checkpoint
from dqnlm.runs.console import RunConsole
from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.manifest import manifest
from dqnlm.training import saved_state, summary
from dqnlm.training.components import Parts
from dqnlm.training.trainer import Trainer
from dqnlm.utils.failures import naming_disk, naming_memory
from dqnlm.utils.files import write_json_atomic

Config = dict[str, Any]


def start(config: Config, directory: Path, *, choices: dict[str, Any], command_line: list[str]) -> dict[str, Any]:
    """Builds and runs a new run in `directory`; returns its summary."""
    run = RunDirectory(directory)
    with naming_disk(directory), naming_memory():
        save_run_config(config, run.config)
        try:
            trainer, data = build(config, run, choices=choices)
        except UserError:
            run.abandon()
            raise
        write_json_atomic(
            run.manifest,
            manifest(
                seed=config["seed"], choices=choices, command_line=command_line, device=trainer.parts.accumulator.device,
                data=summary.data_record(data, trainer), is_pretrained=summary.is_pretrained(trainer),
            ),
        )  # fmt: skip
        summary.show(config, trainer, data)
        return trainer.run()


def resume(directory: Path, overrides: list[str]) -> dict[str, Any]:
    """Goes on with a run from its newest whole checkpoint; returns its summary.

    Raises:
        UserError: no checkpoint, changed data, or an override that would make it another run.
    """
    run = RunDirectory(directory)
    config = load_run_config(
        run.config, overrides
    )  # first: the overrides may renew a permission to run the user's code
    before = load_run_config(run.config)
    _refuse_another_run(before, config)
    with naming_disk(directory), naming_memory():
        return _resume(run, before, config)


def _resume(run: RunDirectory, before: Config, config: Config) -> dict[str, Any]:
    path, damaged = checkpoint.newest_whole(run.checkpoints)
    trainer, data = build(config, run, resumed_from=path, choices=choices_of(run))
    for broken in damaged:
        trainer.parts.console.warning(f"{broken} is damaged and passed over")
    cpu = torch.device("cpu")  # each part moves what it takes to its own device; states of random generators stay here
    policy, training = checkpoint.load(path, "policy", cpu), checkpoint.load(path, "training", cpu)
    saved_state.restore(trainer.parts, policy, training)
    trainer.load_state_dict(training["trainer"])
    if trainer.rollouts_done >= trainer.rollouts and has_finished(run):
        key = "rollouts" if config["trainer"]["rollouts"] else "offline_rounds"
        raise UserError(
            f"{run.path} is finished ({trainer.rollouts_done} {trainer.rounds}); to train on: "
            f"dqnlm resume {run.path} trainer.{key}={config['trainer'][key] * 2}"
        )
    if trainer.rollouts_done > trainer.rollouts:
        both = " with trainer.offline_rounds" if config["trainer"]["offline_rounds"] else ""
        raise UserError(
            f"trainer.rollouts{both}={trainer.rollouts} is less than the {trainer.rollouts_done} that {run.path} has done; leave "
            f"it out to go on, or set it above {trainer.rollouts_done}"
        )
    if config != before:
        save_run_config(config, run.config)
    run.summary.unlink(missing_ok=True)
    summary.show(config, trainer, data, resumed_from=path)
    return trainer.run()


def build(
    config: Config, run: RunDirectory, resumed_from: Path | None = None, choices: Mapping[str, Any] | None = None
) -> tuple[Trainer, task_assembly.Data]:
    """All parts, in the order in which they need one another; `resumed_from` is the checkpoint that will be put back.

    `choices` are the options as typed, by group, for what is shown.

    Raises:
        UserError: a combination that cannot work, or data that is not there.
    """
    check_settings(config)
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    device, seed = agent.choose_device(config["device"]), config["seed"]
    data = task_assembly.build_data(config, resumed_from is None or was_bundled(run))
    console = RunConsole(run.log, config["trainer"]["progress"])
    torch.manual_seed(seed)
    env = task_assembly.build_env(config, data, device, seed * 1000 + agent.STREAM_ENV)
    if isinstance(data, Corpus):
        data.require_tokens(max(env.row_transitions + 1, 3), "an episode (env.prompt_length + env.horizon)")
    learning = build_learning_parts(config, env, device, choices or {})
    check_learning(config, learning)
    head, objectives, exploration = learning.head, learning.objectives, learning.exploration
    saved = None if resumed_from is None else checkpoint.load(resumed_from, "policy", torch.device("cpu"))
    recipe = None if saved is None else saved.get("recipe")
    policy = agent.build_policy(config, data, env, head, agent.outputs_of(objectives), device, recipe)
    if isinstance(data, Log):
        logged_rows.require_fit(data, policy)
    if config["trainer"]["init_from"] is not None and resumed_from is None:
        initialization.load_weights(policy, config)
    settings = config["trainer"]
    accumulator = Accumulator(device)
    target = instantiate(config["target"], policy.network)
    total = (settings["rollouts"] + settings["offline_rounds"]) * settings["updates_per_rollout"]
    optimization = instantiate(config["optimizer"], policy.network, total)
    learner = instantiate(
        config["learner"], policy.network, target, objectives, optimization, accumulator, env.restart, head, env.legal
    )
    history = max(policy.network.context, policy.network.reach or 0)
    buffer = agent.build_buffer(config, env, farthest(objectives), history, device, rows_of(data))
    context = run_context(config, data, learning, policy, learner, buffer)
    ask_parts(context, learning, policy.network.body, buffer, target)
    logged = add_logged(data, buffer, policy, env)
    actor = Actor(env, policy, exploration, buffer, accumulator, settings["rollout_steps"])
    purge = None if resumed_from is None else checkpoint.step_of(resumed_from) + 1
    demonstrations = None
    if settings["demonstration_share"]:
        demonstrations = initialization.build_demonstrations(config, env, agent.STREAM_DEMONSTRATIONS)
    parts = Parts(
        run, console, instantiate(config["logger"], run.tensorboard, purge), policy, actor, exploration, buffer, learner,
        evaluators.build_evaluator(config, data, device, objectives), accumulator,
        checkpoint.Checkpoints(run.checkpoints, settings["keep_last"]), data.fingerprint(),
        env.row_transitions - env.first_decision, logged,
        context, summary.notes(data) + env.notes(),
        initialization.build_warm_start(config, env, policy, accumulator),
        demonstrations,
    )  # fmt: skip
    check_parts(config, parts, learning)
    return instantiate(config["trainer"], parts), data


def farthest(objectives: dict[str, Objective]) -> int | None:
    """Decisions that the farthest-reaching objective looks ahead; None: to the row's end."""
    reaches = [objective.lookahead for objective in objectives.values()]
    known = [reach for reach in reaches if reach is not None]
    return max(known) if len(known) == len(reaches) else None


def rows_of(data: task_assembly.Data) -> int:
    """Logged rows to learn from."""
    return len(data.train) if isinstance(data, Log) else len(data) if isinstance(data, Trajectories) else 0


def add_logged(data: task_assembly.Data, buffer: Buffer, policy: Policy, env: Environment) -> int:
    """Puts logged rows into the buffer; returns how many, 0 where the data is no log.

    Raises:
        UserError: the environment's tokens are no characters, or the buffer is smaller than the data.
    """
    if isinstance(data, Log):
        return logged_rows.add_rows(data, buffer, policy)
    if not isinstance(data, Trajectories):
        return 0
    if policy.tokens is None:
        raise UserError("logged text cannot be learned from here: this environment's tokens are no characters")
    if data.first_decision() < env.first_decision:
        raise UserError(
            f"the shortest prompt of the logged data has {data.first_decision() + 1} tokens, but this environment reads "
            f"{env.first_decision + 1} before its first decision: the log is of another task; choose its env"
        )
    if any(item.next for item in data.items) and not (env.interleaved and env.cuts_rows):
        raise UserError(
            "some logged rows have a `next` text, but in this environment a row is a whole episode and nothing follows its "
            "actions: leave `next` out, or choose the env that the log is of"
        )
    rows = data.rows(policy.tokens, env.row_transitions, env.device)
    outside = int(policy.head.clamped(rows.reward_BT.sum(1)).sum())
    if outside:
        raise UserError(
            f"{outside:,} of {len(rows.length_B):,} logged rows earn more or less than the bounds of the return that the head is "
            f"scaled by, {float(policy.head.low):g} to {float(policy.head.high):g}: set data.reward_scaling=none, a head without "
            "bounds (head=scalar head.loss=huber, head=quantile), or head.low and head.high of head=categorical"
        )
    if len(rows.length_B) > buffer.rows:
        needed = len(rows.length_B) * (env.row_transitions - env.first_decision)
        raise UserError(
            f"{len(rows.length_B):,} logged rows do not fit the buffer's {buffer.rows:,}; set buffer.capacity={needed}"
        )
    buffer.add(rows)
    return len(rows.length_B)


def choices_of(run: RunDirectory) -> dict[str, Any]:
    """The options that the run was started with, as typed, by its manifest."""
    choices: dict[str, Any] = json.loads(run.manifest.read_text()).get("choices") or {}
    return choices


def was_bundled(run: RunDirectory) -> bool:
    """Whether the run has been trained on the bundled text, by its manifest."""
    return bool(json.loads(run.manifest.read_text())["data"]["bundled"])


def has_finished(run: RunDirectory) -> bool:
    """Whether the run came to its end and said so; one killed after its last checkpoint has not."""
    return run.summary.exists() and json.loads(run.summary.read_text())["status"] == "finished"


def _refuse_another_run(before: Config, after: Config) -> None:
    """Only what does not change the meaning of the saved state may be overridden on a resume."""
    fixed = (
        "data",
        "env",
        "network",
        "projection",
        "head",
        "buffer",
        "seed",
        "objective",
        "target",
        "reward",
        "bootstrap",
        "returns",
    )
    for group in fixed:
        if before[group] != after[group]:
            raise UserError(
                f"{group} cannot change on a resume: the saved state belongs to the old setting. Start a new run from its "
                "weights: dqnlm train ... trainer.init_from=RUN"
            )
    warm = before["trainer"]["warm_start_updates"]
    for key in (
        "warm_start_updates",
        *(["updates_per_rollout", "warm_start_rows"] if warm else []),
    ):  # where a round of it ends is counted by both
        if before["trainer"][key] != after["trainer"][key]:
            raise UserError(
                f"trainer.{key} cannot change on a resume of a run with a warm start. Start a new run from its weights: "
                "dqnlm train ... trainer.init_from=RUN"
            )
    # gamma also sets the return's bounds, and so what a raw output means; the reference is a part of the rewards
    for key in ("gamma", "feedback", "reference_weight", "reference_temperature"):
        if before["learner"][key] != after["learner"][key]:
            raise UserError(
                f"learner.{key} cannot change on a resume: the weights learned under the old one. Start a new run from "
                "them: dqnlm train ... trainer.init_from=RUN"
            )
