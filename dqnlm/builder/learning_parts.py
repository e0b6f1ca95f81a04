"""The learning components, which are cheap to build and checked before the network is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dqnlm.agent.exploration import Exploration
from dqnlm.agent.learner import Learner
from dqnlm.agent.policy import Policy
from dqnlm.buffers.base import Buffer
from dqnlm.builder import agent
from dqnlm.builder.q_semantics import learns_returns
from dqnlm.config.schema import instantiate
from dqnlm.heads.base import Head
from dqnlm.objectives.base import Objective
from dqnlm.objectives.bootstrap import Bootstrap
from dqnlm.objectives.returns import Returns
from dqnlm.rewards.base import Reward
from dqnlm.tasks.base import Task
from dqnlm.utils import streams
from dqnlm.utils.context import RunContext
from dqnlm.utils.output_names import first_q, plain

Config = dict[str, Any]


@dataclass(frozen=True)
class LearningParts:
    """The learning components of a run.

    Attributes:
        reward: None where the environment brings its own.
        option: group -> option as typed, for messages.
    """

    task: Task
    reward: Reward | None
    head: Head
    bootstrap: Bootstrap
    returns: Returns
    objectives: dict[str, Objective]
    exploration: Exploration
    option: Callable[[str], str]


def build_learning_parts(config: Config, task: Task) -> LearningParts:
    """Builds the components from the configuration, for this task.

    Raises:
        UserError: a part refuses its settings.
    """
    head, bootstrap, returns = agent.build_head(config, task), agent.build_bootstrap(config), agent.build_returns(config)
    generator = streams.stream(task.device, config["seed"], streams.EXPLORATION)
    exploration = instantiate(config["exploration"], generator, task.spec.guesses_per_position)
    objectives = agent.build_objectives(config, task, head, bootstrap, returns)
    return LearningParts(task, task.reward, head, bootstrap, returns, objectives, exploration, task.option)


def run_context(
    config: Config, learning: LearningParts, policy: Policy, learner: Learner, buffer: Buffer
) -> RunContext:
    """The facts of a run whose components are built."""
    task, settings, objectives = learning.task, config["trainer"], list(learning.objectives.values())
    spec, legal_A, projections = task.spec, policy.legal_A, policy.network.projections
    return RunContext(
        option=learning.option,
        feedback=config["feedback"],
        gamma=config["gamma"],
        burn_in=config["learner"]["burn_in"],
        compiles=config["learner"]["compile"],
        rollouts=settings["rollouts"],
        offline_rounds=settings["offline_rounds"],
        batch_size=settings["batch_size"],
        num_envs=task.env.num_envs,
        samples_per_prompt=config["env"].get("samples_per_prompt", 1),
        demonstration_fraction=settings["demonstration_fraction"],
        policy=config["policy"]["kind"],
        beta=config["policy"]["beta"],
        is_teacher_forced=spec.teacher_forced,
        is_on_text=task.has_text,
        copies=spec.guesses_per_position,
        num_legal_actions=spec.num_actions if legal_A is None else int(legal_A.sum()),
        data=config["data"],
        objectives=tuple(learning.objectives),
        learns_returns=learns_returns(learning.objectives),
        uses_bootstrap=any(objective.uses_bootstrap for objective in objectives),
        clones_only=all(objective.clones_actions for objective in objectives),
        is_twin=any(plain(name, spec.reward_names) == "q2" for name in policy.outputs),
        bootstrap_asks_online=learning.bootstrap.asks_online,
        bootstraps_inside=learning.returns.bootstraps_inside,
        is_match_indicator=learning.reward is not None and learning.reward.is_match_indicator,
        head_is_probability=learning.head.is_probability,
        has_value_stream=getattr(projections[first_q(projections)], "has_value_stream", False),
        has_fixed_policy="policy" in policy.outputs and not policy.network.learns("policy"),
        is_recurrent=policy.network.body.is_recurrent,
        has_target_copy=learner.target.copies,
        draws_transitions=buffer.mode == "transitions",
        draws_whole_rollouts=buffer.draws_whole_rollouts,
        draws_whole_groups=buffer.draws_whole_groups,
    )
