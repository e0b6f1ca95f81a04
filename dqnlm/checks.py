"""Combinations that cannot work, refused in one place, before anything is trained."""

from __future__ import annotations

from typing import Any

from dqnlm.catalogue import option_of
from dqnlm.errors import UserError

Config = dict[str, Any]
DISTRIBUTIONAL = ("Categorical", "Quantile", "ImplicitQuantile")
BEST_METRICS = (
    "eval/accuracy", "eval/nats", "eval/nats_softmax", "eval/return", "eval/nats_best", "eval/return_correlation",
    "eval/return_explained",
)  # fmt: skip


def kind(node: Config) -> str:
    """The last part of `_target_`: what a group was set to, in code."""
    return str(node["_target_"]).rsplit(".", 1)[-1]


def named(config: Config, group: str) -> str:
    """What a group was set to, as it is typed."""
    return option_of(group, config[group]["_target_"])


def pays_only_the_match(reward: Config) -> bool:
    """Whether a reward is 1 for the text's own token and 0 for any other, so that its mean is a probability."""
    return kind(reward) == "ExactMatch" and (reward["match"], reward["mismatch"]) == (1, 0)


def check_combination(config: Config) -> None:
    """What can be seen from the settings alone.

    Raises:
        UserError: what does not go together, why, and what to set.
    """
    _check_log(config)
    _check_numbers(config)
    _check_feedback(config)
    _check_cloning(config)
    _check_copies(config)
    _check_bootstrap(config)
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
    if settings["best_metric"] not in (None, *BEST_METRICS):
        raise UserError(f"trainer.best_metric={settings['best_metric']} is none of {', '.join(BEST_METRICS)}")
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


def _check_copies(config: Config) -> None:
    copies = config["env"].get("copies", 1)
    rows = config["trainer"]["batch_rows"]
    if rows % copies:
        raise UserError(
            f"trainer.batch_rows={rows} is no multiple of env.copies={copies}; set it to {(rows // copies + 1) * copies}"
        )
