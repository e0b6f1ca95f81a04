"""The slower copy of the network that values the future: hard copies, Polyak averaging, or none."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dqnlm.errors import UserError


class Target:
    """Holds `network`, the one that targets are computed with, and follows `online` after each update.

    Hard: a copy each `period` updates (Mnih et al. 2015). Polyak: theta_bar += rate (theta - theta_bar) at each update
    (Lillicrap et al. 2016). None: the online network itself, without gradient.
    """

    def __init__(self, online: nn.Module, *, period: int | None, polyak_rate: float | None) -> None:
        if period is not None and period < 1:
            raise UserError(f"target.period counts updates and must be at least 1, not {period}")
        if polyak_rate is not None and not 0 < polyak_rate <= 1:
            raise UserError(f"target.polyak_rate must lie in (0, 1], not {polyak_rate}")
        self.online, self.period, self.polyak_rate = online, period, polyak_rate
        self.copies = period is not None or polyak_rate is not None
        self.network = copy.deepcopy(online).requires_grad_(False) if self.copies else online
        if self.copies:
            self.network.eval()  # no dropout in a target
        self._online_parameters = [p.detach() for p in online.parameters()]
        self._own_parameters = [p.detach() for p in self.network.parameters()]

    @torch.no_grad()
    def update(self, updates_done: int) -> None:
        """Follows the online weights; `updates_done` counts gradient steps since the start of the run."""
        if self.polyak_rate is not None:
            torch._foreach_lerp_(self._own_parameters, self._online_parameters, self.polyak_rate)
        elif self.period is not None and updates_done % self.period == 0:
            self.copy_from_online()

    @torch.no_grad()
    def copy_from_online(self) -> None:
        """Makes the two equal."""
        if self.copies:
            self.network.load_state_dict(self.online.state_dict())


def hard(online: nn.Module, *, period: int) -> Target:
    """A copy of the online weights each `period` updates."""
    return Target(online, period=period, polyak_rate=None)


def polyak(online: nn.Module, *, polyak_rate: float) -> Target:
    """A moving average of the online weights."""
    return Target(online, period=None, polyak_rate=polyak_rate)


def none(online: nn.Module) -> Target:
    """No copy: targets come from the online network."""
    return Target(online, period=None, polyak_rate=None)
