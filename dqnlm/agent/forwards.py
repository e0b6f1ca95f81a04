"""The forward passes of one update: raw outputs of the online, the target and the reference network.

Rows with equal observations share one forward; with a target of the heads alone, both networks share the features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dqnlm.agent.target import Target
from dqnlm.errors import UserError
from dqnlm.networks.base import QNetwork
from dqnlm.networks.deferred import DeferredOutputs
from dqnlm.objectives.base import Outputs, Requirements
from dqnlm.types import Decisions
from dqnlm.utils import sharding

R = TypeVar("R")


class NetworkOutputs(NamedTuple):
    """Raw outputs by name, (B, S, A, N), from the first decision of a batch on.

    Attributes:
        online: with gradient; times 0..T-1, and T where an objective requires the last observation of the online network.
        target: times 0..T-1, and T where an objective requires the last observation; None where none requires a target.
        reference: times 0..T-1; None without a reference network.
    """

    online: Outputs
    target: Outputs | None
    reference: Outputs | None


class Forwards:
    """`forwards(batch)` runs the networks that the objectives require, on the observations that they require.

    Args:
        network: online Q-network.
        target: holds the target network.
        reference: the network at the start of reinforcement learning; None: no objective reads it.
        requires: of the objectives of the run.
        context_carry: observations with which the next row begins after a cut (`TaskSpec.context_carry`); 0: it makes no
            difference.
        precision: bfloat16 runs the forwards under autocast.
        compile: wraps the online and the target forward in `torch.compile`.
        defers: outputs are computed where a loss reads them; without `compile` and `context_carry`.

    Raises:
        UserError: `compile` with sharded weights.
    """

    def __init__(
        self, network: QNetwork, target: Target, reference: QNetwork | None, requires: Requirements, context_carry: int,
        precision: Literal["float32", "bfloat16"], compile: bool, defers: bool,
    ) -> None:  # fmt: skip
        if compile and sharding.has_shards(network):
            raise UserError("network.shard=true gathers weights around forwards that are not compiled; set learner.compile=false")
        self.network, self.target, self.reference = network, target, reference
        self.defers = defers
        self.requires, self.context_carry, self.bfloat16 = requires, context_carry, precision == "bfloat16"
        self._run_online: Any = torch.compile(network) if compile else network
        self._run_target: Any = torch.compile(target.network) if compile else target.network

    def __call__(self, batch: Decisions) -> NetworkOutputs:
        """Raw outputs for every row; only those of the online network have a gradient."""
        with torch.autocast(batch.observation_BS.device.type, torch.bfloat16, enabled=self.bfloat16):
            online, target = self._online_and_target(batch)
            if self.context_carry and self.requires.last_observation:
                online, target = self._with_next_rows_context(online, target, batch)
            return NetworkOutputs(online, target, self._reference(batch))

    def _online_and_target(self, batch: Decisions) -> tuple[Outputs, Outputs | None]:
        """Outputs of both; one forward of the trunk where they share it."""
        requires, first = self.requires, batch.first
        observation_BS = batch.unique_observations()
        without_last_BS = observation_BS[:, :-1]
        target_BS = observation_BS if requires.last_observation else without_last_BS
        if self.defers:
            return self._deferred(batch, target_BS)
        if self.target.heads_only:
            h_BSD = self.network.features(target_BS, first)
            with torch.no_grad():
                target = batch.expand(self.target.network.project(h_BSD)) if requires.target else None
            return batch.expand(self.network.project(h_BSD)), target
        online_BS = observation_BS if requires.last_observation_online else without_last_BS
        online = batch.expand(self._run_online(online_BS, first))
        if not requires.target:
            return online, None
        return online, batch.expand(self._of_target(lambda: self._run_target(target_BS, first)))

    def _of_target(self, run: Callable[[], R]) -> R:
        """What the target network computes: without gradient, and without dropout also where it is the online network."""
        shared, training = self.target.network is self.network, self.network.training
        if shared:
            self.network.eval()
        with torch.no_grad():
            found = run()
        if shared:
            self.network.train(training)
        return found

    def _deferred(self, batch: Decisions, target_BS: Tensor) -> tuple[Outputs, Outputs | None]:
        """As `_online_and_target`, with outputs that are computed where they are read."""
        requires, target = self.requires, self.target
        online_BS = target_BS if requires.last_observation_online or target.heads_only else batch.unique_observations()[:, :-1]
        online = self._features(self.network, online_BS, batch)
        if not requires.target:
            return online, None
        if target.heads_only:
            with torch.no_grad():
                return online, DeferredOutputs(target.network, online.h_BSD.detach(), self.bfloat16)
        return online, self._of_target(lambda: self._features(target.network, target_BS, batch))

    def _features(self, network: QNetwork, observation_BS: Tensor, batch: Decisions) -> DeferredOutputs:
        h_BSD = network.features(observation_BS, batch.first)
        return DeferredOutputs(network, batch.expand({"h": h_BSD})["h"], self.bfloat16)

    def _with_next_rows_context(
        self, online: Outputs, target: Outputs | None, batch: Decisions
    ) -> tuple[Outputs, Outputs | None]:
        """The outputs with the last one of each row recomputed in the context of the next row."""
        if self.requires.last_observation_online:
            online = replace_last(online, truncation_outputs(self.network, batch, self.context_carry), batch)
        if target is not None:
            ends = self._of_target(lambda: truncation_outputs(self.target.network, batch, self.context_carry))
            target = replace_last(target, ends, batch)
        return online, target

    @torch.no_grad()
    def _reference(self, batch: Decisions) -> Outputs | None:
        if self.reference is None:
            return None
        without_last_BS = batch.unique_observations()[:, :-1]
        if self.defers:
            return self._features(self.reference, without_last_BS, batch)
        return batch.expand(self.reference(without_last_BS, batch.first))


@torch.no_grad()
def truncation_outputs(network: nn.Module, batch: Decisions, context_carry: int) -> Outputs:
    """Bootstrap outputs at the row's end, recomputed from its last `context_carry` observations only: one time.

    Where the next row begins with these observations, no decision is ever taken at the end of this one, so the value there is
    never learned in this row's context; in the next row's context it is.
    """
    back_R = torch.arange(1 - context_carry, 1, device=batch.length_B.device)
    row_B1 = torch.arange(batch.rows, device=batch.length_B.device)[:, None]
    last_BR = batch.observation_BS[row_B1, (batch.length_B[:, None] + back_R).clamp(min=0)]
    outputs: Outputs = network(last_BR, context_carry - 1)
    return outputs


def replace_last(outputs: Outputs, ends: Outputs, batch: Decisions) -> Outputs:
    """`outputs` with `ends` (one time) at the last observation of each row, which differs between rows.

    A window that ends before its row does keeps its own: the row goes on there, so the value is learned in this context.
    """
    time_B = batch.length_B - batch.first
    cut_B = None if batch.cut_B is None else batch.cut_B.view(-1, 1, 1, 1)

    def index(raw: Tensor) -> Tensor:
        return time_B.view(-1, 1, 1, 1).expand(-1, 1, *raw.shape[2:])

    def end(raw: Tensor, new: Tensor) -> Tensor:
        return new if cut_B is None else torch.where(cut_B, new, raw.gather(1, index(raw)))

    return {name: raw.scatter(1, index(raw), end(raw, ends[name].to(raw.dtype))) for name, raw in outputs.items()}
