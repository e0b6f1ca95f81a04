"""Checks of settings alone, before anything is built."""

from __future__ import annotations

from typing import Any

from dqnlm.config.schema import instantiate
from dqnlm.errors import UserError

Config = dict[str, Any]


def check_settings(config: Config) -> None:
    """Checks the settings that are invalid for all components.

    Raises:
        UserError: incompatible settings, with the reason and the settings to change.
    """
    _check_numbers(config)
    _check_groups(config)
    for group in ("evaluation", "checkpoint", "pretraining", "policy"):
        instantiate(config[group])  # each refuses numbers outside its range
    if config["policy"]["kind"] != "reweighted" and config["evaluation"]["betas"]:
        raise UserError("evaluation.betas are further values of policy.beta, and belong to policy.kind=reweighted; set []")
    _check_trainer(config["trainer"], config["pretraining"]["updates"])
    learner = config["learner"]
    if learner["kl_weight"] <= 0 and learner["kl_temperature"] != 1:
        raise UserError(
            "learner.kl_temperature is that of the reference policy, and learner.kl_weight=0 asks for none; set the weight, or "
            "leave the temperature at 1"
        )


def _check_numbers(config: Config) -> None:
    if not 0 <= config["gamma"] <= 1:
        raise UserError(f"gamma is a discount, between 0 and 1, not {config['gamma']}")
    if not 0 <= config["seed"] < 2**50:  # the run's random streams are numbered seed * 1000 + 1, 2 ...
        raise UserError(f"seed must be at least 0 and below 2^50, not {config['seed']}")
    if config["threads"] is not None and config["threads"] < 1:
        raise UserError(f"threads must be at least 1 (or null for torch's own choice), not {config['threads']}")


def _check_trainer(settings: Config, pretraining_updates: int) -> None:
    for key in ("batch_size", "updates_per_rollout", "log_every"):
        if settings[key] < 1:
            raise UserError(f"trainer.{key} must be at least 1, not {settings[key]}")
    for key in ("rollouts", "offline_rounds"):
        if settings[key] < 0:
            raise UserError(f"trainer.{key} must be at least 0, not {settings[key]}")
    if settings["rollouts"] + settings["offline_rounds"] + pretraining_updates < 1:
        raise UserError("trainer.rollouts must be at least 1 (or trainer.offline_rounds, with logged data)")
    if settings["rollout_steps"] is not None and settings["rollout_steps"] < 1:
        raise UserError(f"trainer.rollout_steps must be at least 1 or null, not {settings['rollout_steps']}")
    if not 0 <= settings["demonstration_fraction"] < 1:
        raise UserError(
            f"trainer.demonstration_fraction is a fraction of each batch, in [0, 1), not {settings['demonstration_fraction']}"
        )


def _check_groups(config: Config) -> None:
    group, rows = config["env"].get("guesses_per_position", 1), config["trainer"]["batch_size"]
    if rows % group:
        raise UserError(
            f"trainer.batch_size={rows} is no multiple of env.guesses_per_position={group}; set it to "
            f"{(rows // group + 1) * group}"
        )
    micro = config["learner"]["micro_batch_size"]
    if micro is not None and micro % group:
        raise UserError(
            f"learner.micro_batch_size={micro} divides the env.guesses_per_position={group} rows that share one forward; set it "
            "to a multiple"
        )
