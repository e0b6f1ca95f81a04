"""Optimizers and the learning-rate schedule: warm-up, then constant or cosine."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dqnlm.errors import UserError
from dqnlm.networks.base import QNetwork
from dqnlm.utils import cuda_graphs, sharding


class OptimizerWithSchedule:
    """One optimizer, or several for disjoint sets of parameters, with the schedule of their learning rate.

    lr(u) = lr * min((u + 1) / warmup, 1) * (final + (1 - final) (1 + cos(pi u / total)) / 2)      cosine

    Args:
        optimizers: of disjoint sets of parameters; all have the same learning rate.
        total_updates: length of the schedule.

    Raises:
        UserError: a setting outside its range.
    """

    def __init__(
        self,
        optimizers: list[Optimizer],
        total_updates: int,
        lr: float,
        warmup_updates: int,
        schedule: str,
        final_fraction: float | None,
    ) -> None:
        if warmup_updates < 0:
            raise UserError(f"optimizer.warmup_updates counts updates and cannot be {warmup_updates}")
        if (schedule == "constant") != (final_fraction is None):
            raise UserError(
                f"optimizer.final_fraction={final_fraction} does not fit optimizer.schedule={schedule}: "
                "cosine needs a number (0.1 ends at a tenth), constant takes null"
            )
        self.optimizers = optimizers
        self.lr, self.warmup, self.schedule = lr, warmup_updates, schedule
        self.final_fraction = 1.0 if final_fraction is None else final_fraction
        self.total_updates = max(total_updates, 1)

    def rate(self, updates_done: int) -> float:
        """Learning rate of the update after `updates_done`."""
        warm = min((updates_done + 1) / self.warmup, 1.0) if self.warmup else 1.0
        if self.schedule == "constant":
            return self.lr * warm
        done = min(updates_done / self.total_updates, 1.0)
        return self.lr * warm * (self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * done)) / 2)

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def step(self, updates_done: int) -> None:
        """One step at the scheduled rate."""
        self.set_rate(updates_done)
        self.apply()

    def set_rate(self, updates_done: int) -> None:
        """Sets the rate of the update after `updates_done`."""
        rate = self.rate(updates_done)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def apply(self) -> None:
        """One step at the rate that is set."""
        for optimizer in self.optimizers:
            optimizer.step()

    @property
    def can_be_recorded(self) -> bool:
        """Whether all that a step reads lies on its device."""
        return all(group.get("capturable", False) for optimizer in self.optimizers for group in optimizer.param_groups)

    def state_dict(self) -> list[dict[str, Any]]:
        """The moments and step counts of each optimizer."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, state: list[dict[str, Any]] | dict[str, Any]) -> None:
        """Restores moments and step counts; betas, weight decay and the like stay those of the configuration.

        torch would restore the saved ones, so that a value changed on a resume would have no effect.
        """
        if isinstance(state, dict):  # of a run whose one optimizer was saved by itself
            state = [state]
        for optimizer, saved in zip(self.optimizers, state, strict=True):
            ours = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(_laid_out(saved, optimizer))
            for group, settings, rate in zip(optimizer.param_groups, ours, rates, strict=True):
                saved_rate = float(group["lr"])
                group.update(settings | {"lr": rate.fill_(saved_rate) if isinstance(rate, Tensor) else saved_rate})


