"""One residual a whole episode: the policy's own probabilities account for the return (TBRM, arXiv 2505.15311).

    loss_B = (V(s_1) + sum_t T log pi(a_t | s_t) - sum_t r_t)^2 / 2        V = T logsumexp_a Q / T

With a reference policy T log (pi / pi_ref) stands in the place of T log pi: the optimum is then pi_ref exp(R / T) / Z, and
V(s_1) is T log Z (only differences of Q within a state are advantages, as Q holds T log pi_ref too).

One value at the start and one number at the end; no bootstrap in between, so a reward at the end of a long text is
credited to all of its tokens together. The entropy-regularised optimum has residual 0 on every trajectory of a
deterministic task, with gamma 1.

Where several rows answer the same prompt, V(s_1) need not be learned: at the optimum x_b = sum_t (r_t - T log pi) is T log Z
for each of them, so their spread is a loss by itself (VarGrad, Richter et al. 2020, arXiv 2010.10436):

    loss_b = (x_b - mean x)^2 / 2        the mean over the rows of the batch with this prompt

It moves nothing but the policy, whoever chose the actions. Q is then known up to a number for each state, so what it promises
cannot be compared with what came (no eval/overestimation). A V that follows returns in the same network moves what the policy
is made of: with it, translations got worse again after 50 updates (one seed).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.objectives.base import Legal, Objective, Outputs, Result, legal_from, present, reference_term
from dqnlm.ops import bootstrap as value_of
from dqnlm.ops import losses
from dqnlm.types import Batch
from dqnlm.utils.context import RunContext


class Trajectory(Objective):
    """See the module's text.

    Args:
        head: meaning of the raw q.
        legal: observation_BS -> mask of legal actions, or None.
        weight: factor of this loss in the sum.
        temperature: T, in return units.
        reference: `start` compares with the policy that the run began with (after its warm start), `none` with nothing.
        baseline: what a return is compared with: `value`, V(s_1), or `siblings`, the rows of the batch with the same
            prompt; a row without siblings then teaches nothing.

    Raises:
        UserError: a temperature that is not above 0.
    """

    needs_whole_episodes = True
    learns_returns = adds_entropy = True
    lookahead = None

    def __init__(
        self, head: Head, legal: Legal, *, weight: float, temperature: float, reference: Literal["none", "start"],
        baseline: Literal["value", "siblings"],
    ) -> None:  # fmt: skip
        super().__init__(weight)
        if temperature <= 0:
            raise UserError(f"objective.trajectory.temperature must be above 0, not {temperature}")
        self.head, self.legal, self.temperature = head, legal, temperature
        self.needs_reference, self.among_siblings = reference == "start", baseline == "siblings"
        self.needs_whole_batch = self.leaves_level_open = self.among_siblings

    def check(self, context: RunContext) -> None:
        """See `Objective.check`.

        Raises:
            UserError: rewards are discounted, or a batch need not hold all answers to its prompts.
        """
        if context.gamma != 1:
            raise UserError(f"objective trajectory sums whole episodes and needs learner.gamma=1, not {context.gamma}")
        if self.among_siblings:
            _check_siblings(context)

    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        fields = present(batch)
        times = fields.action_BT.shape[1]
        q_BTA = self.head.value(online["q"][:, :times])
        taken_BT = q_BTA.gather(-1, fields.action_BT[..., None]).squeeze(-1)
        legal = legal_from(self.legal, batch, times)
        value_BT = value_of.soft_value(q_BTA, legal, self.temperature)
        allowed_BT = 0.0 if reference is None else reference_term(self.head, reference, fields, legal, self.temperature)
        first_B1 = fields.mask_BT.argmax(1, keepdim=True)
        surplus_BT = (fields.reward_BT + allowed_BT - (taken_BT - value_BT)) * fields.mask_BT
        surplus_B = surplus_BT.sum(1)
        if self.among_siblings:
            same_BB = same_prompt(batch.observation_BS, batch.first + first_B1)
            baseline_B = (same_BB @ surplus_B) / same_BB.sum(1)
        else:
            baseline_B = value_BT.gather(1, first_B1).squeeze(1)
        figures = {"q/taken_mean": taken_BT, "value/mean": value_BT}
        error_BT = (surplus_B - baseline_B).detach()[:, None].expand_as(taken_BT)
        return Result(losses.squared(surplus_B, baseline_B), figures, error_BT)


def _check_siblings(context: RunContext) -> None:
    answers = "objective.trajectory.baseline=siblings compares the answers to one prompt in a batch: "
    if context.samples_per_prompt < 2:
        raise UserError(
            f"{answers}set env.copies_of_a_prompt=4 or so, in an environment that has it (env=translation), or baseline=value"
        )
    if not context.draws_whole_rollouts or context.batch_rows < context.num_envs:
        raise UserError(
            f"{answers}set buffer=rollout and trainer.batch_rows={context.num_envs} (env.num_envs), a whole rollout, or "
            "baseline=value"
        )
    if context.demonstration_fraction:
        raise UserError(
            f"{answers}a demonstration has no siblings; set trainer.demonstration_share=0, or baseline=value"
        )


def same_prompt(observation_BS: Tensor, first_B1: Tensor) -> Tensor:
    """1.0 where two rows are equal up to their first decision, the observation at time `first_B1` included: float_BB."""
    read_BS = torch.arange(observation_BS.shape[1], device=observation_BS.device) <= first_B1
    prompt_BS = observation_BS.masked_fill(~read_BS, -1)
    return (prompt_BS[:, None] == prompt_BS[None]).all(-1).float()
