"""Base class of heads that predict the distribution of returns, not only its mean.

A distribution is M values z with probabilities p. A target of another distribution is its values moved, R + G z, with the
same probabilities, so each head only defines its atoms and their distance to a target.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from dqnlm.heads.base import Head


class DistributionalHead(Head):
    """N raw outputs per action describe a distribution of returns; Q is its mean.

    Attributes:
        temperature: eta in return units, where Q is eta log E exp(Z / eta) of the distribution; None: Q is the mean.
    """

    is_distributional = True
    temperature: float | None = None

    @abstractmethod
    def atoms(self, raw_XN: Tensor) -> tuple[Tensor, Tensor]:
        """Values z_XM in return units and their probabilities p_XM, of ONE action's raw numbers, with any leading axes."""

    @abstractmethod
    def loss_atoms(self, raw_BTAN: Tensor, action_BT: Tensor, z_BTM: Tensor, p_BTM: Tensor) -> Tensor:
        """loss_BT of the action taken against the distribution with values z (return units) and probabilities p."""

    def value(self, raw_XAN: Tensor) -> Tensor:
        z_XAM, p_XAM = self.atoms(raw_XAN)
        return (z_XAM * p_XAM).sum(-1)

    def loss_taken(self, raw_BTAN: Tensor, action_BT: Tensor, target_BT: Tensor) -> Tensor:
        z_BTM = target_BT[..., None]
        return self.loss_atoms(raw_BTAN, action_BT, z_BTM, torch.ones_like(z_BTM))

    def loss_all(self, raw_BTAN: Tensor, target_BTA: Tensor) -> Tensor:
        """Not available: the value of a state would have to be one distribution for all actions.

        Raises:
            NotImplementedError: always; the builder refuses feedback=all_actions before.
        """
        raise NotImplementedError(f"{type(self).__name__} learns from the action taken alone")


def taken(raw_BTAN: Tensor, action_BT: Tensor) -> Tensor:
    """raw_BTN of the actions taken, in float32 at least."""
    index_BTAN = action_BT[..., None, None].expand(*action_BT.shape, 1, raw_BTAN.shape[-1])
    return at_least_float32(raw_BTAN.gather(-2, index_BTAN).squeeze(-2))


def at_least_float32(raw: Tensor) -> Tensor:
    """Converts raw outputs of a half-precision network to float32, for softmax and sums over atoms."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def midpoints(quantiles: int, like: Tensor) -> Tensor:
    """tau_N = (i + 1/2) / N for i = 0 .. N - 1, on the device of `like`, in float32 at least.

    The N values whose distribution, each of probability 1/N, lies nearest to another (in Wasserstein-1 distance) are its
    quantiles at these levels (Dabney et al. 2018a, lemma 2).
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return (torch.arange(quantiles, device=like.device, dtype=dtype) + 0.5) / quantiles