def _laid_out(saved: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A saved state with this rank's part of each moment, and with the optimizer's own groups at the saved rate.

    (Sharded parameters stand in groups of their own; the numbers of all parameters are the same without them.)

    Raises:
        ValueError: it is of another number of parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = optimizer.state_dict()["param_groups"]
    if len(parameters) != sum(len(group["params"]) for group in saved["param_groups"]):
        raise ValueError(f"the saved optimizer has another number of parameters than {len(parameters)}")
    alike = [len(group["params"]) for group in own] == [len(group["params"]) for group in saved["param_groups"]]
    if alike and not any(map(sharding.is_sharded, parameters)):
        return saved
    if "place" in own[0] and "place" not in saved["param_groups"][0]:
        saved = saved | {"state": _renumbered(saved["state"], optimizer)}
    state = {
        number: {
            name: sharding.part_of(value, parameters[number]) if value.shape == parameters[number].shape else value
            for name, value in moments.items()
        }
        for number, moments in saved["state"].items()
    }
    rate = saved["param_groups"][0]["lr"]  # that of all groups
    return {"state": state, "param_groups": [group | {"lr": rate} for group in own]}


def without_decay(network: nn.Module) -> set[int]:
    """`id` of the parameters that a module names in an attribute `without_decay` (sizes of noise, tables of values)."""
    named = ((module, name) for module in network.modules() for name in getattr(module, "without_decay", ()))
    return {id(module.get_parameter(name)) for module, name in named}


def _renumbered(state: dict[int, Any], optimizer: Optimizer) -> dict[int, Any]:
    """The moments by today's numbers, of a run that was saved when every matrix decayed: matrices first, then the others."""
    placed = [
        (p.dim() < 2, place) for group in optimizer.param_groups for p, place in zip(group["params"], group["place"], strict=True)
    ]
    number_of = {key: number for number, key in enumerate(sorted(placed))}
    return {number: state[number_of[key]] for number, key in enumerate(placed) if number_of[key] in state}


def _adam(
    parameters: list[nn.Parameter], fixed: set[int], decoupled: bool, lr: float, betas: list[float], eps: float,
    weight_decay: float,
) -> Optimizer:  # fmt: skip
    """Adam or AdamW; weight decay applies to matrices (embeddings too), not to biases, norms' gains or other vectors, nor to
    the parameters whose `id` is in `fixed`."""
    _check(lr, eps, weight_decay)
    if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
        raise UserError(f"optimizer.betas are two numbers in [0, 1), not {betas}")
    matrices = [p for p in parameters if p.dim() >= 2 and id(p) not in fixed]
    others = [p for p in parameters if p.dim() < 2 or id(p) in fixed]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = _apart(groups)
    if fixed:  # where each parameter stands in the network, for `_renumbered`
        place_of = {id(p): place for place, p in enumerate(parameters)}
        for group in groups:
            group["place"] = [place_of[id(p)] for p in group["params"]]
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    device = parameters[0].device
    records = cuda_graphs.can_record(device) and not any(map(sharding.is_sharded, parameters))
    return make(
        groups, lr=torch.tensor(lr, device=device) if records else lr, betas=(betas[0], betas[1]),
        eps=eps, fused=True, capturable=records,
    )  # fmt: skip


def _apart(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same groups, without empty ones, and with sharded parameters apart: no operation takes both kinds."""
    found = []
    for group in groups:
        parts: list[list[nn.Parameter]] = [[], []]
        for parameter in group["params"]:
            parts[not sharding.is_sharded(parameter)].append(parameter)
        found += [group | {"params": part} for part in parts if part]
    return found


def _check(lr: float, eps: float, weight_decay: float) -> None:
    if lr <= 0:
        raise UserError(f"optimizer.lr must be above 0, not {lr}")
    for name, value in (("eps", eps), ("weight_decay", weight_decay)):
        if value < 0:
            raise UserError(f"optimizer.{name} cannot be below 0, and it is {value}")


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
) -> OptimizerWithSchedule:
    """AdamW (Loshchilov and Hutter 2019): the weight decay is applied to the weights, not to the gradient."""
    optimizer = _adam(list(network.parameters()), without_decay(network), True, lr, betas, eps, weight_decay)
    return OptimizerWithSchedule([optimizer], total_updates, lr, warmup_updates, schedule, final_fraction)


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
) -> OptimizerWithSchedule:
    """Adam (Kingma and Ba 2015) without weight decay."""
    optimizer = _adam(list(network.parameters()), set(), False, lr, betas, eps, 0.0)
    return OptimizerWithSchedule([optimizer], total_updates, lr, warmup_updates, schedule, final_fraction)


def _hidden_matrices(body: nn.Module) -> list[nn.Parameter]:
    """Matrices inside the body: no embeddings (nor their LoRA), and no biases that happen to have two axes."""
    tables = {id(m.weight) for m in body.modules() if isinstance(m, nn.Embedding)}
    return [
        p for name, p in body.named_parameters()
        if p.dim() == 2 and p.requires_grad and id(p) not in tables and "embedding" not in name and not name.endswith("bias")
    ]  # fmt: skip


def muon(
    network: QNetwork,
    total_updates: int,
    *,
    lr: float,
    momentum: float,
    betas: list[float],
    eps: float,
    weight_decay: float,
    warmup_updates: int,
    schedule: Literal["constant", "cosine"],
    final_fraction: float | None,
) -> OptimizerWithSchedule:
    """Muon (Jordan et al. 2024) for the matrices inside the body, AdamW for all other parameters.

    The step of a matrix W (m x n) is close to the semi-orthogonal matrix nearest to Nesterov's average of its gradients, times
    0.2 sqrt(max(m, n)): as long as an AdamW step usually is, so that one learning rate serves both (Liu et al. 2025, section
    2.2). A stack of matrices in one parameter (the experts of some pretrained models) is left to AdamW.

    Raises:
        UserError: a setting outside its range, or a body without a matrix that moves.
    """
    if not 0 <= momentum < 1:
        raise UserError(f"optimizer.momentum must be in [0, 1), not {momentum}")
    _check(lr, eps, weight_decay)
    hidden = _hidden_matrices(network.body)
    if not hidden:
        raise UserError(
            "optimizer=muon turns the steps of the matrices inside the network's body, and this body has none that moves; "
            "set optimizer=adamw"
        )
    if any(map(sharding.is_sharded, hidden)):
        raise UserError(
            "optimizer=muon turns whole matrices, and with network.shard=true each process holds a part of them; set "
            "optimizer=adamw"
        )
    inside = {id(p) for p in hidden}
    rest = [p for p in network.parameters() if id(p) not in inside]
    orthogonal = torch.optim.Muon(
        hidden, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
    )
    optimizers: list[Optimizer] = [orthogonal, _adam(rest, without_decay(network), True, lr, betas, eps, weight_decay)]
    return OptimizerWithSchedule(optimizers, total_updates, lr, warmup_updates, schedule, final_fraction)
