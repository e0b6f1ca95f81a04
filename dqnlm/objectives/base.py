"""What is learned from a batch. The learner sums the objectives of a run with their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.ops.bootstrap import soft_value
from dqnlm.types import Batch
from dqnlm.utils.context import RunContext

Outputs = dict[str, Tensor]  # name -> raw outputs of a network, times first.. of the batch
Legal = Callable[[Tensor], Tensor | None]  # observation_BS -> mask of legal actions, broadcastable to BSA, or None


class Result(NamedTuple):
    """What one objective says of a batch.

    Attributes:
        loss_BT: elementwise, masked, weighted and averaged by the learner; or loss_B, one number a row.
        figures: name -> elementwise tensor over [B, T]; logged as masked means.
        error_BT: target less prediction in return units, for priorities and diagnostics; None where there is none.
    """

    loss_BT: Tensor
    figures: dict[str, Tensor]
    error_BT: Tensor | None = None


class Fields(NamedTuple):
    """The fields of a batch from its first decision on: times first..T-1."""

    action_BT: Tensor
    reward_BT: Tensor
    discount_BT: Tensor
    mask_BT: Tensor
    carry_BT: Tensor | None


def present(batch: Batch, interleaved: bool = False) -> Fields:
    """Where outputs are: times `batch.first` on; `carry_BT` only where steps may lie between decisions."""
    first = batch.first
    return Fields(
        batch.action_BT[:, first:],
        batch.reward_BT[:, first:],
        batch.discount_BT[:, first:],
        batch.mask_BT[:, first:],
        batch.carry_BT[:, first:] if interleaved else None,
    )


def legal_from(legal: Legal, batch: Batch, times: int) -> Tensor | None:
    """The mask of legal actions for `times` observations from `batch.first` on."""
    mask = legal(batch.observation_BS)
    if mask is None or mask.dim() < 3 or mask.shape[1] == 1:
        return mask
    return mask[:, batch.first : batch.first + times]


def reference_term(head: Head, reference: Outputs, fields: Fields, legal: Tensor | None, temperature: float) -> Tensor:
    """T log pi_ref(a | s) of the actions taken, with pi_ref = softmax(Q_ref / T) over the legal ones: BT, no gradient."""
    q_BTA = head.value(reference["q"][:, : fields.action_BT.shape[1]]).detach()
    taken_BT = q_BTA.gather(-1, fields.action_BT[..., None]).squeeze(-1)
    return taken_BT - soft_value(q_BTA, legal, temperature)


class Objective(ABC):
    """`objective(online, target, batch)`; the outputs begin at `batch.first`, and so do the fields that it must use.

    Attributes:
        needs_target: a forward of the target network is made for it.
        needs_last: reads outputs of the target network for the last observation of a row, so S = T + 1 are fed.
        needs_last_online: reads those of the online network too.
        needs_outputs: named outputs beside `q` that the network must have.
        needs_whole_episodes: rows must be whole episodes.
        needs_whole_batch: it compares rows with one another, so all of a batch must be handed over at once.
        needs_reference: a forward of the reference network is made for it.
        lookahead: decisions, the taken one included, whose rewards it reads; None: all to the row's end.
        learns_outputs: named outputs of the network that it teaches.
        learns_returns: it makes Q follow the returns, and gives errors in their units.
        learns_all_actions: it can teach every action from rewards known for all (learner.feedback=all_actions).
        uses_bootstrap: it reads the groups `bootstrap` and `returns`; others have targets of their own.
        adds_entropy: its return holds the entropy of a soft policy, and may leave the bounds of the rewards.
        clones_actions: it makes the actions in the data more probable, whatever they were paid.
        leaves_level_open: it learns differences of Q within a state alone, so Q is no return there.
    """

    needs_target = False
    needs_last = False
    needs_last_online = False
    needs_outputs: tuple[str, ...] = ()
    needs_whole_episodes = False
    needs_whole_batch = False
    needs_reference = False
    lookahead: int | None = 1
    learns_outputs: tuple[str, ...] = ("q",)
    learns_returns = False
    learns_all_actions = False
    uses_bootstrap = False
    adds_entropy = False
    clones_actions = False
    leaves_level_open = False

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    @abstractmethod
    def __call__(
        self, online: Outputs, target: Outputs | None, batch: Batch, reference: Outputs | None = None
    ) -> Result:
        """Raw outputs of the networks for times first..T (or ..T-1 without `needs_last`) to losses.

        `reference`: outputs of the network as it was before its own trial and error, where `needs_reference`.
        """


def require_rows_apart(objectives: dict[str, Objective], rows_at_once: int | None) -> None:
    """Raises UserError where some rows at a time are asked for, and an objective compares rows, or the number is below 1."""
    if rows_at_once is None:
        return
    if rows_at_once < 1:
        raise UserError(f"learner.rows_at_once must be at least 1 (or null for the whole batch), not {rows_at_once}")
    for name, objective in objectives.items():
        if objective.needs_whole_batch:
            raise UserError(
                f"objective {name} compares the rows of a batch with one another, so they cannot be read learner.rows_at_once="
                f"{rows_at_once} at a time; set it to null, or change the objective (trajectory: baseline=value)"
            )
