"""Combinations that cannot work, refused in one place, before anything is trained."""

from __future__ import annotations

from dqnlm.builder.checks.learner import check_learner
from dqnlm.config.selected import Config, kind, pays_only_the_match
from dqnlm.errors import UserError


def check_combination(config: Config) -> None:
    """What can be seen from the settings alone.

    Raises:
        UserError: what does not go together, why, and what to set.
    """
    _check_log(config)
    _check_numbers(config)
    _check_copies(config)
    check_learner(config)
    _check_acting(config)
    _check_demonstrations(config)
    _check_trainer(config["trainer"], config["env"])
    if kind(config["head"]) == "Normalised":
        if config["env"].get("transition") != "teacher" or not pays_only_the_match(config["reward"]):
            raise UserError(
                "head=normalised says that exactly one action is rewarded, with 1, and that the future is the same for all, "
                "which needs env.transition=teacher and reward=exact_match with reward.match=1 and reward.mismatch=0; else "
                "use head=scalar"
            )
        if kind(config["projection"]) != "Dueling":
            raise UserError("head=normalised reads the value stream of a dueling projection: set projection=dueling")


def _check_acting(config: Config) -> None:
    settings, objectives = config["trainer"], config["objective"]
    reweighted = settings["declared_policy"] == "reweighted"
    if reweighted and objectives.get("cross_entropy", {}).get("output") != "policy":
        raise UserError(
            "trainer.declared_policy=reweighted acts by log pi_b + beta (Q - V) and needs a cloned pi_b: add objective "
            "cross_entropy with objective.cross_entropy.output=policy (algorithm=ilql does)"
        )
    if reweighted and settings["beta"] is None:
        raise UserError(
            "trainer.declared_policy=reweighted needs trainer.beta, in nats per unit of return (1 is a start)"
        )
    if not reweighted and (settings["beta"] is not None or settings["betas"]):
        raise UserError(
            "trainer.beta and trainer.betas belong to trainer.declared_policy=reweighted; set them to null and []"
        )


def _check_demonstrations(config: Config) -> None:
    settings, head = config["trainer"], config["head"]
    share = settings["demonstration_share"]
    if not 0 <= share < 1:
        raise UserError(f"trainer.demonstration_share is a share of each batch, in [0, 1), not {share}")
    if share and config["env"].get("transition") == "teacher":
        raise UserError(
            "trainer.demonstration_share with env.transition=teacher would be confounded: there the choice of a demonstration "
            "depends on the hidden reference, so every action looks good. Set env.transition=free"
        )
    if share and (kind(config["buffer"]) != "UniformBuffer" or config["buffer"]["sample"] != "rows"):
        raise UserError(
            "trainer.demonstration_share fills a part of each batch with whole rows: set buffer=uniform buffer.sample=rows"
        )
    plain = kind(head) == "Scalar" and head["loss"] in ("huber", "squared")
    if settings["warm_start_updates"] and settings["declared_policy"] != "reweighted" and not plain:
        raise UserError(
            "trainer.warm_start_updates clones the text's answers into Q as logits, and here a raw output is no Q: set "
            "head=scalar with head.loss=huber or squared (or trainer.declared_policy=reweighted, which clones beside Q)"
        )


def _check_numbers(config: Config) -> None:
    if not 0 <= config["seed"] < 2**50:  # the run's random streams are numbered seed * 1000 + 1, 2 ...
        raise UserError(f"seed must be at least 0 and below 2^50, not {config['seed']}")
    if config["threads"] is not None and config["threads"] < 1:
        raise UserError(f"threads must be at least 1 (or null for torch's own choice), not {config['threads']}")


def _check_trainer(settings: Config, env: Config) -> None:
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
    if settings["rollout_steps"] is not None and env.get("transition") == "teacher":
        raise UserError(
            "trainer.rollout_steps cuts rollouts that are played step by step; with env.transition=teacher whole episodes "
            "are played at once: set trainer.rollout_steps=null or env.transition=free"
        )
    if settings["init_scale"] != 1 and settings["init_from"] is None:
        raise UserError(
            "trainer.init_scale is a factor of another run's Q: set trainer.init_from=RUN, or leave it at 1"
        )
    if settings["samples"] < 1 or settings["sample_tokens"] < 1 or settings["sample_temperature"] <= 0:
        raise UserError(
            "trainer.samples and trainer.sample_tokens must be at least 1, trainer.sample_temperature above 0"
        )


def _check_log(config: Config) -> None:
    """Nothing can be played beside a log alone."""
    settings = config["trainer"]
    if kind(config["env"]) != "Logged":
        return
    if settings["rollouts"] or settings["offline_rounds"] < 1:
        raise UserError(
            f"env=logged has nothing to play, and trainer.rollouts={settings['rollouts']} plays: set trainer.rollouts=0 and "
            "trainer.offline_rounds to the rounds of updates on the log"
        )
    if settings["declared_policy"] == "probability":
        raise UserError(
            "trainer.declared_policy=probability needs Q to be the probability of being the rewarded token, and a log tells the "
            "reward of one token; set declared_policy=boltzmann or reweighted"
        )


def _check_copies(config: Config) -> None:
    copies = config["env"].get("copies", 1)
    rows = config["trainer"]["batch_rows"]
    if rows % copies:
        raise UserError(
            f"trainer.batch_rows={rows} is no multiple of env.copies={copies}; set it to {(rows // copies + 1) * copies}"
        )
