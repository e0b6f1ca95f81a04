"""Checks of settings alone, before anything is built."""

from __future__ import annotations

from typing import Any

from dqnlm.errors import UserError

Config = dict[str, Any]


def check_settings(config: Config) -> None:
    """Checks the settings that are invalid for all components.

    Raises:
        UserError: incompatible settings, with the reason and the settings to change.
    """
    _check_numbers(config)
    _check_copies(config)
    _check_acting(config["trainer"])
    _check_trainer(config["trainer"])
    learner = config["learner"]
    if learner["reference_weight"] <= 0 and learner["reference_temperature"] != 1:
        raise UserError(
            "learner.reference_temperature is that of the reference policy, and learner.reference_weight=0 asks for none; "
            "set the weight, or leave the temperature at 1"
        )


def _check_acting(settings: Config) -> None:
    reweighted, share = settings["declared_policy"] == "reweighted", settings["demonstration_share"]
    if reweighted and settings["beta"] is None:
        raise UserError(
            "trainer.declared_policy=reweighted needs trainer.beta, in nats per unit of return (1 is a start)"
        )
    if not reweighted and (settings["beta"] is not None or settings["betas"]):
        raise UserError(
            "trainer.beta and trainer.betas belong to trainer.declared_policy=reweighted; set them to null and []"
        )
    if not 0 <= share < 1:
        raise UserError(f"trainer.demonstration_share is a share of each batch, in [0, 1), not {share}")


def _check_numbers(config: Config) -> None:
    if not 0 <= config["seed"] < 2**50:  # the run's random streams are numbered seed * 1000 + 1, 2 ...
        raise UserError(f"seed must be at least 0 and below 2^50, not {config['seed']}")
    if config["threads"] is not None and config["threads"] < 1:
        raise UserError(f"threads must be at least 1 (or null for torch's own choice), not {config['threads']}")


def _check_trainer(settings: Config) -> None:
    for key in ("batch_rows", "updates_per_rollout", "log_every", "evaluate_every", "evaluation_episodes"):
        if settings[key] < 1:
            raise UserError(f"trainer.{key} must be at least 1, not {settings[key]}")
    for key in ("rollouts", "offline_rounds", "warm_start_updates"):
        if settings[key] < 0:
            raise UserError(f"trainer.{key} must be at least 0, not {settings[key]}")
    if settings["rollouts"] + settings["offline_rounds"] + settings["warm_start_updates"] < 1:
        raise UserError("trainer.rollouts must be at least 1 (or trainer.offline_rounds, with logged data)")
    if settings["warm_start_rows"] is not None and settings["warm_start_rows"] < 1:
        raise UserError(
            f"trainer.warm_start_rows must be at least 1 (or null for batch_rows), not {settings['warm_start_rows']}"
        )
    if settings["warm_start_lr"] is not None and settings["warm_start_lr"] <= 0:
        raise UserError(
            f"trainer.warm_start_lr must be above 0 (or null for optimizer.lr), not {settings['warm_start_lr']}"
        )
    for key in ("rollout_steps", "save_every", "early_stopping_evaluations"):
        if settings[key] is not None and settings[key] < 1:
            raise UserError(f"trainer.{key} must be at least 1 or null, not {settings[key]}")
    if settings["save_minutes"] is not None and settings["save_minutes"] <= 0:
        raise UserError(f"trainer.save_minutes must be above 0 (or null), not {settings['save_minutes']}")
    if settings["init_scale"] != 1 and settings["init_from"] is None:
        raise UserError(
            "trainer.init_scale is a factor of another run's Q: set trainer.init_from=RUN, or leave it at 1"
        )
    if settings["samples"] < 1 or settings["sample_tokens"] < 1 or settings["sample_temperature"] <= 0:
        raise UserError(
            "trainer.samples and trainer.sample_tokens must be at least 1, trainer.sample_temperature above 0"
        )


def _check_copies(config: Config) -> None:
    copies = config["env"].get("copies", 1)
    rows = config["trainer"]["batch_rows"]
    if rows % copies:
        raise UserError(
            f"trainer.batch_rows={rows} is no multiple of env.copies={copies}; set it to {(rows // copies + 1) * copies}"
        )
    at_once = config["learner"]["rows_at_once"]
    if at_once is not None and at_once % copies:
        raise UserError(
            f"learner.rows_at_once={at_once} divides the env.copies={copies} rows that share one forward; set it to a multiple"
        )
