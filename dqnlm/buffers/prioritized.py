"""Replay where large errors come more often (Schaul et al. 2016, the proportional variant).

    P(i) = p_i^alpha / sum_k p_k^alpha        p = |target - prediction| + epsilon, in return units (not its square)
    weight_i = (N P(i))^-beta / max over the batch = (P(i) / min over the batch)^-beta        beta: beta_start -> 1

(with several processes: over the batch of all of them)

A decision has its own p. A row has p = eta max + (1 - eta) mean over the errors of its learned decisions (those after the
burn-in), plus epsilon (Kapturowski et al. 2019). New rows get the largest p seen so far, so that they are drawn soon.

Masses p^alpha lie in a sum tree of wide nodes (`dqnlm.buffers.sum_tree`), so a draw takes as long for many as for few.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from dqnlm.buffers.base import Buffer, Place, Setup
from dqnlm.buffers.storage import decision
from dqnlm.buffers.sum_tree import SumTree, leaves
from dqnlm.errors import UserError
from dqnlm.ops.masking import after_burn_in
from dqnlm.types import Batch, Rows


class PrioritizedBuffer(Buffer):
    """Samples in proportion to p^alpha, with replacement, one from each of `batch_size` equal slices of the sum.

    Args (the others: see `Buffer`):
        alpha: 0 draws all alike, 1 in proportion to the error.
        beta_start: how much of the bias `weight_B` corrects at first, in [0, 1]; 1 at the end of the training.
        eta: share of the greatest error in a row's priority; the rest is the mean's. No effect for `transitions`.
        epsilon: added to each priority, in return units, so that every row can still be drawn.

    Raises:
        UserError: also groups of rows (`copies` above 1), or a number outside its range.
    """

    needs_errors = True

    def __init__(
        self,
        setup: Setup,
        *,
        capacity: int | None,
        sample: Literal["rows", "transitions"],
        alpha: float,
        beta_start: float,
        eta: float,
        epsilon: float,
        place: Place,
    ) -> None:
        _check(setup.spec.guesses_per_position, alpha, beta_start, eta, epsilon)
        more_bytes = 4 if sample == "transitions" else 0
        super().__init__(setup, capacity=capacity, sample=sample, place=place, more_bytes=more_bytes)
        self.alpha, self.beta_start, self.eta, self.epsilon = alpha, beta_start, eta, epsilon
        self.burn_in = setup.burn_in
        # p^alpha of each row (one column), or of each time (0 where there is no decision).
        self.columns = 1 if sample == "rows" else setup.spec.row_transitions
        leaf_N = leaves((self.rows + 1) * self.columns, torch.float32, self.device)
        self.tree = SumTree(leaf_N, self.rows * self.columns)
        self.mass_CN = self.tree.leaf_N[: (self.rows + 1) * self.columns].view(-1, self.columns)
        self.largest = torch.ones((), device=self.device)  # p
        self.beta = torch.full((), beta_start, dtype=torch.float64, device=self.device)

    def add(self, rows: Rows, keep_B: Tensor | None = None) -> None:
        """Appends rows with the largest priority so far; rows without a decision are never drawn."""
        slot_B = self.storage.add(rows, keep_B)
        drawable_BT = decision(rows.flag_BT.to(self.device))
        drawable_BN = drawable_BT if self.mode == "transitions" else drawable_BT.any(1, keepdim=True)
        self.mass_CN[slot_B] = drawable_BN * self.largest.pow(self.alpha)
        self.mass_CN[self.rows] = 0.0  # where rows that are not kept are written
        self.tree.refresh(slot_B * self.columns, self.columns)

    def advance(self, progress: float) -> None:
        """Anneals beta linearly from `beta_start` to 1."""
        self.beta.fill_(self.beta_start + (1 - self.beta_start) * min(max(progress, 0.0), 1.0))

    def sample(self, batch_size: int) -> Batch:
        """Samples rows, or decisions, with `weight_B`; `index_B` is the place in `mass_CN`, flattened."""
        slice_B = torch.arange(batch_size, device=self.device) + self._random(batch_size)
        total = self.tree.total()
        index_B, _ = self.tree.find(slice_B * (total / batch_size))
        row_B, time_B = index_B // self.columns, index_B % self.columns
        batch = self._whole(row_B) if self.mode == "rows" else self._windows(row_B, time_B)
        mass_B = self.tree.leaf_N[index_B].double().clamp(min=torch.finfo(torch.float32).tiny)  # 0 only in an empty buffer
        batch.weight_B = (mass_B / self.ranks.least_mass(mass_B.min(), total)).pow(-self.beta).float()
        return batch

    def update_priorities(self, batch: Batch, error_BT: Tensor | None) -> None:
        """Sets the priorities of the rows drawn. No row is added between a draw and its update, so `index_B` still holds.

        A row drawn twice gets the larger of its two priorities (they differ by rounding and noise).

        Raises:
            UserError: no objective has errors.
        """
        if error_BT is None:
            raise UserError(
                "buffer=prioritized ranks by errors, and no objective here has any; set objective=[td] or buffer=uniform"
            )
        learn_BT = after_burn_in(batch.mask_BT if batch.learn_BT is None else batch.learn_BT, self.burn_in)[:, batch.first :] > 0
        # An error that is not finite ranks nothing; the trainer stops at the loss.
        absolute_BT = torch.nan_to_num(error_BT.float().abs(), posinf=0.0).masked_fill(~learn_BT, 0.0)
        count_B = learn_BT.sum(1)
        mean_B = absolute_BT.sum(1) / count_B.clamp(min=1)
        priority_B = self.eta * absolute_BT.amax(1) + (1 - self.eta) * mean_B + self.epsilon
        mass_B = torch.where(count_B > 0, priority_B.pow(self.alpha), 0.0)
        mass_X = self.mass_CN.view(-1)
        mass_X.index_fill_(0, batch.index_B, 0.0)
        mass_X.scatter_reduce_(0, batch.index_B, mass_B, "amax")
        self.tree.refresh(batch.index_B)
        self.largest.copy_(torch.maximum(self.largest, priority_B.max()))

    def clear(self) -> None:
        """Forgets all rows; the largest priority seen and beta stay."""
        kept = self.largest.clone(), self.beta.clone()
        super().clear()
        self.largest.copy_(kept[0])
        self.beta.copy_(kept[1])
        self.tree.rebuild()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.mass_CN[self.rows] = 0.0  # of earlier versions, which left it as it was written
        self.tree.rebuild()

    def _tensors(self) -> dict[str, Tensor]:
        return super()._tensors() | {"mass_CN": self.mass_CN, "largest": self.largest, "beta": self.beta}


def _check(copies: int, alpha: float, beta_start: float, eta: float, epsilon: float) -> None:
    if copies > 1:
        raise UserError(
            f"buffer=prioritized draws each row by its own priority, but env.guesses_per_position={copies} has rows drawn in "
            "groups; set "
            "env.guesses_per_position=1 or buffer=uniform"
        )
    for name, value in {"alpha": alpha, "beta_start": beta_start, "eta": eta}.items():
        if not 0 <= value <= 1:
            raise UserError(f"buffer.{name} must lie between 0 and 1, not {value}")
    if epsilon <= 0:
        raise UserError(f"buffer.epsilon must be above 0, not {epsilon}: what has no error would never be drawn again")
