"""The task of offline learning from a log of texts with rewards. It has no rollouts and only describes the rows.

`trainer.rollouts` must be 0, as the log has no rewards for other answers. The evaluation (`dqnlm.evaluation.logged`)
writes greedy answers to held-out prompts, and scores them where `reward` is set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dqnlm.envs.base import Environment
from dqnlm.errors import UserError
from dqnlm.types import Bounds, TaskSpec
from dqnlm.utils.context import RunContext


class LogShape(NamedTuple):
    """Shape and rewards of the rows of a log.

    Attributes:
        row_transitions: T of the longest.
        longest_completion: most decisions in one.
        first_decision: no row has a decision before this time.
        multi_turn: some have steps without a decision after a decision.
        cut: some end before their episode does.
        context_carry: observations with which the episode's next row then begins; 0 where none is cut.
        rewards: least and greatest reward of a decision.
        paid_at_end: only the last decision of an episode is rewarded, and no episode has two rows.
        reward_names: of several rewards; empty: one.
    """

    row_transitions: int
    longest_completion: int
    first_decision: int
    multi_turn: bool
    cut: bool
    context_carry: int
    rewards: Bounds
    paid_at_end: bool
    reward_names: tuple[str, ...] = ()


class Logged(Environment):
    """The task of a log.

    Args:
        log_shape: what its rows are like.
        num_actions: A.
        legal_mask_A: bool, which tokens may be chosen; None for all.
        device: where rows live.
        horizon: most tokens of a greedy answer to a held-out prompt, its end token included; None: as many as the longest
            logged completion has.

    Attributes:
        horizon: as above, a number.

    Raises:
        UserError: a horizon below 1.
    """

    task = "log"
    num_envs = 1

    def __init__(
        self,
        log_shape: LogShape,
        num_actions: int,
        legal_mask_A: Tensor | None,
        device: torch.device,
        *,
        horizon: int | None,
    ) -> None:
        if horizon is not None and horizon < 1:
            raise UserError(
                f"env.horizon is {horizon}; it must be 1 or more, or null for the longest logged completion"
            )
        self.shape, self.device = log_shape, torch.device(device)
        self.horizon = log_shape.longest_completion if horizon is None else horizon
        self.spec = TaskSpec(
            num_actions=num_actions, num_tokens=num_actions, row_transitions=log_shape.row_transitions,
            episode_steps=log_shape.row_transitions, first_decision=log_shape.first_decision, stores_actions=False,
            multi_turn=log_shape.multi_turn, truncates=log_shape.cut, context_carry=log_shape.context_carry, variable_length=True,
            deterministic=not log_shape.multi_turn, reward_names=log_shape.reward_names,
        )  # fmt: skip
        self._legal_mask_A = None if legal_mask_A is None else legal_mask_A.to(self.device)

    def check(self, context: RunContext) -> None:
        """See `Environment.check`.

        Raises:
            UserError: the run has rollouts, learns nothing, or needs action probabilities, which the log lacks.
        """
        if context.rollouts or context.offline_rounds < 1:
            raise UserError(
                f"env=logged has nothing to play, and trainer.rollouts={context.rollouts} plays: set trainer.rollouts=0 and "
                "trainer.offline_rounds to the rounds of updates on the log"
            )
        if context.policy == "probability":
            raise UserError(
                "policy.kind=probability needs Q to be the probability of being the rewarded token, and a log has "
                "the reward of one token only; set policy.kind=boltzmann or reweighted"
            )

    def legal(self, observation_BS: Tensor) -> Tensor | None:
        return self._legal_mask_A

    def return_bounds(self, gamma: float) -> Bounds:
        """The bounds of the rewards where only the end of an episode is rewarded; else none are known."""
        if not self.shape.paid_at_end:
            return Bounds(float("-inf"), float("inf"))
        low, high = self.shape.rewards
        return Bounds(low, high) if gamma == 1 else Bounds(min(low, 0.0), max(high, 0.0))

    @property
    def reward_bounds(self) -> Bounds:
        return self.shape.rewards
