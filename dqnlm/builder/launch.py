"""From a checked configuration to the objects of a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from dqnlm.agent.actor import Actor
from dqnlm.buffers.shard import Shard
from dqnlm.builder import agent, initialization, places
from dqnlm.builder.checks.built import ask_parts, check_parts
from dqnlm.builder.checks.learner import check_learning
from dqnlm.builder.checks.settings import check_settings
from dqnlm.builder.kept_tokenizer import build_data_with
from dqnlm.builder.learning_parts import build_learning_parts, run_context
from dqnlm.builder.q_semantics import learns_returns, notes_on_paths, why_q_is_not_in_reward_units
from dqnlm.builder.remote_actor import remote_actors
from dqnlm.builder.shares import share_of
from dqnlm.config import paths
from dqnlm.config.run_config import save_run_config
from dqnlm.config.schema import instantiate
from dqnlm.errors import UserError
from dqnlm.metrics import Accumulator, NoLogger
from dqnlm.objectives.base import Objective, combined
from dqnlm.runs import checkpoint
from dqnlm.runs.console import RunConsole
from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.lock import owned
from dqnlm.runs.manifest import manifest
from dqnlm.runs.reading import manifest_of, object_at, read_object
from dqnlm.tasks.base import build_data
from dqnlm.tasks.select import task_class
from dqnlm.training import saved_state, summary
from dqnlm.training.components import Components
from dqnlm.training.trainer import Trainer
from dqnlm.utils import streams, user_code
from dqnlm.utils.failures import explain_disk_error, explain_memory_error
from dqnlm.utils.files import write_json_atomic
from dqnlm.utils.joined import join
from dqnlm.utils.permissions import resume_command
from dqnlm.utils.ranks import ALONE, Ranks

Config = dict[str, Any]


def start(config: Config, directory: Path, *, choices: dict[str, Any], command_line: list[str]) -> dict[str, Any]:
    """Builds and runs a new run in `directory`; returns its summary."""
    run, ranks = RunDirectory(directory), join()
    with explain_disk_error(directory), explain_memory_error(), owned(directory) if ranks.is_first else nullcontext():
        if ranks.is_first:
            save_run_config(config, run.config)
        try:
            with user_code.explaining():
                trainer = build(config, run, choices=choices, ranks=ranks)
        except UserError:
            if ranks.is_first:
                run.abandon()
            raise
        _write_manifest(run, config, choices, command_line, trainer)
        summary.show(config, trainer)
        return _run(trainer)


def _write_manifest(
    run: RunDirectory, config: Config, choices: dict[str, Any], command_line: list[str], trainer: Trainer
) -> None:
    parts = trainer.components
    if parts.ranks.is_first:
        write_json_atomic(
            run.manifest,
            manifest(
                seed=config["seed"], choices=choices, command_line=command_line, device=parts.accumulator.device,
                data=parts.task.record(), metrics=parts.evaluator.metrics,
                known=parts.evaluator.known(),
                places=places.contents(parts.task, parts.policy.network.body), is_pretrained=summary.is_pretrained(trainer),
            ),
        )  # fmt: skip


def resume(directory: Path, overrides: list[str], reshard: bool = False) -> dict[str, Any]:
    """Goes on with a run from its newest whole checkpoint; returns its summary.

    `reshard`: with another number of processes than before.

    Raises:
        UserError: no checkpoint, changed data, or an override that would make it another run.
    """
    run = RunDirectory(directory)
    before, config = places.config_of(run, overrides)
    old = {key: place.value for key, place in paths.places(before).items() if key in paths.moved(before, config)}
    _refuse_another_run(before, paths.with_values(config, old))  # elsewhere it is the same, which is compared where it is read
    places.require_there(run, config, lambda words: f"{resume_command(directory)} {words}")
    ranks = join()
    lock = owned(directory) if ranks.is_first else nullcontext()
    with explain_disk_error(directory), explain_memory_error(), lock, user_code.explaining():
        return _resume(run, before, config, ranks, reshard)


def _resume(run: RunDirectory, before: Config, config: Config, ranks: Ranks, reshard: bool) -> dict[str, Any]:
    path, damaged = ranks.share(lambda: checkpoint.newest_whole(run.checkpoints))
    trainer = build(config, run, resumed_from=path, choices=choices_of(run), ranks=ranks)
    places.require_same(run, trainer.components.task, before, config)
    for broken in damaged:
        trainer.components.console.warning(f"{broken} is damaged and passed over")
    cpu = torch.device("cpu")  # each part moves what it takes to its own device; states of random generators stay here
    policy, training = checkpoint.load(path, "policy", cpu), checkpoint.load(path, "training", cpu)
    saved_state.restore(trainer.components, policy, training, reshard)
    with checkpoint.must_fit(run.path):
        trainer.load_state_dict(training["trainer"])
    if trainer.rounds_done >= trainer.total_rounds and has_finished(run):
        offline = not config["trainer"]["rollouts"] and (config["trainer"]["offline_rounds"] or not trainer.components.task.plays)
        key = "offline_rounds" if offline else "rollouts"
        raise UserError(
            f"{run.path} is finished ({trainer.rounds_done} {trainer.rounds}); to train on: "
            + resume_command(run.path, f"trainer.{key}={config['trainer'][key] * 2 or 100}")
        )
    if trainer.rounds_done > trainer.total_rounds:
        both = " with trainer.offline_rounds" if config["trainer"]["offline_rounds"] else ""
        raise UserError(
            f"trainer.rollouts{both}={trainer.total_rounds} is less than the {trainer.rounds_done} that {run.path} has done; "
            "leave "
            f"it out to go on, or set it above {trainer.rounds_done}"
        )
    if not manifest_of(run):
        trainer.components.console.warning(
            f"{run.manifest.name} is missing or damaged: whether files of your own have changed since the run began is not known"
        )
    for name in _changed_code(run):
        trainer.components.console.warning(
            f"{name} has changed since the run began: the rest of the run is not what it would have been"
        )
    if config != before and ranks.is_first:
        save_run_config(config, run.config)
    if ranks.is_first:
        run.summary.unlink(missing_ok=True)
    summary.show(config, trainer, resumed_from=path)
    return _run(trainer)


def _run(trainer: Trainer) -> dict[str, Any]:
    """Trains; a mistake that ends the run comes with the command that goes on from the last checkpoint."""
    try:
        with user_code.explaining():
            return trainer.run()
    except UserError as error:
        directory = trainer.components.directory
        steps = checkpoint.step_folders(directory.checkpoints)
        if "dqnlm resume" in str(error) or not steps:
            raise
        kept = f"\n  saved up to {steps[-1].name}; to go on with the same settings: {resume_command(directory.path)}"
        raise UserError(f"{error}{kept}") from (error.__cause__ or error)


def build(
    config: Config, run: RunDirectory, resumed_from: Path | None = None, choices: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Trainer:
    """All components of a run, in the order in which they need one another; `resumed_from` is the checkpoint to restore.

    `choices` are the options as typed, by group, for what is shown; `ranks` the processes of the run.

    Raises:
        UserError: a combination that cannot work, or data that is not there.
    """
    check_settings(config)
    seed, config = config["seed"], share_of(config, ranks)
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    device, settings = agent.choose_device(config["device"], ranks), config["trainer"]
    agent.set_precision(config, device)
    kind = task_class(config)
    saved = None if resumed_from is None else checkpoint.load(resumed_from, "policy", torch.device("cpu"))
    task = kind(config, _data(config, run, saved), device, choices)
    console = RunConsole(run.log if ranks.is_first else None, config["progress"])
    torch.manual_seed(seed)  # the same weights on all ranks
    learning = build_learning_parts(config, task)
    check_learning(config, learning)
    head, objectives = learning.head, learning.objectives
    recipe = None if saved is None else saved.get("recipe")
    in_full = any(objective.reads_in_full for objective in objectives.values())
    policy = agent.build_policy(config, task, head, agent.outputs_of(config, objectives), device, recipe, in_full)
    task.check(policy)
    if config["pretraining"]["init_from"] is not None and resumed_from is None:
        initialization.load_weights(policy, config)
    policy.network.body.shard_weights(ranks)
    accumulator = Accumulator(device, ranks)
    learner = agent.build_learner(config, task, policy, head, objectives, accumulator, ranks)
    reads = max(policy.network.context, policy.network.receptive_field or 0)
    buffer = agent.build_buffer(config, task, max_lookahead(objectives), reads, device, ranks)
    context = run_context(config, learning, policy, learner, buffer)
    ask_parts(context, learning, policy.network.body, buffer, learner.target)
    task.add_logged_rows(Shard(buffer, ranks) if ranks.world > 1 else buffer, policy)
    actor = Actor(task.env, policy, learning.exploration, buffer, accumulator) if kind.plays else None
    purge = None if resumed_from is None else checkpoint.step_of(resumed_from) + 1
    no_return = why_q_is_not_in_reward_units(config, objectives)
    evaluation, saving = instantiate(config["evaluation"]), instantiate(config["checkpoint"])
    evaluator = task.evaluator(evaluation, q_is_return=no_return is None, learns_returns=learns_returns(objectives))
    parts = Components(
        directory=run, console=console, ranks=ranks, task=task,
        logger=instantiate(config["logger"], run.path, purge, config) if ranks.is_first else NoLogger(run.path, purge, config),
        policy=policy, actor=actor, exploration=learning.exploration, buffer=buffer, learner=learner, evaluator=evaluator,
        accumulator=accumulator, checkpoints=checkpoint.Checkpoints(run.checkpoints, saving.keep_last),
        fingerprint=task.data.fingerprint(), episode_decisions=task.spec.row_transitions - task.spec.first_decision,
        logged_rows=task.num_logged_rows, context=context,
        notes=[*task.notes(), *notes_on_paths(objectives, task.spec, task.option("env"))],
        evaluation=evaluation, saving=saving,
        pretraining=initialization.build_pretraining(config, task.env, policy, accumulator, ranks),
        demonstrations=initialization.build_demonstrations(config, task.env, streams.DEMONSTRATIONS)
        if settings["demonstration_fraction"] else None,
    )  # fmt: skip
    check_parts(config, parts, learning)
    return _trainer_of(parts, config, choices)


def _data(config: Config, run: RunDirectory, saved: Config | None) -> Any:
    """The data of a run, new or (with the policy that it saved) resumed."""
    if saved is None:
        return build_data(config)
    return build_data_with(config, was_bundled(run), saved["tokenizer"], saved.get("recipe"))


def _trainer_of(parts: Components, config: Config, choices: Mapping[str, Any] | None) -> Trainer:
    """The loop over the components of a run, with who plays its rollouts."""
    if parts.actor is not None:
        remote = remote_actors(config, choices)
        parts.make_acting = lambda steps: instantiate(config["actors"], parts, steps, remote)
    trainer: Trainer = instantiate(config["trainer"], parts)
    if parts.ranks.world > 1:
        torch.manual_seed(config["seed"])  # dropout and the like differ between ranks
    return trainer


def max_lookahead(objectives: dict[str, Objective]) -> int | None:
    """Decisions that the objective which looks ahead the most spans; None: to the row's end."""
    return combined(objective.requires for objective in objectives.values()).lookahead


