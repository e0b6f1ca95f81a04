"""Settings of the learner that cannot work with the others, refused before anything is trained."""

from __future__ import annotations

from dqnlm.config.selected import Config, kind, named
from dqnlm.errors import UserError

DISTRIBUTIONAL = ("Categorical", "Quantile", "ImplicitQuantile")


def check_learner(config: Config) -> None:
    """What can be seen from the settings alone.

    Raises:
        UserError: what does not go together, why, and what to set.
    """
    _check_feedback(config)
    _check_cloning(config)
    _check_bootstrap(config)
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


def _check_feedback(config: Config) -> None:
    feedback, transition = config["learner"]["feedback"], config["env"].get("transition")
    if feedback != "all_actions":
        return
    if "td" not in config["objective"]:
        raise UserError(
            "learner.feedback=all_actions has no objective that reads it; set objective=[td] or feedback=taken"
        )
    if transition != "teacher":
        raise UserError(
            f"learner.feedback=all_actions needs env.transition=teacher: with env.transition={transition} the text that "
            "would follow an action not taken is unknown. Set env.transition=teacher or learner.feedback=taken"
        )
    if kind(config["reward"]) != "ExactMatch":
        raise UserError(
            "learner.feedback=all_actions needs a reward that is known for actions not taken, which exact_match is; "
            "set reward=exact_match or learner.feedback=taken"
        )


def _check_cloning(config: Config) -> None:
    reference, td = kind(config["exploration"]) == "Reference", "td" in config["objective"]
    offline = config["trainer"]["rollouts"] == 0
    if reference and config["env"].get("transition") != "teacher" and not offline:
        raise UserError(
            "exploration=reference takes the text's own tokens, which needs env.transition=teacher (or logged data alone: "
            "data=trajectories trainer.rollouts=0)"
        )
    if reference and td and not offline and config["learner"]["feedback"] == "taken":
        raise UserError(
            "exploration=reference with objective td and feedback taken would be confounded: the choice of action depends "
            "on the hidden reference, so every action looks good. Use exploration=epsilon_greedy, or "
            "algorithm=behaviour_cloning to learn from demonstrations"
        )
    if "cross_entropy" in config["objective"] and not reference and not offline:
        raise UserError(
            "objective cross_entropy clones the actions in the buffer, and these would be the agent's own; set "
            "exploration=reference (algorithm=behaviour_cloning does both), or learn from logged data alone (data=trajectories "
            "trainer.rollouts=0)"
        )


def _check_bootstrap(config: Config) -> None:
    """Targets that have been derived, and no others."""
    head, bootstrap, returns = (kind(config[group]) for group in ("head", "bootstrap", "returns"))
    objectives = config["objective"]
    if head in DISTRIBUTIONAL:
        if bootstrap not in ("Max", "Double"):
            raise UserError(
                f"bootstrap={named(config, 'bootstrap')} is a mixture over actions, and its target is not derived for a "
                f"distribution of returns (head={named(config, 'head')}); use bootstrap=double or max, or head=scalar"
            )
        if returns == "Lambda":
            raise UserError(
                f"returns=lambda mixes returns of all lengths, and its target is not derived for a distribution of returns "
                f"(head={named(config, 'head')}); use returns=n_step, or head=scalar"
            )
        if config["learner"]["feedback"] == "all_actions":
            raise UserError(
                f"learner.feedback=all_actions needs head=scalar or head=normalised, not head={named(config, 'head')}"
            )
    soft = [name for name in ("path_consistency", "trajectory") if name in objectives]
    if "td" in objectives and bootstrap in ("Soft", "Munchausen"):
        soft.append(f"bootstrap={named(config, 'bootstrap')}")
    if soft and (head in ("Normalised", *DISTRIBUTIONAL) or config["head"].get("loss") == "logistic"):
        raise UserError(
            f"{soft[0]} adds entropy to the return, which then leaves the bounds of the reward that the head is scaled by; set "
            "head=scalar with head.loss=huber or squared"
        )
    if config["learner"]["feedback"] == "all_actions" and (returns != "OneStep" or bootstrap in ("Munchausen",)):
        raise UserError(
            "learner.feedback=all_actions teaches one-step targets: set returns=one_step and bootstrap=max or double"
        )
    if "td" in objectives and bootstrap == "Value" and "expectile_value" not in objectives:
        raise UserError("bootstrap=value needs something that learns v: set objective=[td,expectile_value]")
    if "td" in objectives and objectives["td"]["twin"] and head in ("Normalised",):
        raise UserError("objective.td.twin=true needs head=scalar or a distributional head")
    if "trajectory" in objectives and config["learner"]["gamma"] != 1:
        raise UserError(
            f"objective trajectory sums whole episodes and needs learner.gamma=1, not {config['learner']['gamma']}"
        )
    if "trajectory" in objectives and objectives["trajectory"]["baseline"] == "siblings":
        _check_siblings(config)
    graphs = [config[group].get("graph_seed") for group in ("data", "env")]
    if None not in graphs and graphs[0] != graphs[1]:
        raise UserError(
            f"data.graph_seed={graphs[0]} logs walks of another graph than env.graph_seed={graphs[1]}; leave it out"
        )
    lists = [config["data"].get("words"), config["env"].get("partner", {}).get("words")]
    if None not in lists and lists[0] != lists[1]:
        raise UserError(
            f"data.words={lists[0]} logs games with another list than env.partner.words={lists[1]} plays; set both alike"
        )
    if config["target"].get("heads_only") and config["learner"]["compile"]:
        raise UserError("target.heads_only=true shares one forward that is not compiled; set learner.compile=false")
    if config["learner"]["burn_in"] and config["buffer"].get("sample") == "transitions":
        raise UserError(
            "learner.burn_in leaves out the first decisions of a row, and buffer.sample=transitions has one; set it to 0"
        )
    if config["learner"]["burn_in"] and kind(config["network"]) != "GRU":
        raise UserError("learner.burn_in warms up a recurrent state, which only network=gru has; set it to 0")


def _check_siblings(config: Config) -> None:
    """Every batch must hold all answers to its prompts."""
    env, settings = config["env"], config["trainer"]
    answers = "objective.trajectory.baseline=siblings compares the answers to one prompt in a batch: "
    if env.get("copies_of_a_prompt", 1) < 2:
        raise UserError(
            f"{answers}set env.copies_of_a_prompt=4 or so, in an environment that has it (env=translation), or baseline=value"
        )
    if kind(config["buffer"]) != "RolloutBuffer" or settings["batch_rows"] < env["num_envs"]:
        raise UserError(
            f"{answers}set buffer=rollout and trainer.batch_rows={env['num_envs']} (env.num_envs), a whole rollout, or "
            "baseline=value"
        )
    if settings["demonstration_share"]:
        raise UserError(
            f"{answers}a demonstration has no siblings; set trainer.demonstration_share=0, or baseline=value"
        )
