"""The optimizer and how its learning rate moves: warm-up, then constant or cosine."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

from dqnlm.errors import UserError


class Optimization:
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) with a schedule of the learning rate.

    lr(u) = lr * min((u + 1) / warmup, 1) * (final + (1 - final) (1 + cos(pi u / total)) / 2)      cosine
    Weight decay applies to matrices (embeddings too), not to biases, norms' gains or other vectors.

    Args:
        network: whose parameters move.
        total_updates: length of the schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        total_updates: int,
        decoupled: bool,
        lr: float,
        betas: list[float],
        eps: float,
        weight_decay: float,
        warmup_updates: int,
        schedule: str,
        final_fraction: float | None,
    ) -> None:
        _check(lr, betas, eps, weight_decay, warmup_updates, schedule, final_fraction)
        self.lr, self.warmup, self.schedule = lr, warmup_updates, schedule
        self.final_fraction = 1.0 if final_fraction is None else final_fraction
        self.total_updates = max(total_updates, 1)
        matrices = [p for p in network.parameters() if p.dim() >= 2]
        others = [p for p in network.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        kind = torch.optim.AdamW if decoupled else torch.optim.Adam
        self.optimizer = kind(
            [g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=True
        )

    def rate(self, updates_done: int) -> float:
        """Learning rate of the update after `updates_done`."""
        warm = min((updates_done + 1) / self.warmup, 1.0) if self.warmup else 1.0
        if self.schedule == "constant":
            return self.lr * warm
        done = min(updates_done / self.total_updates, 1.0)
        return self.lr * warm * (self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * done)) / 2)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, updates_done: int) -> None:
        """One step at the scheduled rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(updates_done)
        self.optimizer.step()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Moments and step counts of a saved run; betas, eps and weight decay stay those of the configuration.

        torch would put the saved ones back, so that one changed on a resume would be shown but not used.
        """
        ours = [{key: group[key] for key in ("betas", "eps", "weight_decay")} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, settings in zip(self.optimizer.param_groups, ours, strict=True):
            group.update(settings)


def _check(
    lr: float,
    betas: list[float],
    eps: float,
    weight_decay: float,
    warmup: int,
    schedule: str,
    final_fraction: float | None,
) -> None:
    if lr <= 0:
        raise UserError(f"optimizer.lr must be above 0, not {lr}")
    for name, value in (("eps", eps), ("weight_decay", weight_decay)):
        if value < 0:
            raise UserError(f"optimizer.{name} cannot be below 0, and it is {value}")
    if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
        raise UserError(f"optimizer.betas are two numbers in [0, 1), not {betas}")
    if warmup < 0:
        raise UserError(f"optimizer.warmup_updates counts updates and cannot be {warmup}")
    if (schedule == "constant") != (final_fraction is None):
        raise UserError(
            f"optimizer.final_fraction={final_fraction} does not fit optimizer.schedule={schedule}: "
            "cosine needs a number (0.1 ends at a tenth), constant takes null"
        )


def adamw(
    network: nn.Module,
    total_updates: int,
    *,
    lr: float,
    betas: list[float],
    eps: float,
    weight_decay: float,
    warmup_updates: int,
    schedule: Literal["constant", "cosine"],
    final_fraction: float | None,
) -> Optimization:
    """AdamW: the weight decay is applied to the weights, not to the gradient."""
    return Optimization(
        network, total_updates, True, lr, betas, eps, weight_decay, warmup_updates, schedule, final_fraction
    )


def adam(
    network: nn.Module,
    total_updates: int,
    *,
    lr: float,
    betas: list[float],
    eps: float,
    warmup_updates: int,
    schedule: Literal["constant", "cosine"],
    final_fraction: float | None,
) -> Optimization:
    """Adam without weight decay."""
    return Optimization(network, total_updates, False, lr, betas, eps, 0.0, warmup_updates, schedule, final_fraction)
