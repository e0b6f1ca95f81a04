"""Compatibility rules between the learning components, by their flags; checked before the network is built."""

from __future__ import annotations

from typing import Any

from dqnlm.builder.learning_parts import LearningParts
from dqnlm.builder.q_semantics import learns_returns
from dqnlm.errors import UserError

Config = dict[str, Any]


def check_learning(config: Config, learning: LearningParts) -> None:
    """Checks the combination of head, targets, objectives, reward, exploration and environment.

    Raises:
        UserError: incompatible components, with the reason and the settings to change.
    """
    if config["feedback"] == "all_actions":
        _check_all_actions(config, learning)
    if config["trainer"]["rollout_steps"] is not None and learning.task.spec.teacher_forced:
        raise UserError(
            "trainer.rollout_steps cuts rollouts that are played step by step; with env.transition=teacher whole episodes "
            "are played at once: set trainer.rollout_steps=null or env.transition=free"
        )
    _check_cloning(config, learning)
    _check_several_rewards(config, learning)
    _check_distribution(learning)
    _check_bounds(learning)
    _check_bootstrap(learning)
    _check_policy(config, learning)
    if config["learner"]["kl_weight"] > 0:  # below 0 the learner itself refuses it
        _check_reference(config, learning)


def _check_all_actions(config: Config, learning: LearningParts) -> None:
    transition = config["env"].get("transition")
    if not any(objective.learns_all_actions for objective in learning.objectives.values()):
        raise UserError(
            "feedback=all_actions has no objective that reads it; set objective=[td] or feedback=taken"
        )
    if not learning.task.spec.teacher_forced:
        played = "in this environment" if transition is None else f"with env.transition={transition}"
        raise UserError(
            f"feedback=all_actions needs env.transition=teacher: {played} the text that would follow an action not "
            "taken is unknown. Set env.transition=teacher or feedback=taken"
        )
    if learning.reward is None or not learning.reward.knows_all_actions:
        raise UserError(
            f"feedback=all_actions needs a reward that is known for actions not taken, and reward="
            f"{learning.option('reward')} is not (a mixture is where all of its parts are); set reward=exact_match or "
            "feedback=taken"
        )


def _check_cloning(config: Config, learning: LearningParts) -> None:
    """Checks that cloned actions come from demonstrations or data."""
    if (
        config["trainer"]["rollouts"] == 0 or not learning.task.plays
    ):  # playing what is not playable is refused by itself
        return
    if learning.exploration.uses_reference:
        paid = [name for name, objective in learning.objectives.items() if objective.learns_returns]
        if learning.task.spec.teacher_forced and paid and config["feedback"] == "taken":
            raise UserError(
                f"exploration={learning.option('exploration')} with objective {paid[0]} and feedback taken would be "
                "confounded: the choice of action depends on the hidden reference, so every action looks good. Use "
                "exploration=epsilon_greedy, or algorithm=behaviour_cloning to learn from demonstrations"
            )
        return
    if config["trainer"]["demonstration_fraction"]:
        return  # the demonstrations alone are cloned
    for name, objective in learning.objectives.items():
        if objective.clones_actions:
            raise UserError(
                f"objective {name} clones the actions in the buffer, and these would be the agent's own; set exploration="
                "reference (algorithm=behaviour_cloning does both), learn from logged data alone (data=trajectories "
                "trainer.rollouts=0), or set trainer.demonstration_fraction above 0, with env.transition=free: then the "
                "demonstrations alone are cloned"
            )


def _check_several_rewards(config: Config, learning: LearningParts) -> None:
    """Checks that Q is a return of each reward, so that Qs may be added up."""
    if not learning.task.spec.reward_names:
        return
    if config["learner"]["kl_weight"]:
        raise UserError(
            "learner.kl_weight adds log-probabilities to one reward, and data.rewards names several, which are learned apart; "
            "set it to 0 (policy.kind=reweighted keeps near the cloned policy when it acts)"
        )
    if learning.bootstrap.adds_entropy:
        raise UserError(
            f"bootstrap={learning.option('bootstrap')} is the value of one reward's own soft policy, and data.rewards learns a Q "
            "for each of several, which are added up when the run acts; use bootstrap=value, double or max"
        )


