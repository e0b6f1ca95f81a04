"""Combinations that cannot work, refused in one place, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqnlm.errors import UserError

if TYPE_CHECKING:
    from dqnlm.trainer import Parts

Config = dict[str, Any]
BEST_METRICS = ("eval/accuracy", "eval/nats", "eval/nats_softmax", "eval/return")


def kind(node: Config) -> str:
    """The last part of `_target_`: what a group was set to, in code."""
    return str(node["_target_"]).rsplit(".", 1)[-1]


def pays_only_the_match(reward: Config) -> bool:
    """Whether a reward is 1 for the text's own token and 0 for any other, so that its mean is a probability."""
    return kind(reward) == "ExactMatch" and (reward["match"], reward["mismatch"]) == (1, 0)


def check_combination(config: Config) -> None:
    """What can be seen from the settings alone.

    Raises:
        UserError: what does not go together, why, and what to set.
    """
    _check_numbers(config)
    _check_feedback(config)
    _check_cloning(config)
    _check_copies(config)
    _check_trainer(config["trainer"], config["env"])
    if kind(config["head"]) == "Normalised":
        if config["env"]["transition"] != "teacher" or not pays_only_the_match(config["reward"]):
            raise UserError(
                "head=normalised says that exactly one action is rewarded, with 1, and that the future is the same for all, "
                "which needs env.transition=teacher and reward=exact_match with reward.match=1 and reward.mismatch=0; else "
                "use head=scalar"
            )
        if kind(config["projection"]) != "Dueling":
            raise UserError("head=normalised reads the value stream of a dueling projection: set projection=dueling")


def _check_numbers(config: Config) -> None:
    if not 0 <= config["seed"] < 2**50:  # the run's random streams are numbered seed * 1000 + 1, 2 ...
        raise UserError(f"seed must be at least 0 and below 2^50, not {config['seed']}")
    if config["threads"] is not None and config["threads"] < 1:
        raise UserError(f"threads must be at least 1 (or null for torch's own choice), not {config['threads']}")


def _check_feedback(config: Config) -> None:
    feedback, transition = config["learner"]["feedback"], config["env"]["transition"]
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
    if reference and config["env"]["transition"] != "teacher":
        raise UserError("exploration=reference takes the text's own tokens, which needs env.transition=teacher")
    if reference and td and config["learner"]["feedback"] == "taken":
        raise UserError(
            "exploration=reference with objective td and feedback taken would be confounded: the choice of action depends "
            "on the hidden reference, so every action looks good. Use exploration=epsilon_greedy, or "
            "algorithm=behaviour_cloning to learn from demonstrations"
        )
    if "cross_entropy" in config["objective"] and not reference:
        raise UserError(
            "objective cross_entropy clones the actions in the buffer, and these would be the agent's own; set "
            "exploration=reference (algorithm=behaviour_cloning does both)"
        )


def _check_trainer(settings: Config, env: Config) -> None:
    for key in ("rollouts", "batch_rows", "updates_per_rollout", "log_every", "evaluate_every", "evaluation_episodes"):
        if settings[key] < 1:
            raise UserError(f"trainer.{key} must be at least 1, not {settings[key]}")
    for key in ("rollout_steps", "save_every", "early_stopping_evaluations"):
        if settings[key] is not None and settings[key] < 1:
            raise UserError(f"trainer.{key} must be at least 1 or null, not {settings[key]}")
    if settings["save_minutes"] is not None and settings["save_minutes"] <= 0:
        raise UserError(f"trainer.save_minutes must be above 0 (or null), not {settings['save_minutes']}")
    if settings["rollout_steps"] is not None and env["transition"] == "teacher":
        raise UserError(
            "trainer.rollout_steps cuts rollouts that are played step by step; with env.transition=teacher whole episodes "
            "are played at once: set trainer.rollout_steps=null or env.transition=free"
        )
    if settings["best_metric"] not in BEST_METRICS:
        raise UserError(f"trainer.best_metric={settings['best_metric']} is none of {', '.join(BEST_METRICS)}")
    if settings["samples"] < 1 or settings["sample_tokens"] < 1 or settings["sample_temperature"] <= 0:
        raise UserError(
            "trainer.samples and trainer.sample_tokens must be at least 1, trainer.sample_temperature above 0"
        )


def _check_copies(config: Config) -> None:
    copies = config["env"]["copies"]
    rows = config["trainer"]["batch_rows"]
    if rows % copies:
        raise UserError(
            f"trainer.batch_rows={rows} is no multiple of env.copies={copies}; set it to {(rows // copies + 1) * copies}"
        )


def check_parts(config: Config, parts: Parts) -> None:
    """What can be seen only once the parts exist.

    Raises:
        UserError: episodes longer than the network reads, a buffer smaller than a rollout, a policy that Q cannot give.
    """
    env, network, buffer = parts.actor.env, parts.policy.network, parts.buffer
    if network.max_observations is not None and env.row_transitions > network.context:
        shape = config["env"]
        raise UserError(
            f"env.horizon={shape['horizon']} with env.prompt_length={shape['prompt_length']} makes episodes of "
            f"{env.row_transitions} tokens, more than network.context={network.context} reads; set env.horizon="
            f"{max(1, network.context - shape['prompt_length'] + 1)} or network.context={env.row_transitions}"
        )
    if buffer.rows < env.num_envs:
        raise UserError(
            f"buffer.capacity={config['buffer']['capacity']} holds {buffer.rows} episodes, fewer than the env.num_envs="
            f"{env.num_envs} of one rollout; set buffer.capacity to at least {env.num_envs * parts.episode_decisions}"
        )
    _check_learning_starts(config["trainer"], parts)
    if parts.policy.declared == "probability" and not _is_probability(parts):
        raise UserError(
            "trainer.declared_policy=probability needs Q to be the probability of being the rewarded token: reward="
            "exact_match with head=normalised, or with head.loss=logistic and learner.gamma=0; set declared_policy=boltzmann"
        )
    legal_A = parts.policy.legal_A
    choices = env.num_actions if legal_A is None else int(legal_A.sum())
    if kind(config["exploration"]) == "ProbabilityMatching" and env.copies > choices:
        raise UserError(
            f"exploration=probability_matching lets each of env.copies={env.copies} try another action, but only {choices} "
            f"may be chosen; set env.copies to at most {choices}"
        )
    if kind(config["exploration"]) == "ProbabilityMatching" and not _is_probability(parts):
        raise UserError(
            "exploration=probability_matching needs Q to be the probability of being the rewarded token: head=normalised, "
            "or head.loss=logistic with learner.gamma=0, and reward=exact_match; use exploration=boltzmann"
        )


def _check_learning_starts(settings: Config, parts: Parts) -> None:
    """An update needs a finished episode to draw from."""
    env = parts.actor.env
    if settings["rollout_steps"] is None:
        return  # whole episodes
    rollout = env.num_envs * settings["rollout_steps"]
    # Environments that end apart read their prompts step by step, and these steps count.
    first_rows = env.num_envs * (parts.episode_decisions if env.lockstep else env.row_transitions)
    if max(settings["learning_starts"], rollout) < first_rows:
        raise UserError(
            f"trainer.learning_starts={settings['learning_starts']} is before the first episodes end; set it to at least "
            f"{first_rows} decisions"
        )


def _is_probability(parts: Parts) -> bool:
    return parts.policy.head.is_probability
