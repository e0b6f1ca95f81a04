"""Target network: periodic copy, Polyak averaging, or none."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.networks import fixed_weights
from dqnlm.networks.base import QNetwork
from dqnlm.utils import sharding
from dqnlm.utils.context import RunContext


class Target:
    """Holds the target network `network` and updates it from `online` after each gradient step.

    With `heads_only` the encoder and the body are the online network's own; only the output layers are copied, so that a
    large trunk is stored, and run, once.

    Hard: a copy each `period` updates (Mnih et al. 2015). Polyak: theta_bar += rate (theta - theta_bar) at each update
    (Lillicrap et al. 2016). None: the online network itself, without gradient.
    """

    def __init__(
        self, online: QNetwork, *, period: int | None, polyak_rate: float | None, heads_only: bool = False
    ) -> None:
        if period is not None and period < 1:
            raise UserError(f"target.period counts updates and must be at least 1, not {period}")
        if polyak_rate is not None and not 0 < polyak_rate <= 1:
            raise UserError(f"target.polyak_rate must lie in (0, 1], not {polyak_rate}")
        self.online, self.period, self.polyak_rate, self.heads_only = online, period, polyak_rate, heads_only
        self.copies = period is not None or polyak_rate is not None
        if self.copies and not heads_only and sharding.has_shards(online):
            raise UserError(
                "network.shard=true divides one network among the processes, and a target network would be a second one; set "
                "target.heads_only=true (or target=none)"
            )
        self.network = copy.deepcopy(online, _shared(online, heads_only)) if self.copies else online
        self._following = self.network.projections if heads_only else self.network
        self._followed = online.projections if heads_only else online
        if self.copies:
            self._following.requires_grad_(False).eval()  # no dropout in a target
        pairs = zip(self._followed.parameters(), self._following.parameters(), strict=True)
        moved = [(theirs.detach(), own.detach()) for theirs, own in pairs if own is not theirs]
        self._online_parameters, self._own_parameters = [theirs for theirs, _ in moved], [own for _, own in moved]

    def check(self, context: RunContext) -> None:
        """Raises UserError where the shared forward of `heads_only` was to be compiled."""
        if self.heads_only and context.compiles:
            raise UserError("target.heads_only=true shares one forward that is not compiled; set learner.compile=false")

    @torch.no_grad()
    def update(self, updates_done: int) -> None:
        """Updates the target weights; `updates_done` counts gradient steps since the start of the run."""
        if self.polyak_rate is not None:
            torch._foreach_lerp_(self._own_parameters, self._online_parameters, self.polyak_rate)
        elif self.period is not None and updates_done % self.period == 0:
            self.copy_from_online()

    @torch.no_grad()
    def copy_from_online(self) -> None:
        """Copies the online weights."""
        if self.copies:
            self._following.load_state_dict(self._followed.state_dict())

    def state_dict(self) -> dict[str, Tensor]:
        """The target's own weights; {} without a copy."""
        return fixed_weights.changing_state(self._following) if self.copies else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self.copies:
            fixed_weights.load_changing_state(self._following, state)


def _shared(online: QNetwork, heads_only: bool) -> dict[int, Any]:
    """What a copy shares with the network, a memo for `deepcopy`: weights that never change, and all but the heads."""
    parts = {id(part): part for part in (online.encoder, online.body)} if heads_only else {}
    return parts | fixed_weights.shared(online)


def hard(online: QNetwork, *, period: int, heads_only: bool) -> Target:
    """Periodic copy: of the online weights, each `period` updates."""
    return Target(online, period=period, polyak_rate=None, heads_only=heads_only)


def polyak(online: QNetwork, *, polyak_rate: float, heads_only: bool) -> Target:
    """Polyak averaging: a moving average of the online weights."""
    return Target(online, period=None, polyak_rate=polyak_rate, heads_only=heads_only)


def none(online: QNetwork) -> Target:
    """No target network: targets come from the online network."""
    return Target(online, period=None, polyak_rate=None)
