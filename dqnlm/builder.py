"""From a checked configuration to the objects of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dqnlm import assembly, checkpoint, header, saved_state
from dqnlm.actor import Actor
from dqnlm.checks import check_combination, check_parts
from dqnlm.config import instantiate, load_run_config, save_run_config
from dqnlm.console import RunConsole
from dqnlm.data.baselines import baselines
from dqnlm.data.corpora import Corpus
from dqnlm.errors import UserError
from dqnlm.files import write_json_atomic
from dqnlm.guards import naming_disk, naming_memory
from dqnlm.metrics import Accumulator
from dqnlm.run_directory import RunDirectory
from dqnlm.trainer import Parts, Trainer

Config = dict[str, Any]


def start(config: Config, directory: Path, *, choices: dict[str, Any], command_line: list[str]) -> dict[str, Any]:
    """Builds and runs a new run in `directory`; returns its summary."""
    run = RunDirectory(directory)
    with naming_disk(directory), naming_memory():
        save_run_config(config, run.config)
        trainer, corpus = build(config, run)
        write_json_atomic(run.manifest, header.manifest(config, choices, command_line, corpus, trainer))
        header.show(config, trainer, corpus)
        return trainer.run()


def resume(directory: Path, overrides: list[str]) -> dict[str, Any]:
    """Goes on with a run from its newest whole checkpoint; returns its summary.

    Raises:
        UserError: no checkpoint, changed data, or an override that would make it another run.
    """
    run = RunDirectory(directory)
    config = load_run_config(run.config, overrides)  # first: the overrides may renew a permission to run the user's code
    before = load_run_config(run.config)
    _refuse_another_run(before, config)
    with naming_disk(directory), naming_memory():
        return _resume(run, before, config)


def _resume(run: RunDirectory, before: Config, config: Config) -> dict[str, Any]:
    path, damaged = checkpoint.newest_whole(run.checkpoints)
    trainer, corpus = build(config, run, resumed_from=path)
    for broken in damaged:
        trainer.parts.console.warning(f"{broken} is damaged and passed over")
    cpu = torch.device("cpu")  # each part moves what it takes to its own device; states of random generators stay here
    policy, training = checkpoint.load(path, "policy", cpu), checkpoint.load(path, "training", cpu)
    saved_state.restore(trainer, policy, training)
    if trainer.rollouts_done >= trainer.rollouts and has_finished(run):
        raise UserError(
            f"{run.path} is finished ({trainer.rollouts_done} rollouts); to train on: "
            f"dqnlm resume {run.path} trainer.rollouts={trainer.rollouts_done * 2}"
        )
    if trainer.rollouts_done > trainer.rollouts:
        raise UserError(
            f"trainer.rollouts={trainer.rollouts} is less than the {trainer.rollouts_done} that {run.path} has done; leave it "
            f"out to go on, or set it above {trainer.rollouts_done}"
        )
    if config != before:
        save_run_config(config, run.config)
    run.summary.unlink(missing_ok=True)
    header.show(config, trainer, corpus, resumed_from=path)
    return trainer.run()


def build(config: Config, run: RunDirectory, resumed_from: Path | None = None) -> tuple[Trainer, Corpus]:
    """All parts, in the order in which they need one another; `resumed_from` is the checkpoint that will be put back.

    Raises:
        UserError: a combination that cannot work, or data that is not there.
    """
    check_combination(config)
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    device, seed = assembly.choose_device(config["device"]), config["seed"]
    corpus = assembly.build_corpus(config, resumed_from is None or was_bundled(run))
    console = RunConsole(run.log, config["trainer"]["progress"])
    torch.manual_seed(seed)
    env = assembly.build_env(config, corpus, corpus.train_ids, device, seed * 1000 + assembly.STREAM_ENV)
    corpus.require_tokens(max(env.row_transitions + 1, 3), "an episode (env.prompt_length + env.horizon)")
    policy = assembly.build_policy_parts(config, corpus, env, device)
    if config["trainer"]["init_from"] is not None and resumed_from is None:
        assembly.load_weights(policy, config)
    settings, gamma = config["trainer"], config["learner"]["gamma"]
    accumulator = Accumulator(device)
    target = instantiate(config["target"], policy.network)
    objectives = assembly.build_objectives(config, env, policy.head)
    total = settings["rollouts"] * settings["updates_per_rollout"]
    optimization = instantiate(config["optimizer"], policy.network, total)
    learner = instantiate(config["learner"], policy.network, target, objectives, optimization, accumulator)
    buffer = instantiate(
        config["buffer"], env.row_transitions, env.first_decision, env.num_actions, env.parallel, gamma,
        policy.network.context, env.copies, device, assembly.stream(device, seed, assembly.STREAM_BUFFER),
    )  # fmt: skip
    exploration = instantiate(
        config["exploration"], assembly.stream(device, seed, assembly.STREAM_EXPLORATION), env.copies
    )
    actor = Actor(env, policy.network, policy.head, exploration, buffer, accumulator, settings["rollout_steps"])
    purge = None if resumed_from is None else checkpoint.step_of(resumed_from) + 1
    parts = Parts(
        run, console, instantiate(config["logger"], run.tensorboard, purge), policy, actor, exploration, buffer, learner,
        assembly.build_evaluator(config, corpus, device), accumulator,
        checkpoint.Checkpoints(run.checkpoints, settings["keep_last"]),
        corpus.fingerprint(), baselines(corpus.train_ids, corpus.heldout_ids, env.num_actions),
        env.row_transitions - env.first_decision, header.notes(corpus),
    )  # fmt: skip
    check_parts(config, parts)
    return instantiate(config["trainer"], parts), corpus


def was_bundled(run: RunDirectory) -> bool:
    """Whether the run has been trained on the bundled text, by its manifest."""
    return bool(json.loads(run.manifest.read_text())["data"]["bundled"])


def has_finished(run: RunDirectory) -> bool:
    """Whether the run came to its end and said so; one killed after its last checkpoint has not."""
    return run.summary.exists() and json.loads(run.summary.read_text())["status"] == "finished"


def _refuse_another_run(before: Config, after: Config) -> None:
    """Only what does not change the meaning of the saved state may be overridden on a resume."""
    fixed = ("data", "env", "network", "projection", "head", "buffer", "seed", "objective", "target", "reward")
    for group in fixed:
        if before[group] != after[group]:
            raise UserError(
                f"{group} cannot change on a resume: the saved state belongs to the old setting. Start a new run from its "
                "weights: dqnlm train ... trainer.init_from=RUN"
            )
    for key in ("gamma", "feedback"):  # gamma also sets the return's bounds, and so what a raw output means
        if before["learner"][key] != after["learner"][key]:
            raise UserError(
                f"learner.{key} cannot change on a resume: the weights learned under the old one. Start a new run from "
                "them: dqnlm train ... trainer.init_from=RUN"
            )
