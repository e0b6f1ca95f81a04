"""Trajectory balance: one residual per episode, the policy's log-probabilities against the return.

    loss_B = (V(s_1) + sum_t T log pi(a_t | s_t) - sum_t r_t)^2 / 2        V = T logsumexp_a Q / T

(TBRM, arXiv 2505.15311). With a reference policy T log (pi / pi_ref) stands in the place of T log pi: the optimum is then
pi_ref exp(R / T) / Z, and V(s_1) is T log Z (only differences of Q within a state are advantages, as Q holds T log pi_ref too).

There is no bootstrap between the start and the end, so a reward at the end of a long text is
credited to all of its tokens together. The entropy-regularised optimum has residual 0 on every trajectory of a
deterministic task, with gamma 1.

Where several rows answer the same prompt, V(s_1) need not be learned: at the optimum x_b = sum_t (r_t - T log pi) is T log Z
for each of them, so their spread is a loss by itself (VarGrad, Richter et al. 2020, arXiv 2010.10436):

    loss_b = (x_b - mean x)^2 / 2        the mean over the rows of the batch with this prompt

It trains the policy alone, and the actions may come from any policy. Q is then determined up to a constant for each state, so
it cannot be compared with returns (no eval/overestimation). A V that is regressed on returns in the same network also changes
the policy's logits: with it, translations got worse again after 50 updates (one seed).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import LossOutput, Objective, Outputs, Requirements
from dqnlm.objectives.soft_policy import reference_advantage, soft_advantage
from dqnlm.ops import losses
from dqnlm.types import Decisions
from dqnlm.utils.context import RunContext


class Trajectory(Objective):
    """The module's loss.

    Args:
        head: meaning of the raw q.
        weight: factor of this loss in the sum.
        temperature: T, in return units.
        reference: `start` is the initial policy of the run (after pretraining), `none` has no reference.
        baseline: of the return: `value`, V(s_1), or `group`, the rows of the batch with the same
            prompt; a row without siblings then has no gradient.

    Raises:
        UserError: a temperature that is not above 0.
    """

    learns_returns = adds_entropy = assumes_determinism = True
    reads_in_full = False

    def __init__(
        self, head: Head, *, weight: float, temperature: float, reference: Literal["none", "start"],
        baseline: Literal["value", "group"],
    ) -> None:  # fmt: skip
        super().__init__(weight)
        if temperature <= 0:
            raise UserError(f"objective.trajectory.temperature must be above 0, not {temperature}")
        self.head, self.temperature, self.among_siblings = head, temperature, baseline == "group"
        self.requires = Requirements(
            reference=reference == "start", whole_episodes=True, whole_batch=self.among_siblings, lookahead=None
        )
        self.leaves_level_open = self.among_siblings

    def check(self, context: RunContext) -> None:
        """See `Objective.check`.

        Raises:
            UserError: rewards are discounted, or a batch need not hold all answers to its prompts.
        """
        if context.gamma != 1:
            raise UserError(f"objective trajectory sums whole episodes and needs gamma=1, not {context.gamma}")
        if self.among_siblings:
            _check_siblings(context)

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """loss_B from online and reference q (times 0..T-1), actions and rewards of whole episodes."""
        advantage_BT, value_BT, taken_BT = soft_advantage(self.head, online, batch, self.temperature)
        prior_BT = reference_advantage(self.head, reference, batch, self.temperature)
        surplus_B = ((batch.reward_BT + prior_BT - advantage_BT) * batch.mask_BT).sum(1)
        if self.among_siblings:
            same_BB = same_prompt(batch.prompt_BS)
            baseline_B = (same_BB @ surplus_B) / same_BB.sum(1)
        else:
            baseline_B = value_BT.gather(1, batch.mask_BT.argmax(1, keepdim=True)).squeeze(1)
        metrics = {"q/taken_mean": taken_BT, "value/mean": value_BT}
        if reference is not None:
            metrics["policy/log_ratio"] = (advantage_BT.detach() - prior_BT) / self.temperature
        error_BT = (surplus_B - baseline_B).detach()[:, None].expand_as(taken_BT)
        return LossOutput(losses.squared(surplus_B, baseline_B), metrics, error_BT)


def _check_siblings(context: RunContext) -> None:
    answers = "objective.trajectory.baseline=group compares the answers to one prompt in a batch: "
    if context.samples_per_prompt < 2:
        raise UserError(
            f"{answers}set env.samples_per_prompt=4 or so, in an environment that has it (env=translation, env=prompts), "
            "or baseline=value"
        )
    whole = context.draws_whole_rollouts and context.batch_size >= context.num_envs
    if not (whole or context.draws_whole_groups):
        raise UserError(
            f"{answers}set buffer=rollout and trainer.batch_size={context.num_envs} (env.num_envs), a whole rollout, or "
            "buffer=groups, or baseline=value"
        )
    if context.demonstration_fraction:
        raise UserError(
            f"{answers}a demonstration has no siblings; set trainer.demonstration_fraction=0, or baseline=value"
        )


def same_prompt(prompt_BS: Tensor) -> Tensor:
    """1.0 where two rows have the same prompt (`Decisions.prompt_BS`): float_BB."""
    return (prompt_BS[:, None] == prompt_BS[None]).all(-1).float()
