"""One update: forward the online and the target network over whole rows, sum the objectives, one backward, one step.

    loss = sum_objectives weight * sum_BT(loss_BT * mask_BT * weight_B) / count      count = clamp(sum mask, 1)

(an objective that gives one loss a row is averaged over rows). With `rows_at_once` the sums are taken over so many rows at a
time, each with its own forward and backward, and divided by the counts of the whole batch: the gradients add up to the very
same, and the outputs of the whole vocabulary are held for these rows alone.

Nothing here waits for the device: figures are added up there and read at the log points.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dqnlm.agent.optimizer import Optimization
from dqnlm.agent.row_ends import fresh, with_ends
from dqnlm.agent.target import Target
from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import QNetwork
from dqnlm.networks.noisy import has_noise, resample_noise, set_noise
from dqnlm.objectives.base import Legal, Objective, Outputs, require_rows_apart
from dqnlm.objectives.reference import ReferenceReward
from dqnlm.ops.losses import masked_mean
from dqnlm.types import Batch


class Latest(NamedTuple):
    """What the newest update saw, from its first decision on; with `rows_at_once` the last rows of its batch."""

    raw_BTAN: Tensor
    error_BT: Tensor | None
    learn_BT: Tensor
    batch: Batch


class Part(NamedTuple):
    """What some rows of a batch give: their shares in the losses, by objective, and their errors, as in `Latest`."""

    losses: dict[str, Tensor]
    error_BT: Tensor | None


class Learner:
    """Owns the only `backward()`.

    Args:
        network: online Q-network.
        target: the network that values the future, and how it follows.
        objectives: name -> objective; their weighted sum is minimised.
        optimization: optimizer with its learning-rate schedule.
        accumulator: where figures go.
        restart: observations with which the next row begins after a cut (`Environment.restart`).
        head, legal: meaning of the raw q, and legal actions; needed with a reference_weight.
        gamma: discount of one decision (applied where rows become batches; kept here as its one home).
        feedback: which actions a step teaches (read by the objectives, through the builder).
        gradient_clip: largest global norm of the gradient, or None.
        precision: bfloat16 runs forwards under autocast.
        compile: wraps both forwards in `torch.compile`.
        burn_in: first decisions of each row that are read but not learned from, so that a recurrent state is warm
            (Kapturowski et al. 2019); their returns are as ever.
        reference_weight: of log pi_ref in each decision's reward, return units a nat; 0 for none. See `objectives.reference`.
        reference_temperature: T of pi_ref = softmax(Q_ref / T), return units.
        rows_at_once: rows in one forward and backward; None: the whole batch.

    Raises:
        UserError: a number outside its range, or rows_at_once where an objective compares rows with one another.
    """

    def __init__(
        self,
        network: QNetwork,
        target: Target,
        objectives: dict[str, Objective],
        optimization: Optimization,
        accumulator: Accumulator,
        restart: int = 0,
        head: Head | None = None,
        legal: Legal | None = None,
        *,
        gamma: float,
        feedback: Literal["taken", "all_actions"],
        gradient_clip: float | None,
        precision: Literal["float32", "bfloat16"],
        compile: bool,
        burn_in: int,
        reference_weight: float,
        reference_temperature: float,
        rows_at_once: int | None,
    ) -> None:
        if not 0 <= gamma <= 1:
            raise UserError(f"learner.gamma is a discount, between 0 and 1, not {gamma}")
        if gradient_clip is not None and gradient_clip <= 0:
            raise UserError(f"learner.gradient_clip must be above 0 (or null for no clipping), not {gradient_clip}")
        if burn_in < 0:
            raise UserError(f"learner.burn_in counts decisions and must be at least 0, not {burn_in}")
        if not (0 <= reference_weight < math.inf and 0 < reference_temperature < math.inf):
            raise UserError(
                "learner.reference_weight must be at least 0 and learner.reference_temperature above 0, both finite, not "
                f"{reference_weight} and {reference_temperature}"
            )
        require_rows_apart(objectives, rows_at_once)
        self.rows_at_once = rows_at_once
        self.network, self.target, self.objectives, self.optimization = network, target, objectives, optimization
        self.restart = restart
        self.burn_in, self.noisy = burn_in, has_noise(network)
        self.accumulator, self.gamma, self.feedback, self.gradient_clip = accumulator, gamma, feedback, gradient_clip
        self.bfloat16 = precision == "bfloat16"
        self.parameters = list(network.parameters())
        self.needs_last = any(o.needs_last for o in objectives.values())
        self.needs_last_online = any(o.needs_last_online for o in objectives.values())
        self.needs_target = any(o.needs_target for o in objectives.values())
        self.forward_online = torch.compile(network) if compile else network
        self.forward_target = torch.compile(target.network) if compile else target.network
        self.reference_reward: ReferenceReward | None = None
        if reference_weight:
            assert head is not None and legal is not None, "the builder hands them over"
            self.reference_reward = ReferenceReward(head, legal, reference_weight, reference_temperature)
        self.reference: QNetwork | None = None
        if self.reference_reward is not None or any(o.needs_reference for o in objectives.values()):
            self.reference = copy.deepcopy(network).requires_grad_(False).eval()
        self.updates = 0
        self.latest: Latest | None = None  # of the newest update, for the diagnostics of a log point
        self.transitions = torch.zeros((), dtype=torch.int64, device=accumulator.device)  # decisions learned from

    def update(self, batch: Batch) -> Tensor | None:
        """One gradient step on one batch, then the target network follows.

        Returns:
            error_BT from `batch.first` on, target less prediction in return units, of the first objective that has one.
        """
        self.latest = None  # its outputs need not be kept beside the new ones
        self.optimization.zero_grad()
        if not self.network.training:
            self.network.train()
        if self.noisy:
            for network in (self.network, self.target.network):
                set_noise(network, True)
                resample_noise(network)
        learn_BT, rows = self._learned(batch), len(batch.length_B)
        count, size = learn_BT.sum().clamp(min=1), self.rows_at_once or rows
        parts = [self._backward(batch.part(i, i + size), count, rows) for i in range(0, rows, size)]
        clip = float("inf") if self.gradient_clip is None else self.gradient_clip
        norm = nn.utils.clip_grad_norm_(self.parameters, clip, foreach=True)
        self.optimization.step(self.updates)
        self.updates += 1
        self.target.update(self.updates)
        self.transitions += learn_BT.sum().long()
        self._log(parts, norm)
        errors = [part.error_BT for part in parts if part.error_BT is not None]
        return torch.cat(errors) if errors else None

    def _learned(self, batch: Batch) -> Tensor:
        """learn_BT from `batch.first` on: decisions that the loss reads."""
        mask_BT = (batch.mask_BT if batch.learn_BT is None else batch.learn_BT)[:, batch.first :]
        if self.burn_in == 0:
            return mask_BT
        return mask_BT * (mask_BT.cumsum(1) > self.burn_in)

    def _backward(self, batch: Batch, count: Tensor, rows: int) -> Part:
        """The share of some rows in the loss, and its gradient added; a batch has so many decisions and rows in all."""
        online, target = self._forward(batch)
        reference = self._of_reference(batch)
        mask_BT, error_BT = self._learned(batch), None
        if self.reference_reward is not None:
            assert reference is not None
            batch, log_BT = self.reference_reward(reference, batch)
            self.accumulator.add_means({"reference/log_probability": log_BT}, mask_BT)
        total, losses = torch.zeros((), device=mask_BT.device), {}
        for name, objective in self.objectives.items():
            result = objective(online, target, batch, reference)
            if result.loss_BT.dim() == 1:
                loss = (result.loss_BT * batch.weight_B).sum() / rows
            else:
                loss = masked_mean(result.loss_BT * batch.weight_B[:, None], mask_BT, count)
            total = total + objective.weight * loss
            losses[name] = loss.detach()
            self.accumulator.add_means({k: v.detach() for k, v in result.figures.items()}, mask_BT)
            error_BT = result.error_BT if error_BT is None else error_BT
        self.latest = Latest(online["q"].detach(), error_BT, mask_BT, batch)
        total.backward()  # type: ignore[no-untyped-call]
        return Part(losses, error_BT)

    def _log(self, parts: list[Part], norm: Tensor) -> None:
        for name in self.objectives:
            self.accumulator.add(f"loss/{name}", torch.stack([part.losses[name] for part in parts]).sum())
        self.accumulator.add("grad/norm", norm)

    def _forward(self, batch: Batch) -> tuple[Outputs, Outputs | None]:
        """Raw outputs of the online and the target network; rows with the same observations share one forward."""
        observation_BS = batch.observation_BS if self.needs_last else batch.observation_BS[:, :-1]
        observation_BS = observation_BS[:: batch.copies]
        with torch.autocast(observation_BS.device.type, torch.bfloat16, enabled=self.bfloat16):
            online, target = self._both(observation_BS, batch.first)
            if self.restart and self.needs_last:
                if self.needs_last_online:
                    online = with_ends(online, fresh(self.network, batch, self.restart), batch)
                if target is not None:
                    target = with_ends(target, fresh(self.target.network, batch, self.restart), batch)
        return for_all_copies(online, batch.copies), None if target is None else for_all_copies(target, batch.copies)

    @torch.no_grad()
    def _of_reference(self, batch: Batch) -> Outputs | None:
        if self.reference is None:
            return None
        with torch.autocast(batch.observation_BS.device.type, torch.bfloat16, enabled=self.bfloat16):
            reference: Outputs = self.reference(batch.observation_BS[:: batch.copies, :-1], batch.first)
        return for_all_copies(reference, batch.copies)

    def begin_here(self) -> None:
        """Target and reference policy become what the network is now: its warm start is over."""
        self.target.copy_from_online()
        if self.reference is not None:
            self.reference.load_state_dict(self.network.state_dict())

    def _both(self, observation_BS: Tensor, first: int) -> tuple[Outputs, Outputs | None]:
        if self.target.heads_only:
            h_BSD = self.network.features(observation_BS, first)
            with torch.no_grad():
                target = self.target.network.project(h_BSD) if self.needs_target else None
            return self.network.project(h_BSD), target
        without_last = self.needs_last and not self.needs_last_online
        online = self.forward_online(observation_BS[:, :-1] if without_last else observation_BS, first)
        with torch.no_grad():
            return online, self.forward_target(observation_BS, first) if self.needs_target else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimization.state_dict(),
            "reference": {} if self.reference is None else self.reference.state_dict(),
            "updates": self.updates,
            "transitions": self.transitions.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        self.optimization.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        self.transitions.copy_(state["transitions"])


def for_all_copies(output: dict[str, Tensor], copies: int) -> dict[str, Tensor]:
    """Each row `copies` times in a row; their gradients add up in the one forward."""
    return output if copies == 1 else {name: raw.repeat_interleave(copies, 0) for name, raw in output.items()}
