"""Base class of replay buffers: stores sequences, samples batches, anneals schedules and updates priorities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dqnlm.buffers.storage import Storage, saved_rows
from dqnlm.errors import UserError
from dqnlm.types import Batch, Rows, TaskSpec
from dqnlm.utils.context import RunContext
from dqnlm.utils.ranks import ALONE, Ranks

Place = Literal["device", "host", "file"]


class Setup(NamedTuple):
    """What a buffer is built from, the same for every class of buffer.

    Attributes:
        spec: of the task.
        gamma: discount of one decision.
        context: observations up to a decision, its own included, that the network can use.
        lookahead: decisions that a target spans, the taken one included; None: to the row's end.
        logged_rows: rows of logged data that there are, which a buffer of capacity null holds; 0 for none.
        device: where the rows live.
        generator: draws rows, on that device.
        ranks: the processes of the run, each with a buffer of its own.
        siblings: consecutive rows of a rollout that answer the same prompt.
        burn_in: first decisions of each row that are read but not learned from.
    """

    spec: TaskSpec
    gamma: float
    context: int
    lookahead: int | None
    logged_rows: int
    device: torch.device
    generator: torch.Generator
    ranks: Ranks = ALONE
    siblings: int = 1
    burn_in: int = 0


class Buffer(ABC):
    """A replay buffer on the device.

    The trainer calls, for each rollout: `add` and `finished` (by the actor), `begin`, `advance`, and for each update
    `sample` and `update_priorities`. Without rollouts (logged data) there is one `add`, and no `begin`.

    Args:
        setup: of the run.
        capacity: transitions kept, where a row counts as its longest: row_transitions - first_decision; None: as many as
            the logged rows take.
        sample: whole `rows`, or windows around single `transitions`.
        place: where the ring lives and rows are drawn: on the `device`; on the `host`, from where each batch is copied; or in a
            `file` that the host maps into its memory, for a ring larger than that. It lies among the temporary files and
            is gone with the process; a checkpoint holds the rows.
        more_bytes: what the buffer itself keeps for each transition.
        together: rows that are kept and drawn together.

    Attributes:
        needs_errors: `update_priorities` uses the errors.
        can_mix_demonstrations: rows of a batch may be replaced by others, as all are whole rows drawn alike.
        draws_whole_rollouts: a batch as large as a rollout holds each of its rows.
        draws_whole_groups: all answers of a rollout to the same prompt are drawn together.
        rows: rows kept.
        width: T of a batch.
        bytes_per_transition: of the ring.

    Raises:
        UserError: no room for one group of rows, no logged rows to take the size from, more memory
            than there is, or groups where single decisions are drawn.
    """

    needs_errors: bool = False
    can_mix_demonstrations: bool = False
    draws_whole_rollouts: bool = False
    draws_whole_groups: bool = False

    def __init__(
        self,
        setup: Setup,
        *,
        capacity: int | None,
        sample: Literal["rows", "transitions"],
        place: Place = "device",
        more_bytes: int = 0,
        together: int = 1,
    ) -> None:
        spec, self.mode, self.ranks, self.batch_device = setup.spec, sample, setup.ranks, setup.device
        self.device, self.generator = setup.device, setup.generator
        if place != "device" and setup.device.type != "cpu":
            self.device = torch.device("cpu")
            self.generator = torch.Generator().manual_seed(setup.generator.initial_seed())
        copies, longest = spec.guesses_per_position, spec.row_transitions
        self.copies, decisions = copies, longest - spec.first_decision
        if capacity is None and setup.logged_rows == 0:
            raise UserError("buffer.capacity=null is as many as logged data has, and there is none: set a number")
        unit = copies * together
        self.rows = setup.logged_rows if capacity is None else capacity // (decisions * unit) * unit
        if self.rows < 1:
            raise UserError(
                f"buffer.capacity={capacity} transitions is less than {unit} rows of {decisions} decisions; "
                f"set buffer.capacity to at least {unit * decisions}"
            )
        if sample == "transitions" and copies > 1:
            raise UserError(
                "buffer.sample=transitions draws single decisions, but env.guesses_per_position groups rows; set one of them back"
            )
        self._before = min(setup.context, longest) - 1
        # Where other steps lie between decisions, how many steps a number of decisions takes is not known beforehand.
        self._after = None if spec.multi_turn or setup.lookahead is None else max(setup.lookahead, 1)
        around = longest - max(0, spec.first_decision - self._before)
        window = around if self._after is None else min(self._before + self._after, around)
        self.width = longest if sample == "rows" else window
        self.storage = Storage(self.rows, spec, setup.gamma, self.device, capacity, more_bytes, in_file=place == "file")
        self.bytes_per_transition = self.storage.bytes_per_transition

    def check(self, context: RunContext) -> None:  # noqa: B027
        """Raises UserError where this part cannot work in a run like this one; called once, when all parts are built."""

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        """Appends rows (those with keep_B True), at most `self.rows` at a time, overwriting the oldest."""
        self.storage.add(rows, keep_B)

    def finished(self, return_E: Tensor, episode_end_E: Tensor) -> None:  # noqa: B027
        """Called by the actor with finished episodes; most buffers use only their rows."""

    def begin(self) -> None:  # noqa: B027
        """Called after a rollout, before its updates."""

    def advance(self, progress: float) -> None:  # noqa: B027
        """Sets schedules to `progress`, the share of the training that is done, in [0, 1]."""

    @abstractmethod
    def sample(self, batch_size: int) -> Batch:
        """Samples `batch_size` rows, or windows around single decisions; nothing is copied to the host."""

    def deliver(self, batch: Batch) -> Batch:
        """A batch that was drawn, on the device that learns.

        From the host it is copied out of pinned memory, for which nothing waits: the next batch is drawn and copied while the
        device still works on this one.
        """
        return batch if self.batch_device == self.device else batch.to(self.batch_device, from_pinned=True)

    def update_priorities(self, batch: Batch, error_BT: Tensor | None) -> None:  # noqa: B027
        """Receives the errors of the update on `batch`.

        Args:
            batch: as `sample` gave it, no row added since.
            error_BT: target less prediction from `batch.first` on, in return units; None where no objective has one.
        """

    def transitions(self) -> Tensor:
        """Number of decisions that may be drawn, a scalar on the device."""
        return self._decisions_C().sum()

    def terminal_share(self) -> Tensor:
        """Share of these decisions that ended their episode, a scalar on the device."""
        ended_C = self.storage.ended_C() & (self._decisions_C() > 0)
        return ended_C.sum() / self.transitions().clamp(min=1)

    def _decisions_C(self) -> Tensor:
        """Number of decisions in each row; 0 where the row may not be drawn."""
        return self.storage.decisions_C[: self.rows]

    def _random(self, count: int) -> Tensor:
        """`count` uniform random numbers in [0, 1), float64."""
        return torch.rand(count, device=self.device, generator=self.generator, dtype=torch.float64)

    def _whole(self, group_G: Tensor) -> Batch:
        """The whole rows of the groups drawn."""
        member_K = torch.arange(self.copies, device=self.device)
        return self.storage.whole((group_G[:, None] * self.copies + member_K).flatten(), self.copies)

    def _windows(self, row_B: Tensor, time_B: Tensor) -> Batch:
        """The windows around the decisions drawn."""
        return self.storage.windows(row_B, time_B, self._before, self._after, self.width)

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors that a resumed run needs besides the generator, by name."""
        return self.storage.state()

    def state_dict(self) -> dict[str, Any]:
        """The complete state as tensors, with that of the generator; of the ring the rows that are held alone."""
        held = int(self.storage.filled())
        tensors = {name: _first(tensor, held) if _is_by_row(name) else tensor for name, tensor in self._tensors().items()}
        return tensors | {"rows": torch.tensor(self.rows), "generator": self.generator.get_state()}

    def clear(self) -> None:
        """Forgets all rows; schedules stay."""
        for tensor in self._tensors().values():
            tensor.zero_()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`.

        Raises:
            ValueError: it is of a ring of another size.
        """
        if saved_rows(state) != self.rows:
            raise ValueError(f"the saved buffer has {saved_rows(state):,} rows, this one {self.rows:,}")
        for name, tensor in self._tensors().items():
            saved = state[name]
            if _is_by_row(name):
                tensor[: len(saved)].copy_(saved)
                tensor[len(saved) :] = 0
            else:
                tensor.copy_(saved)
        self.generator.set_state(state["generator"].cpu())  # also when it was loaded to a GPU


def _is_by_row(name: str) -> bool:
    """Whether the first axis of a tensor is C, the rows of the ring."""
    return "_C" in name


def _first(tensor_C: Tensor, rows: int) -> Tensor:
    """The first rows; a copy where there are more, as a view would be saved with all that it is a view of."""
    return tensor_C[:rows].clone() if rows < len(tensor_C) - 1 else tensor_C[:rows]