def _check_distribution(learning: LearningParts) -> None:
    """Checks that distributional targets are defined for the combination."""
    if not learning.head.is_distributional:
        return
    head = learning.option("head")
    if not learning.bootstrap.names_action:
        raise UserError(
            f"bootstrap={learning.option('bootstrap')} is not the value of one action, and its target is not derived for a "
            f"distribution of returns (head={head}); use bootstrap=double or max, or head=scalar"
        )
    if not learning.returns.is_affine:
        raise UserError(
            f"returns={learning.option('returns')} mixes values of several observations, and its target is not derived for "
            f"a distribution of returns (head={head}); use returns=n_step, or head=scalar"
        )


def _check_bounds(learning: LearningParts) -> None:
    """Checks that nothing is added to returns where the head is scaled by the bounds of the rewards."""
    soft = [name for name, objective in learning.objectives.items() if objective.adds_entropy]
    if learning.bootstrap.adds_entropy and any(o.uses_bootstrap for o in learning.objectives.values()):
        soft.append(f"bootstrap={learning.option('bootstrap')}")
    if soft and (learning.head.is_scaled_by_bounds or learning.head.is_distributional):
        raise UserError(
            f"{soft[0]} adds entropy to the return, which then leaves the bounds of the reward that the head is scaled by; set "
            "head=scalar with head.loss=huber or squared"
        )


def _check_bootstrap(learning: LearningParts) -> None:
    """Checks that a value used by the bootstrap is trained by an objective."""
    learned = {name for objective in learning.objectives.values() for name in objective.learns_outputs}
    missing = [name for name in learning.bootstrap.needs_outputs if name not in learned]
    if missing and any(objective.uses_bootstrap for objective in learning.objectives.values()):
        raise UserError(
            f"the bootstrap needs something that learns {missing[0]}: for bootstrap=value set objective=[td,expectile_value]"
        )


def _check_policy(config: Config, learning: LearningParts) -> None:
    """Checks the outputs that the agent acts by, and demonstrations."""
    reweighted, objectives = config["policy"]["kind"] == "reweighted", learning.objectives.values()
    network = config["network"]
    is_fixed = network.get("lora_rank") == 0 and not network.get("train_output_layer")  # pi_b is the pretrained model
    if reweighted and not is_fixed and not any("policy" in objective.requires.outputs for objective in objectives):
        raise UserError(
            "policy.kind=reweighted acts by log pi_b + beta (Q - V) and needs a cloned pi_b: add objective "
            "cross_entropy with objective.cross_entropy.output=policy (algorithm=ilql does), or keep the pretrained model as "
            "pi_b (network=pretrained network.lora_rank=0)"
        )
    if config["trainer"]["demonstration_fraction"] and learning.task.spec.teacher_forced:
        raise UserError(
            "trainer.demonstration_fraction with env.transition=teacher would be confounded: there the choice of a demonstration "
            "depends on the hidden reference, so every action seems right. Set env.transition=free"
        )
    if config["pretraining"]["updates"] and not reweighted and not learning.head.raw_is_q:
        raise UserError(
            "pretraining.updates clones the text's answers into Q as logits, and here a raw output is no Q: set "
            "head=scalar with head.loss=huber or squared (or policy.kind=reweighted, which clones beside Q)"
        )


def _check_reference(config: Config, learning: LearningParts) -> None:
    """Checks log pi_ref in the reward: an objective uses it, the reference is trained, and returns may exceed bounds."""
    objectives = learning.objectives
    soft = any(objective.adds_entropy for objective in objectives.values())
    if soft or not learns_returns(objectives) or config["feedback"] != "taken":
        raise UserError(
            "learner.kl_weight adds to the reward of the actions taken, used only by td with feedback=taken; "
            "path_consistency and trajectory have objective.*.reference=start for it. Set objective=[td], or the weight to 0"
        )
    if config["policy"]["kind"] == "reweighted":
        raise UserError(
            "learner.kl_weight compares with softmax(Q / T), and policy.kind=reweighted acts by another "
            "output, which holds to the cloned policy already; set the weight to 0, or policy.kind=boltzmann"
        )
    if begins_from_weights(config):
        check_reference_bounds(learning)


def begins_from_weights(config: Config) -> bool:
    """Whether the settings give the run a trained initial policy."""
    settings = config["pretraining"]
    return bool(settings["updates"]) or settings["init_from"] is not None


def check_reference_bounds(learning: LearningParts) -> None:
    """Raises UserError where log-probabilities are added to rewards and the head is scaled by the bounds of these."""
    if learning.head.is_scaled_by_bounds:
        raise UserError(
            "learner.kl_weight adds log-probabilities to the rewards, and the return then leaves the bounds that the "
            "head is scaled by; set head=scalar with head.loss=huber or squared (or head.low and head.high of head=categorical)"
        )
