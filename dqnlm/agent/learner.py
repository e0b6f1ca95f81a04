"""One gradient step: forward passes, losses, backward, clipping, optimizer step, target network.

    loss = sum_objectives weight * sum_BT(loss_BT * mask_BT * weight_B) / count      count = clamp(sum mask, 1)

(An objective that gives one loss a row is averaged over rows.) With `micro_batch_size` the sums are taken over so many rows at a
time, each with its own forward and backward, and divided by the counts of the whole batch: the gradients add up to the
same, and the outputs of the whole vocabulary are in memory for these rows alone.

Nothing here waits for the device: metrics are added up there and read at the log points.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dqnlm.agent.forwards import Forwards, NetworkOutputs
from dqnlm.agent.optimizer import OptimizerWithSchedule
from dqnlm.agent.recorded_update import RecordedUpdate
from dqnlm.agent.target import Target
from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.metrics import Accumulator
from dqnlm.networks import fixed_weights
from dqnlm.networks.base import QNetwork
from dqnlm.networks.deferred import MANY_ACTIONS, DeferredOutputs, num_actions
from dqnlm.networks.noisy import has_noise, resample_noise, set_noise
from dqnlm.objectives.base import LossOutput, Objective, Outputs, combined, require_no_whole_batch
from dqnlm.objectives.reference import ReferenceReward
from dqnlm.ops.losses import masked_mean
from dqnlm.ops.masking import after_burn_in
from dqnlm.types import Batch, Decisions, LegalActions
from dqnlm.utils import cuda_graphs, sharding
from dqnlm.utils.output_names import all_q, first_q
from dqnlm.utils.ranks import ALONE, Ranks


class LastUpdate(NamedTuple):
    """Outputs and errors of the latest update, for diagnostics; with `micro_batch_size` the last rows of its batch.

    Attributes:
        outputs: of the online network, without gradient; all Q-functions of one kind at least.
        error_BT: target less prediction in return units; None where no objective has one.
        batch: `learn_BT` marks the decisions of the loss.
    """

    outputs: Outputs
    error_BT: Tensor | None
    batch: Decisions

    @property
    def raw_BSAN(self) -> Tensor:
        """Raw q, with several rewards that of the first; of deferred outputs by the output layer after the update."""
        return self.outputs[first_q(self.outputs)]


class MicroBatchLoss(NamedTuple):
    """Of some rows of a batch.

    Attributes:
        losses: objective's name -> its share in the mean over the whole batch, without gradient.
        error_BT: as in `LastUpdate`.
    """

    losses: dict[str, Tensor]
    error_BT: Tensor | None


class Learner:
    """Minimises the weighted sum of the objectives by gradient steps on batches.

    Args:
        network: online Q-network.
        target: the target network, with its update rule.
        objectives: name -> objective; their weighted sum is minimised.
        optimization: optimizer with its learning-rate schedule.
        accumulator: where metrics go.
        context_carry: observations with which the next row begins after a cut (`TaskSpec.context_carry`).
        head: meaning of the raw q; needed with a kl_weight.
        legal: observation_BS -> legal actions; None: all actions are legal.
        multi_turn: steps without a decision may follow a decision in the same row, so values are carried over them.
        records: all parts do the same for every batch of the same shapes and wait for nothing, so that updates may be
            recorded on a device that can.
        ranks: the processes of the run, each of which holds a part of every batch.
        variable_length: rows differ in length, so that micro-batches are made of rows of like lengths.
        gradient_clip: largest global norm of the gradient, or None.
        precision: bfloat16 runs forwards under autocast.
        compile: wraps the online and the target forward in `torch.compile`.
        record: updates of one shape are recorded as a CUDA graph and replayed; on other devices nothing is.
        burn_in: first decisions of each row that are read but not learned from, so that a recurrent state is warm
            (Kapturowski et al. 2019); returns of later decisions are unchanged.
        kl_weight: of log pi_ref in each decision's reward, return units per nat; 0 for none. See `objectives.reference`.
        kl_temperature: T of pi_ref = softmax(Q_ref / T), return units.
        micro_batch_size: rows in one forward and backward; None: the whole batch.

    Raises:
        UserError: a number outside its range, or micro_batch_size where an objective compares rows with one another.
    """

    def __init__(
        self,
        network: QNetwork,
        target: Target,
        objectives: dict[str, Objective],
        optimization: OptimizerWithSchedule,
        accumulator: Accumulator,
        context_carry: int = 0,
        head: Head | None = None,
        legal: LegalActions | None = None,
        multi_turn: bool = False,
        records: bool = False,
        ranks: Ranks = ALONE,
        variable_length: bool = False,
        *,
        gradient_clip: float | None,
        precision: Literal["float32", "bfloat16"],
        compile: bool,
        record: bool,
        burn_in: int,
        kl_weight: float,
        kl_temperature: float,
        micro_batch_size: int | None,
    ) -> None:
        _require_ranges(gradient_clip, burn_in, kl_weight, kl_temperature)
        self.ranks = ranks
        require_no_whole_batch(objectives, micro_batch_size)
        self.network, self.target, self.objectives, self.optimization = network, target, objectives, optimization
        self.accumulator, self.legal, self.multi_turn = accumulator, legal, multi_turn
        self.gradient_clip, self.burn_in, self.micro_batch_size = gradient_clip, burn_in, micro_batch_size
        # Micro-batches of rows of like lengths have little padding. (Legal actions that differ between rows stay with theirs.)
        self.sorts = micro_batch_size is not None and variable_length
        self.noisy, self.parameters = has_noise(network), list(network.parameters())
        self._replicated = [p for p in self.parameters if not sharding.is_sharded(p)]  # FSDP adds up the gradients of the others
        self.requires = combined(objective.requires for objective in objectives.values())
        self.reference_reward: ReferenceReward | None = None
        if kl_weight:
            assert head is not None, "the builder hands it over"
            self.reference_reward = ReferenceReward(head, kl_weight, kl_temperature)
        self.reference: QNetwork | None = None
        if self.reference_reward is not None or self.requires.reference:
            _refuse_second_copy(network)
            self.reference = copy.deepcopy(network, fixed_weights.shared(network)).requires_grad_(False).eval()
        if network.receptive_field == 1:
            context_carry = 0  # an observation's outputs are the same in every context
        defers = num_actions(network) >= MANY_ACTIONS and not (compile or records or context_carry)
        self.forwards = Forwards(network, target, self.reference, self.requires, context_carry, precision, compile, defers)
        self.updates = 0
        self.last_update: LastUpdate | None = None
        self.transitions = torch.zeros((), dtype=torch.int64, device=accumulator.device)  # decisions learned from
        repeats = record and records and ranks.world == 1 and not self.noisy and optimization.can_be_recorded
        can_record = repeats and cuda_graphs.can_record(accumulator.device)
        self.recorded = RecordedUpdate(self._minimise) if can_record else None

    def update(self, batch: Batch) -> Tensor | None:
        """One gradient step on one batch, followed by the target network's update.

        Returns:
            error_BT from `batch.first` on, target less prediction in return units, of the first objective that has one.
        """
        self._prepare_networks()
        self.optimization.set_rate(self.updates)
        error_BT = self._minimise(batch) if self.recorded is None else self.recorded(batch)
        self.updates += 1
        self.target.update(self.updates)
        return error_BT

    def _minimise(self, batch: Batch) -> Tensor | None:
        """The update but for the target network's: gradients, clipping, the optimizer's step, metrics."""
        self.last_update = None  # frees the outputs of the update before
        self.optimization.zero_grad()
        decisions = batch.from_first_decision(self.legal, self.multi_turn)
        decisions = replace(decisions, learn_BT=loss_mask(decisions, self.burn_in))
        learned = self.ranks.total(decisions.learn_BT.sum())
        count, rows = learned.clamp(min=1), decisions.rows * self.ranks.world
        parts, place_B = [], None
        if self.sorts:
            decisions, place_B = decisions.by_length()
        for micro_batch in decisions.split(self.micro_batch_size, trims=self.sorts):
            total, part = self._loss(self.forwards(micro_batch), micro_batch, count, rows)
            total.backward()  # type: ignore[no-untyped-call]
            parts.append(part)
        self.ranks.add_gradients(self._replicated)
        clip = float("inf") if self.gradient_clip is None else self.gradient_clip
        norm = sharding.clip_gradients(self.parameters, clip, self.ranks)
        self.optimization.apply()
        self.transitions += learned.long()
        self._log(parts, norm)
        errors = [part.error_BT for part in parts if part.error_BT is not None]
        if not errors:
            return None
        return torch.cat(errors) if place_B is None else _padded(errors, decisions.action_BT.shape[1])[place_B]

    def _prepare_networks(self) -> None:
        """Sets training mode, and samples new noise for noisy layers."""
        if not self.network.training:
            self.network.train()
        if self.noisy:
            for network in (self.network, self.target.network):
                set_noise(network, True)
                resample_noise(network)

    def _loss(
        self, outputs: NetworkOutputs, batch: Decisions, count: Tensor, rows: int
    ) -> tuple[Tensor, MicroBatchLoss]:
        """The loss of one micro-batch, normalised by the counts of the whole batch.

        Returns:
            The weighted sum of the objectives, with gradient, and its parts without.
        """
        online, target, reference = outputs
        if self.reference_reward is not None:
            batch = self._with_reference_reward(self.reference_reward, reference, batch)
        total, losses, error_BT = torch.zeros((), device=count.device), {}, None
        for name, objective in self.objectives.items():
            part = batch.without_own() if objective.clones_actions else batch
            result = objective(online, target, part, reference)
            loss = mean_loss(result, part, count, rows)
            total = total + objective.weight * loss
            losses[name] = loss.detach()
            error_BT = result.error_BT if error_BT is None else error_BT
            self.accumulator.add_means({k: v.detach() for k, v in result.metrics.items()}, part.learn_BT)
        self.last_update = LastUpdate(_without_gradient(online), error_BT, batch)
        return total, MicroBatchLoss(losses, error_BT)

    def _with_reference_reward(self, reward: ReferenceReward, reference: Outputs | None, batch: Decisions) -> Decisions:
        """The batch with w log pi_ref(a_t | s_t) added to its rewards."""
        assert reference is not None, "its network exists wherever the reward does"
        batch, log_BT = reward(reference, batch)
        self.accumulator.add_means({"reference/log_probability": log_BT}, batch.learn_BT)
        return batch

    def _log(self, parts: list[MicroBatchLoss], norm: Tensor) -> None:
        for name in self.objectives:
            # Each rank has its share of the loss of the whole batch: the shares add up, so all ranks count as one.
            self.accumulator.add(f"loss/{name}", torch.stack([part.losses[name] for part in parts]).sum(), 1 / self.ranks.world)
        self.accumulator.add("grad/norm", norm)

    def sync_target_and_reference(self) -> None:
        """Copies the network's weights to the target and the reference network, after pretraining."""
        self.target.copy_from_online()
        if self.reference is not None:
            self.reference.load_state_dict(self.network.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": fixed_weights.changing_state(self.network),
            "target": self.target.state_dict(),
            "optimizer": self.optimization.state_dict(),
            "reference": {} if self.reference is None else fixed_weights.changing_state(self.reference),
            "updates": self.updates,
            "transitions": self.transitions.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        fixed_weights.load_changing_state(self.network, sharding.parts_of(state["network"], self.network))
        self.target.load_state_dict(state["target"])
        if self.reference is not None:
            fixed_weights.load_changing_state(self.reference, state["reference"])
        self.optimization.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        self.transitions.copy_(state["transitions"])
        if self.recorded is not None:
            self.recorded.forget()  # the optimizer's moments are other tensors now


def _padded(errors: list[Tensor], times: int) -> Tensor:
    """The errors of micro-batches of different lengths, 0 behind them: error_BT."""
    return torch.cat([torch.nn.functional.pad(error_BT, (0, times - error_BT.shape[1])) for error_BT in errors])


def _without_gradient(online: Outputs) -> Outputs:
    return online.detached() if isinstance(online, DeferredOutputs) else {name: online[name].detach() for name in all_q(online)}


def loss_mask(batch: Decisions, burn_in: int) -> Tensor:
    """learn_BT without the first `burn_in` decisions of each row."""
    return after_burn_in(batch.learn_BT, burn_in)


def mean_loss(output: LossOutput, batch: Decisions, count: Tensor, rows: int) -> Tensor:
    """sum_BT(loss_BT * mask_BT * weight_B) / count; for a loss_B, sum_B(loss_B * weight_B) / rows. Scalar."""
    if output.loss_BT.dim() == 1:
        return (output.loss_BT * batch.weight_B).sum() / rows
    return masked_mean(output.loss_BT * batch.weight_B[:, None], batch.learn_BT, count)


def _refuse_second_copy(network: QNetwork) -> None:
    """Raises UserError: a reference network beside sharded weights."""
    if sharding.has_shards(network):
        raise UserError(
            "network.shard=true divides one network among the processes, and the reference policy (learner.kl_weight, or "
            "reference=start of an objective) is a second one; set network.shard=false, or learn without the reference"
        )


def _require_ranges(gradient_clip: float | None, burn_in: int, kl_weight: float, kl_temperature: float) -> None:
    """Raises UserError: a setting outside its range."""
    if gradient_clip is not None and gradient_clip <= 0:
        raise UserError(f"learner.gradient_clip must be above 0 (or null for no clipping), not {gradient_clip}")
    if burn_in < 0:
        raise UserError(f"learner.burn_in counts decisions and must be at least 0, not {burn_in}")
    if not (0 <= kl_weight < math.inf and 0 < kl_temperature < math.inf):
        raise UserError(
            "learner.kl_weight must be at least 0 and learner.kl_temperature above 0, both finite, not "
            f"{kl_weight} and {kl_temperature}"
        )
