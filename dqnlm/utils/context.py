"""Facts of a run that components use to check whether they are compatible with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunContext:
    """The argument of `part.check(context)` once all components of a run are built, as plain values.

    Attributes:
        option: group -> option as typed (`head` -> `scalar`), for messages.
        feedback: feedback, `taken` or `all_actions`.
        gamma: discount of one decision.
        burn_in: first decisions of a row that are not learned from.
        compiles: forwards are compiled (learner.compile).
        rollouts, offline_rounds: rounds with and without acting.
        batch_size: rows of a batch.
        num_envs: environments of a rollout.
        samples_per_prompt: consecutive environments that answer the same prompt.
        demonstration_fraction: share of each batch that is demonstrations.
        policy: policy.kind, by which the run acts when evaluated.
        beta: policy.beta, nats per unit of return; None where the policy has none.
        is_teacher_forced: observations do not depend on actions.
        is_on_text: tokens and rewards come from data, not from the environment.
        copies: consecutive environments that see the same observations.
        num_legal_actions: actions that may be chosen at some time.
        data: settings of the group `data`.
        objectives: their names.
        learns_returns: some objective makes Q follow the returns.
        uses_bootstrap: some objective reads the groups `bootstrap` and `returns`.
        clones_only: every objective clones the actions in the data.
        is_twin: two outputs, q and q2, learn the same.
        bootstrap_asks_online: `Bootstrap.asks_online`.
        bootstraps_inside: `Returns.bootstraps_inside`.
        is_match_indicator: `Reward.is_match_indicator`; False without a reward function.
        head_is_probability: `Head.is_probability`.
        has_value_stream: the projection of q has one.
        has_fixed_policy: the network has an output `policy`, and no weight that it depends on is learned.
        is_recurrent: `Body.is_recurrent`.
        has_target_copy: the target network is a copy.
        draws_transitions: the buffer draws single decisions.
        draws_whole_rollouts: `Buffer.draws_whole_rollouts`.
        draws_whole_groups: `Buffer.draws_whole_groups`.
    """

    option: Callable[[str], str]
    feedback: str
    gamma: float
    burn_in: int
    compiles: bool
    rollouts: int
    offline_rounds: int
    batch_size: int
    num_envs: int
    samples_per_prompt: int
    demonstration_fraction: float
    policy: str
    beta: float | None
    is_teacher_forced: bool
    is_on_text: bool
    copies: int
    num_legal_actions: int
    data: Mapping[str, Any]
    objectives: tuple[str, ...]
    learns_returns: bool
    uses_bootstrap: bool
    clones_only: bool
    is_twin: bool
    bootstrap_asks_online: bool
    bootstraps_inside: bool
    is_match_indicator: bool
    head_is_probability: bool
    has_value_stream: bool
    has_fixed_policy: bool
    is_recurrent: bool
    has_target_copy: bool
    draws_transitions: bool
    draws_whole_rollouts: bool
    draws_whole_groups: bool
