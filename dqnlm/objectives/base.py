"""Base class of objectives. The learner minimises the weighted sum of a run's objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.types import Decisions
from dqnlm.utils.context import RunContext

# Name -> raw outputs of a network (B, S or T, A, N), from the first decision of the batch on.
Outputs = Mapping[str, Tensor]


class LossOutput(NamedTuple):
    """The loss of one objective on a batch.

    Attributes:
        loss_BT: elementwise, masked, weighted and averaged by the learner; or loss_B, one number a row.
        metrics: name -> elementwise tensor BT; logged as masked means.
        error_BT: target less prediction in return units, for priorities and diagnostics; None where there is none.
    """

    loss_BT: Tensor
    metrics: dict[str, Tensor]
    error_BT: Tensor | None = None


@dataclass(frozen=True)
class Requirements:
    """The outputs, rows and rewards that an objective reads.

    Attributes:
        target: outputs of the target network.
        last_observation: of the target network also after the last observation of a row, so S = T + 1 are fed.
        last_observation_online: of the online network after it too.
        reference: outputs of the reference network, the initial policy of the run.
        outputs: named outputs that the network must have besides `q`.
        whole_episodes: each row is a whole episode.
        whole_batch: all rows of a batch in one micro-batch, as they are compared with one another.
        lookahead: decisions, the taken one included, whose rewards it reads; None: all to the row's end.
    """

    target: bool = False
    last_observation: bool = False
    last_observation_online: bool = False
    reference: bool = False
    outputs: tuple[str, ...] = ()
    whole_episodes: bool = False
    whole_batch: bool = False
    lookahead: int | None = 1


def combined(requirements: Iterable[Requirements]) -> Requirements:
    """Requirements that satisfy all of the given ones; the outputs are sorted, the lookahead is the greatest."""
    every = list(requirements)
    lookaheads = [each.lookahead for each in every]
    known = [lookahead for lookahead in lookaheads if lookahead is not None]
    return Requirements(
        target=any(each.target for each in every),
        last_observation=any(each.last_observation for each in every),
        last_observation_online=any(each.last_observation_online for each in every),
        reference=any(each.reference for each in every),
        outputs=tuple(sorted({name for each in every for name in each.outputs})),
        whole_episodes=any(each.whole_episodes for each in every),
        whole_batch=any(each.whole_batch for each in every),
        lookahead=max(known, default=1) if len(known) == len(lookaheads) else None,
    )


class Objective(ABC):
    """`objective(online, target, batch, reference)` is a loss; outputs and fields of the batch begin at the same time.

    Attributes:
        weight: factor of this loss in the sum.
        requires: the inputs that it reads.
        learns_outputs: named outputs of the network that it trains.
        learns_returns: it makes Q follow the returns, and gives errors in their units.
        learns_all_actions: it can train every action from rewards known for all (feedback=all_actions).
        uses_bootstrap: it reads the groups `bootstrap` and `returns`; others have targets of their own.
        adds_entropy: its return holds the entropy of a soft policy, and may leave the bounds of the rewards.
        clones_actions: it makes the actions in the data more probable, whatever their rewards.
        reads_in_full: it reads outputs of all actions at all times at once, so that these must fit in memory together, also
            with a large vocabulary (`networks.deferred`).
        leaves_level_open: it learns differences of Q within a state alone, so Q is no return there.
        assumes_determinism: its minimum is the optimal policy only where the next observation follows from the actions.
    """

    requires: Requirements = Requirements()
    learns_outputs: tuple[str, ...] = ("q",)
    learns_returns = False
    learns_all_actions = False
    uses_bootstrap = False
    adds_entropy = False
    clones_actions = False
    reads_in_full = True
    leaves_level_open = False
    assumes_determinism = False

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @abstractmethod
    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Decisions, reference: Outputs | None = None
    ) -> LossOutput:
        """The loss of a batch.

        Args:
            online: raw outputs of the online network, times 0..T-1, and T where some objective requires the last observation.
            target: those of the target network, without gradient; None where no objective requires it.
            batch: actions, rewards, discounts and masks, times 0..T-1.
            reference: raw outputs of the reference network, times 0..T-1; None where no objective requires it.
        """


def value_taken(q_BTA: Tensor, action_BT: Tensor) -> Tensor:
    """Q(s_t, a_t) of the actions taken, BT."""
    return q_BTA.gather(-1, action_BT[..., None]).squeeze(-1)


def require_no_whole_batch(objectives: dict[str, Objective], micro_batch_size: int | None) -> None:
    """Raises UserError where micro-batches are set and an objective compares rows, or the number is below 1."""
    if micro_batch_size is None:
        return
    if micro_batch_size < 1:
        raise UserError(f"learner.micro_batch_size must be at least 1 (or null for the whole batch), not {micro_batch_size}")
    for name, objective in objectives.items():
        if objective.requires.whole_batch:
            raise UserError(
                f"objective {name} compares the rows of a batch with one another, so they cannot be read "
                "learner.micro_batch_size="
                f"{micro_batch_size} at a time; set it to null, or change the objective (trajectory: baseline=value)"
            )
