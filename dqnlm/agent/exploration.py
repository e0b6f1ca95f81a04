"""Exploration policies. Noise is sampled independently per environment and time step.

Every explorer is called with Q in return units, `q_XA` (X: any leading axes), and picks only legal actions. Where the head
predicts the probability that each action is the rewarded one, explorers get that too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.ops.bootstrap import masked_q
from dqnlm.utils.context import RunContext


def sample_categorical(logit_XA: Tensor, generator: torch.Generator) -> Tensor:
    """action_X ~ softmax(logit) by the exponential race argmax p / e, e ~ Exp(1): no host synchronisation."""
    race_XA = torch.empty_like(logit_XA).exponential_(generator=generator)
    return (logit_XA.softmax(-1) / race_XA.clamp(min=1e-30)).argmax(-1)


class Schedule:
    """A number that decreases with training.

    constant: start. linear: from start to end over the first `fraction` of the rollouts. exponential: multiplied by
    `factor` for each episode that an environment has finished (their mean over the environments), not below end.
    """

    def __init__(
        self, kind: str, start: float, end: float | None, fraction: float | None, factor: float | None
    ) -> None:
        needed = {"constant": (), "linear": ("end", "fraction"), "exponential": ("end", "factor")}[kind]
        given = {"end": end, "fraction": fraction, "factor": factor}
        for name, value in given.items():
            if (value is None) == (name in needed):
                verb = "needs" if name in needed else "does not use"
                raise UserError(
                    f"exploration.schedule={kind} {verb} exploration.{name} (it is {value}); "
                    f"it takes start{''.join(', ' + n for n in needed)}; set exploration.{name}="
                    + ("a number" if name in needed else "null")
                )
        shares = {"start": start, "end": end, "fraction": fraction, "factor": factor}
        for name, share in shares.items():
            if share is not None and not 0 <= share <= 1:
                raise UserError(f"exploration.{name} must lie between 0 and 1, not {share}")
        self.kind, self.start, self.end, self.fraction, self.factor = kind, start, end, fraction, factor

    def at(self, progress: float, episodes: float) -> float:
        """The value when `progress` in [0, 1] of the rollouts is done and each environment has finished `episodes`."""
        if self.kind == "linear":
            assert self.end is not None and self.fraction is not None
            done = min(progress / self.fraction, 1.0) if self.fraction > 0 else 1.0
            return self.start + (self.end - self.start) * done
        if self.kind == "exponential":
            assert self.end is not None and self.factor is not None
            return max(self.end, self.start * self.factor**episodes)
        return self.start


class Exploration(ABC):
    """`explorer(q_XA, legal_XA, log_probability_XA) -> action_X`; `advance` anneals it; `epsilon` is logged.

    Attributes:
        needs_q: False: acts without the network.
        uses_reference: the actions are the reference's, which is not part of the observation.
        counts_episodes: `advance` reads the number of finished episodes (a number that is copied from the device).
    """

    needs_q = True
    uses_reference = False
    counts_episodes = False
    epsilon = 0.0

    def __init__(self, generator: torch.Generator, copies: int = 1) -> None:
        self.generator, self.copies = generator, copies

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    def advance(self, progress: float, episodes: float) -> None:
        """Called once before each rollout with the share of rollouts done, and the episodes that an environment has finished
        on average (0 unless `counts_episodes`)."""
        del progress, episodes

    @abstractmethod
    def __call__(self, q_XA: Tensor, legal_XA: Tensor | None, log_probability_XA: Tensor | None = None) -> Tensor:
        """One action for each leading place."""

    def replace_at_random(self, action_X: Tensor, candidate_XA: Tensor, share: float) -> Tensor:
        """Replaces each action, independently with probability `share`, by a uniform one among candidates (bool)."""
        if share <= 0:
            return action_X
        uniform_X = sample_categorical(
            torch.zeros(candidate_XA.shape, device=action_X.device).masked_fill(~candidate_XA, -math.inf),
            self.generator,
        )
        coin_X = torch.rand(action_X.shape, device=action_X.device, generator=self.generator)
        return torch.where(coin_X < share, uniform_X, action_X)


def everything_legal(q_XA: Tensor, legal_XA: Tensor | None) -> Tensor:
    """`legal_XA` expanded to the shape of Q, bool."""
    if legal_XA is None:
        return torch.ones_like(q_XA, dtype=torch.bool)
    return legal_XA.expand(q_XA.shape)


class EpsilonGreedy(Exploration):
    """argmax_a Q with probability 1 - epsilon, else uniform over the legal actions, or over the `top_k` best of them.

    `top_k` restricts the random actions to those of the greatest Q, which are more likely to be right.
    """

    def __init__(
        self,
        generator: torch.Generator,
        copies: int,
        *,
        schedule: Literal["constant", "linear", "exponential"],
        start: float,
        end: float | None,
        fraction: float | None,
        factor: float | None,
        top_k: int | None,
    ) -> None:
        super().__init__(generator, copies)
        self.schedule = Schedule(schedule, start, end, fraction, factor)
        if top_k is not None and top_k < 1:
            raise UserError(f"exploration.top_k must be at least 1 (or null for all legal actions), not {top_k}")
        self.top_k = top_k
        self.epsilon = start
        self.counts_episodes = self.schedule.kind == "exponential"

    def advance(self, progress: float, episodes: float) -> None:
        self.epsilon = self.schedule.at(progress, episodes)

    def __call__(self, q_XA: Tensor, legal_XA: Tensor | None, log_probability_XA: Tensor | None = None) -> Tensor:
        q_XA = masked_q(q_XA, legal_XA)
        candidate_XA = everything_legal(q_XA, legal_XA)
        if self.top_k is not None:
            best = q_XA.topk(min(self.top_k, q_XA.shape[-1]), -1).indices
            candidate_XA = torch.zeros_like(candidate_XA).scatter_(-1, best, True) & candidate_XA
        return self.replace_at_random(q_XA.argmax(-1), candidate_XA, self.epsilon)


class Boltzmann(Exploration):
    """Samples from softmax(Q / temperature); a share `greedy` of the decisions is the argmax, `random` uniform.

    Args:
        temperature: in return units; small is near greedy.
        greedy: probability that a decision is the argmax instead of a sample.
        random: probability that a decision is uniform over the legal actions (applied last).
    """

    def __init__(
        self, generator: torch.Generator, copies: int, *, temperature: float, greedy: float, random: float
    ) -> None:
        super().__init__(generator, copies)
        if temperature <= 0:
            raise UserError(
                f"exploration.temperature must be above 0, not {temperature}; for the argmax use exploration=greedy"
            )
        for name, share in (("greedy", greedy), ("random", random)):
            if not 0 <= share <= 1:
                raise UserError(f"exploration.{name} is a share of the decisions, between 0 and 1, not {share}")
        self.temperature, self.greedy, self.random = temperature, greedy, random
        self.epsilon = random

    def __call__(self, q_XA: Tensor, legal_XA: Tensor | None, log_probability_XA: Tensor | None = None) -> Tensor:
        q_XA = masked_q(q_XA, legal_XA)
        sampled_X = sample_categorical(q_XA / self.temperature, self.generator)
        coin_X = torch.rand(sampled_X.shape, device=q_XA.device, generator=self.generator)
        action_X = torch.where(coin_X < self.greedy, q_XA.argmax(-1), sampled_X)
        return self.replace_at_random(action_X, everything_legal(q_XA, legal_XA), self.random)


class Greedy(Exploration):
    """argmax_a Q over the legal actions."""

    def __call__(self, q_XA: Tensor, legal_XA: Tensor | None, log_probability_XA: Tensor | None = None) -> Tensor:
        return masked_q(q_XA, legal_XA).argmax(-1)


class Reference(Exploration):
    """Takes the reference token: demonstrations for cloning. The actor reads it from the text; Q is not computed."""

    needs_q = False
    uses_reference = True

    def check(self, context: RunContext) -> None:
        """See `Exploration.check`.

        Raises:
            UserError: the state after the reference's token is not that of the text.
        """
        if not context.is_teacher_forced and context.rollouts:
            raise UserError(
                "exploration=reference takes the text's own tokens, which needs env.transition=teacher (or logged data alone: "
                "data=trajectories trainer.rollouts=0)"
            )

    def __call__(self, q_XA: Tensor, legal_XA: Tensor | None, log_probability_XA: Tensor | None = None) -> Tensor:
        raise AssertionError("the actor takes reference actions from the environment")


class ProbabilityMatching(Exploration):
    """Samples each action with its predicted probability of being the rewarded one (similar to Thompson sampling).

    Exploration then follows uncertainty: a certain action is repeated, two actions of probability 1/2 are tried equally often.
    Environments that read the same text (env.guesses_per_position) try different actions, sampled without replacement, as the
    first K of an exponential race (Efraimidis and Spirakis 2006).

    Args:
        greedy: probability that the first of the copies takes the argmax instead of a sample.
        random: probability that a decision is uniform over the legal actions (applied last).
        sharpness: the probabilities are raised to this power and normalised; 1 matches them, above 1 is greedier.
    """

    def __init__(
        self, generator: torch.Generator, copies: int, *, greedy: float, random: float, sharpness: float
    ) -> None:
        super().__init__(generator, copies)
        for name, share in (("greedy", greedy), ("random", random)):
            if not 0 <= share <= 1:
                raise UserError(f"exploration.{name} is a share of the decisions, between 0 and 1, not {share}")
        if sharpness <= 0:
            raise UserError(f"exploration.sharpness must be above 0, not {sharpness}")
        self.greedy, self.random, self.sharpness = greedy, random, sharpness
        self.epsilon = random

    def check(self, context: RunContext) -> None:
        """See `Exploration.check`.

        Raises:
            UserError: fewer actions than copies, which try different ones, or Q is no probability.
        """
        if context.copies > context.num_legal_actions:
            raise UserError(
                f"exploration=probability_matching lets each of env.guesses_per_position={context.copies} try another action, "
                "but only "
                f"{context.num_legal_actions} may be chosen; set env.guesses_per_position to at most {context.num_legal_actions}"
            )
        if not context.head_is_probability:
            raise UserError(
                "exploration=probability_matching needs Q to be the probability of being the rewarded token: head=normalised, "
                "or head.loss=logistic with gamma=0, and reward=exact_match; use exploration=boltzmann"
            )

    def __call__(self, q_XA: Tensor, legal_XA: Tensor | None, log_probability_XA: Tensor | None = None) -> Tensor:
        if log_probability_XA is None:
            raise AssertionError("the builder refuses probability matching where Q is no probability")
        copies, log_XA = self.copies, masked_q(log_probability_XA, legal_XA)[:: self.copies] * self.sharpness
        race_XA = log_XA - torch.empty_like(log_XA).exponential_(generator=self.generator).clamp(min=1e-30).log()
        coin_X1 = torch.rand(*race_XA.shape[:-1], 1, device=race_XA.device, generator=self.generator)
        wins_XA = race_XA.scatter(-1, log_XA.argmax(-1, keepdim=True), float("inf"))
        chosen_XK = torch.where(coin_X1 < self.greedy, wins_XA, race_XA).topk(copies, -1).indices
        action_X = chosen_XK.movedim(-1, 1).flatten(0, 1)  # copies of one environment lie side by side
        return self.replace_at_random(action_X, everything_legal(q_XA, legal_XA), self.random)
