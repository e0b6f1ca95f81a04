"""Combinations that cannot work, as far as they show only once the parts of a run exist; refused before it trains."""

from __future__ import annotations

from typing import Any

import torch

from dqnlm.config.selected import kind, named
from dqnlm.errors import UserError
from dqnlm.training.components import Parts
from dqnlm.utils.suggest import suggestion

Config = dict[str, Any]


def check_parts(config: Config, parts: Parts) -> None:
    """What can be seen only once the parts exist.

    Raises:
        UserError: episodes longer than the network reads, a buffer smaller than a rollout, a policy that Q cannot give.
    """
    env, spec, network, buffer = parts.env, parts.task.spec, parts.policy.network, parts.buffer
    if network.max_observations is not None and spec.row_transitions > network.context:
        shape = config["env"]
        if "prompt_length" not in shape:
            raise UserError(
                f"rows of env={named(config, 'env')} have up to {spec.row_transitions} transitions, more than network.context="
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
    _check_learning_starts(config["trainer"], parts)
    _check_data(config, parts)
    if parts.policy.declared == "probability" and not _is_probability(parts):
        raise UserError(
            "trainer.declared_policy=probability needs Q to be the probability of being the rewarded token: reward="
            "exact_match with head=normalised, or with head.loss=logistic and learner.gamma=0; set declared_policy=boltzmann"
        )
    legal_A = parts.policy.legal_A
    choices = spec.num_actions if legal_A is None else int(legal_A.sum())
    if kind(config["exploration"]) == "ProbabilityMatching" and spec.guesses_per_position > choices:
        raise UserError(
            f"exploration=probability_matching lets each of env.copies={spec.guesses_per_position} try another action, but only "
            f"{choices} may be chosen; set env.copies to at most {choices}"
        )
    if kind(config["exploration"]) == "ProbabilityMatching" and not _is_probability(parts):
        raise UserError(
            "exploration=probability_matching needs Q to be the probability of being the rewarded token: head=normalised, "
            "or head.loss=logistic with learner.gamma=0, and reward=exact_match; use exploration=boltzmann"
        )


def _check_learning_starts(settings: Config, parts: Parts) -> None:
    """An update needs a finished episode to draw from."""
    env, spec = parts.env, parts.task.spec
    if settings["rollout_steps"] is None or parts.logged_rows:
        return  # whole episodes, or rows that are there already
    rollout = env.num_envs * settings["rollout_steps"]
    # Environments that end apart read their prompts step by step, and these steps count.
    first_rows = env.num_envs * (parts.episode_decisions if spec.lockstep else spec.row_transitions)
    if max(settings["learning_starts"], rollout) < first_rows:
        raise UserError(
            f"trainer.learning_starts={settings['learning_starts']} is before the first episodes end; set it to at least "
            f"{first_rows} decisions"
        )


def _check_data(config: Config, parts: Parts) -> None:
    """Logged data where it is needed, and rows of the kind that an objective or a figure needs."""
    settings, env, spec = config["trainer"], parts.env, parts.task.spec
    for key in ("warm_start_updates", "demonstration_share"):
        if settings[key] and env.demonstrate(1, torch.Generator(env.device), judged=False) is None:
            raise UserError(
                f"trainer.{key} needs a task with answers of its own, such as a text, and env={named(config, 'env')} has none"
            )
    alone = settings["rollouts"] == 0 and not settings["warm_start_updates"]
    if not parts.logged_rows and (alone or settings["offline_rounds"]):
        raise UserError(
            "trainer.offline_rounds are updates on logged data, and there is none: set data=trajectories data.path=FILE "
            "(data=random_walks, data=maze), or trainer.offline_rounds=0 and trainer.rollouts above 0"
        )
    if parts.logged_rows and settings["offline_rounds"] == 0:
        raise UserError(
            "logged data is learned from in trainer.offline_rounds (rounds of updates before the first rollout); set it"
        )
    for name, objective in parts.learner.objectives.items():
        if objective.requires.whole_episodes and (spec.truncates or config["buffer"].get("sample") == "transitions"):
            raise UserError(
                f"objective {name} needs whole episodes in a row, but here rows are cut (buffer.sample=transitions, "
                "env.horizon_end=truncate, or an environment with long episodes); use td or path_consistency"
            )
    if 0 < parts.episode_decisions <= config["learner"]["burn_in"]:
        raise UserError(
            f"learner.burn_in={config['learner']['burn_in']} leaves nothing of rows of {parts.episode_decisions} decisions; "
            "lower it"
        )
    if parts.buffer.needs_errors and not {"td", "path_consistency", "trajectory"} & set(config["objective"]):
        raise UserError("buffer=prioritized replays large errors, and no objective here has any; set buffer=uniform")
    best, candidates = settings["best_metric"], parts.evaluator.best_candidates()
    if best is not None and best not in candidates:
        raise UserError(
            f"trainer.best_metric={best} is no metric that can choose the best policy of this run; choose one of "
            f"{', '.join(candidates)} (or null for the first){suggestion(best, candidates, 'trainer.best_metric=')}"
        )


def _is_probability(parts: Parts) -> bool:
    return parts.policy.head.is_probability
