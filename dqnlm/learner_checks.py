"""Settings of the learner that cannot work with the others, refused before anything is trained."""

from __future__ import annotations

from typing import Any

from dqnlm.checks import kind
from dqnlm.errors import UserError

Config = dict[str, Any]


def check_learner(config: Config) -> None:
    """What can be seen from the settings alone.

    Raises:
        UserError: what does not go together, why, and what to set.
    """
    _check_reference(config)
    rows, copies = config["learner"]["rows_at_once"], config["env"].get("copies", 1)
    if rows is not None and rows % copies:
        raise UserError(
            f"learner.rows_at_once={rows} divides the env.copies={copies} rows that share one forward; set it to a multiple"
        )


def _check_reference(config: Config) -> None:
    """log pi_ref as a part of the reward: who reads it, whose policy it is, and that the return may leave its bounds."""
    learner, objectives, settings = config["learner"], config["objective"], config["trainer"]
    if learner["reference_weight"] <= 0:  # below 0 the learner itself refuses it
        if learner["reference_temperature"] != 1:
            raise UserError(
                "learner.reference_temperature is that of the reference policy, and learner.reference_weight=0 asks for none; "
                "set the weight, or leave the temperature at 1"
            )
        return
    others = {"path_consistency", "trajectory"} & set(objectives)
    if others or "td" not in objectives or learner["feedback"] != "taken":
        raise UserError(
            "learner.reference_weight pays the actions taken, which objective td with learner.feedback=taken learns from; "
            "path_consistency and trajectory have objective.*.reference=start for it. Set objective=[td], or the weight to 0"
        )
    begun = settings["warm_start_updates"] or settings["init_from"] is not None
    if not begun and kind(config["network"]) != "Pretrained":
        raise UserError(
            "learner.reference_weight holds to the policy that the run begins with, and here that is chance: set "
            "trainer.warm_start_updates or trainer.init_from=RUN (or network=pretrained)"
        )
    if settings["declared_policy"] == "reweighted":
        raise UserError(
            "learner.reference_weight compares with softmax(Q / T), and trainer.declared_policy=reweighted acts by another "
            "output, which holds to the cloned policy already; set the weight to 0, or trainer.declared_policy=boltzmann"
        )
    head = config["head"]
    by_reward = kind(head) == "Normalised" or (kind(head) == "Categorical" and None in (head["low"], head["high"]))
    if by_reward or head.get("loss") == "logistic":
        raise UserError(
            "learner.reference_weight adds log-probabilities to the rewards, and the return then leaves the bounds that the "
            "head is scaled by; set head=scalar with head.loss=huber or squared (or head.low and head.high of head=categorical)"
        )
