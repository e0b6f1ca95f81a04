"""Checks of the built components: each checks itself against the run, then the rules between them."""

from __future__ import annotations

from typing import Any

import torch

from dqnlm.agent.target import Target
from dqnlm.buffers.base import Buffer
from dqnlm.builder.checks.learner import begins_from_weights, check_reference_bounds
from dqnlm.builder.learning_parts import LearningParts
from dqnlm.errors import UserError
from dqnlm.networks.base import Body
from dqnlm.training.components import Components
from dqnlm.utils.context import RunContext
from dqnlm.utils.suggest import suggestion

Config = dict[str, Any]


def check_parts(config: Config, parts: Components, learning: LearningParts) -> None:
    """Checks that need the built components.

    Raises:
        UserError: episodes longer than the network reads, a buffer smaller than a rollout, a policy that Q cannot give.
    """
    _check_sizes(config, parts)
    _check_learning_starts(config["trainer"], parts)
    _check_data(config, parts)
    _check_buffer(config, parts)
    _check_burn_in(parts.context, parts)
    if config["learner"]["kl_weight"] > 0 and not begins_from_weights(config):
        _check_reference(parts, learning)
    if parts.policy.declared == "probability" and not parts.policy.head.is_probability:
        raise UserError(
            "policy.kind=probability needs Q to be the probability of being the rewarded token: reward="
            "exact_match with head=normalised, or with head.loss=logistic and gamma=0; set policy.kind=boltzmann"
        )


def ask_parts(context: RunContext, learning: LearningParts, body: Body, buffer: Buffer, target: Target) -> None:
    """Calls each component's own check, before logged data is read.

    Raises:
        UserError: it cannot.
    """
    asked = [
        learning.task.env, learning.reward, learning.head, learning.bootstrap, learning.returns, learning.exploration,
        *learning.objectives.values(), body, buffer, target,
    ]  # fmt: skip
    for part in asked:
        if part is not None:
            part.check(context)


def _check_sizes(config: Config, parts: Components) -> None:
    """Checks that rows fit the network, and a rollout the buffer."""
    env, spec, network, buffer = parts.env, parts.task.spec, parts.policy.network, parts.buffer
    option = parts.context.option
    if network.max_observations is not None and spec.row_transitions > network.context:
        shape = config["env"]
        if "prompt_length" not in shape:
            raise UserError(
                f"rows of env={option('env')} have up to {spec.row_transitions} transitions, more than network.context="
                f"{network.context} reads; set network.context={spec.row_transitions}"
            )
        raise UserError(
            f"env.horizon={shape['horizon']} with env.prompt_length={shape['prompt_length']} makes episodes of "
            f"{spec.row_transitions} tokens, more than network.context={network.context} reads; set env.horizon="
            f"{max(1, network.context - shape['prompt_length'] + 1)} or network.context={spec.row_transitions}"
        )
    if buffer.rows < env.num_envs:
        raise UserError(
            f"buffer.capacity={config['buffer']['capacity']} holds {buffer.rows} episodes, fewer than the env.num_envs="
            f"{env.num_envs} of one rollout; set buffer.capacity to at least {env.num_envs * parts.episode_decisions}"
        )


def _check_buffer(config: Config, parts: Components) -> None:
    """Checks sampling from the buffer, and mixing demonstrations into its batches."""
    buffer, option = parts.buffer, parts.context.option
    if buffer.needs_errors and not parts.context.learns_returns:
        raise UserError(
            f"buffer={option('buffer')} replays large errors, and no objective here has any; set buffer=uniform"
        )
    if config["trainer"]["demonstration_fraction"] and not buffer.can_mix_demonstrations:
        raise UserError(
            "trainer.demonstration_fraction fills a part of each batch with whole rows: set buffer=uniform buffer.sample=rows"
        )


def _check_reference(parts: Components, learning: LearningParts) -> None:
    """Checks that the reference policy is a trained one."""
    if not parts.policy.network.body.is_pretrained:
        raise UserError(
            "learner.kl_weight keeps the policy near the initial one, which is untrained here: set "
            "pretraining.updates or pretraining.init_from=RUN (or network=pretrained)"
        )
    check_reference_bounds(learning)


def _check_burn_in(context: RunContext, parts: Components) -> None:
    """Checks burn-in, which needs a recurrent network."""
    if not context.burn_in:
        return
    if context.draws_transitions:
        raise UserError(
            "learner.burn_in leaves out the first decisions of a row, and buffer.sample=transitions has one; set it to 0"
        )
    if not context.is_recurrent:
        raise UserError("learner.burn_in warms up a recurrent state, which only network=gru has; set it to 0")
    if 0 < parts.episode_decisions <= context.burn_in:
        raise UserError(
            f"learner.burn_in={context.burn_in} leaves nothing of rows of {parts.episode_decisions} decisions; lower it"
        )


def _check_learning_starts(settings: Config, parts: Components) -> None:
    """Checks that the first update has a finished episode to sample."""
    env, spec = parts.env, parts.task.spec
    if settings["rollout_steps"] is None or parts.logged_rows:
        return  # whole episodes, or rows that are there already
    environments = env.num_envs * parts.ranks.world  # the steps of all ranks count together
    rollout = environments * settings["rollout_steps"]
    # Environments that end apart read their prompts step by step, and these steps count.
    first_rows = environments * (parts.episode_decisions if spec.lockstep else spec.row_transitions)
    if max(settings["learning_starts"], rollout) < first_rows:
        raise UserError(
            f"trainer.learning_starts={settings['learning_starts']} is before the first episodes end; set it to at least "
            f"{first_rows} decisions"
        )


def _check_data(config: Config, parts: Components) -> None:
    """Checks that required logged data exists, with rows of the kind that objectives or metrics need."""
    settings, env, spec = config["trainer"], parts.env, parts.task.spec
    for group, key in (("pretraining", "updates"), ("trainer", "demonstration_fraction")):
        if config[group][key] and env.demonstrate(1, torch.Generator(env.device), with_rewards=False) is None:
            raise UserError(
                f"{group}.{key} needs a task with answers of its own, such as a text, and env="
                f"{parts.context.option('env')} has none"
            )
    alone = settings["rollouts"] == 0 and not config["pretraining"]["updates"]
    if not parts.logged_rows and (alone or settings["offline_rounds"]):
        raise UserError(
            "trainer.offline_rounds are updates on logged data, and there is none: set data=trajectories data.path=FILE "
            "(data=random_walks, data=maze), or trainer.offline_rounds=0 and trainer.rollouts above 0"
        )
    if parts.logged_rows and settings["offline_rounds"] == 0:
        raise UserError(
            "logged data is used in trainer.offline_rounds (rounds of updates before the first rollout); set it"
        )
    for name, objective in parts.learner.objectives.items():
        if objective.requires.whole_episodes and (spec.truncates or parts.context.draws_transitions):
            raise UserError(
                f"objective {name} needs whole episodes in a row, but here rows are cut (buffer.sample=transitions, "
                "env.horizon_end=truncate, or an environment with long episodes); use td or path_consistency"
            )
    best, candidates = parts.evaluation.best_metric, parts.evaluator.best_candidates()
    if not candidates:
        raise UserError(
            f"{type(parts.evaluator).__name__}: none of its metrics has a direction (higher_is_better), so none can choose the "
            "best policy; give one to the metric that shall"
        )
    if best is not None and best not in candidates:
        raise UserError(
            f"evaluation.best_metric={best} is no metric that can choose the best policy of this run; choose one of "
            f"{', '.join(candidates)} (or null for the first){suggestion(best, candidates, 'evaluation.best_metric=')}"
        )