def _changed_code(run: RunDirectory) -> list[str]:
    """Modules and files of the user's own whose content is another than when the run began, by its manifest."""
    began = object_at(manifest_of(run), "own_code")
    now = user_code.checksums()
    return [name for name, checksum in began.items() if now.get(name, checksum) != checksum]


def choices_of(run: RunDirectory) -> dict[str, Any]:
    """The options that the run was started with, as typed, by its manifest."""
    return object_at(manifest_of(run), "choices")


def was_bundled(run: RunDirectory) -> bool:
    """Whether the run may have been trained on the bundled text: its manifest says so, or cannot be read.

    If it was not, the fingerprint in the checkpoint refuses that text.
    """
    return bool(object_at(manifest_of(run), "data").get("bundled", True))


def has_finished(run: RunDirectory) -> bool:
    """Whether the run came to its end and said so; one killed after its last checkpoint has not."""
    return read_object(run.summary).get("status") == "finished"


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
    only_scores = task_class(before).reward_only_scores
    for group in fixed:
        if before[group] != after[group] and not (group == "reward" and only_scores):
            raise UserError(
                f"{group} cannot change on a resume: the saved state belongs to the old setting. Start a new run from its "
                "weights: dqnlm train ... pretraining.init_from=RUN"
            )
    pretrained = before["pretraining"]["updates"]
    for group, key in (
        ("pretraining", "updates"), *([("trainer", "updates_per_rollout"), ("pretraining", "batch_size")] if pretrained else []),
    ):  # fmt: skip  # the end of the pretraining is counted by both
        if before[group][key] != after[group][key]:
            raise UserError(
                f"{group}.{key} cannot change on a resume of a run with pretraining. Start a new run from its weights: "
                "dqnlm train ... pretraining.init_from=RUN"
            )
    # gamma also sets the return's bounds, and so what a raw output means; the reference is a part of the rewards
    for key in ("gamma", "feedback"):
        if before[key] != after[key]:
            raise UserError(_changed(key))
    for key in ("kl_weight", "kl_temperature"):
        if before["learner"][key] != after["learner"][key]:
            raise UserError(_changed(f"learner.{key}"))


def _changed(setting: str) -> str:
    return (
        f"{setting} cannot change on a resume: the weights learned under the old one. Start a new run from them: "
        "dqnlm train ... pretraining.init_from=RUN"
    )
