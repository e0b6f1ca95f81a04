"""Quantiles at sampled levels (IQN: Dabney et al. 2018b)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dqnlm.errors import UserError
from dqnlm.heads.distributional import DistributionalHead, at_least_float32, midpoints, taken
from dqnlm.heads.quantile import check_quantiles
from dqnlm.ops.distributional import quantile_huber
from dqnlm.types import Bounds


class ImplicitQuantile(DistributionalHead):
    """Of 2N raw numbers the first N are quantiles in return units, the last N their levels tau.

    Needs no bounds of the return, and clamps nothing.

    Args:
        bounds: of the return.
        num_quantiles: N, levels per forward pass, 1 or more.
        embedding: number of cosine features of a level, 1 or more.
        kappa: error in return units up to which the loss is quadratic; 0 for quantile regression proper.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, bounds: Bounds, *, num_quantiles: int, embedding: int, kappa: float) -> None:
        super().__init__(bounds)
        check_quantiles(num_quantiles, kappa)
        if embedding < 1:
            raise UserError(f"head.embedding is {embedding}; the least is 1. Set head.embedding=64, the usual number.")
        self.num_parameters = 2 * num_quantiles
        self.num_quantiles, self.embedding, self.kappa = num_quantiles, embedding, kappa

    def project(self, make: Callable[[int, int, int], nn.Module], features: int, num_actions: int) -> nn.Module:
        """A projection to one number per action, applied once for each level."""
        return AtLevels(make(features, num_actions, 1), features, self.num_quantiles, self.embedding)

    def atoms(self, raw_XN: Tensor) -> tuple[Tensor, Tensor]:
        z_XM = at_least_float32(raw_XN[..., : self.num_quantiles])
        return z_XM, torch.full_like(z_XM, 1 / self.num_quantiles)

    def loss_atoms(self, raw_BTAN: Tensor, action_BT: Tensor, z_BTM: Tensor, p_BTM: Tensor) -> Tensor:
        prediction_BTN, tau_BTN = taken(raw_BTAN, action_BT).chunk(2, -1)
        return quantile_huber(prediction_BTN, tau_BTN.detach(), z_BTM, p_BTM, self.kappa)

    def clamped(self, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


class AtLevels(nn.Module):
    """Predicts N quantiles with one projection: raw(tau) = projection(h * phi(tau)).

    phi(tau) = relu(W c + b),  c_j = cos(pi j tau),  j = 0 .. embedding - 1        (Dabney et al. 2018b, equation 4)

    In training mode each position has its own levels, uniform on [0, 1), from torch's global generator. In evaluation mode
    all have the midpoints (i + 1/2) / N, so that acting is deterministic and one step equals the forward of all.

    Args:
        projection: features (..., D) -> (..., A, 1).
        features: D.
        quantiles: N.
        embedding: number of cosines.
    """

    def __init__(self, projection: nn.Module, features: int, quantiles: int, embedding: int) -> None:
        super().__init__()
        self.projection = projection
        self.quantiles, self.embedding = quantiles, embedding
        self.phi = nn.Linear(embedding, features)

    def forward(self, h_XD: Tensor) -> Tensor:
        """h (..., D) -> raw (..., A, 2N): quantiles, then their levels, the same for all actions."""
        tau_XN = self._levels(h_XD)
        frequency_J = math.pi * torch.arange(self.embedding, device=h_XD.device, dtype=tau_XN.dtype)
        cosine_XNJ = (tau_XN[..., None] * frequency_J).cos()
        phi_XND = self.phi(cosine_XNJ.to(self.phi.weight.dtype)).relu()
        quantile_XAN = self.projection(h_XD.unsqueeze(-2) * phi_XND).squeeze(-1).transpose(-1, -2)
        level_XAN = tau_XN.unsqueeze(-2).expand_as(quantile_XAN)
        return torch.cat([quantile_XAN, level_XAN], -1)

    def _levels(self, h_XD: Tensor) -> Tensor:
        """tau_XN, in float32 at least: bfloat16 would round levels near 1 to 1."""
        shape = (*h_XD.shape[:-1], self.quantiles)
        if not self.training:
            return midpoints(self.quantiles, h_XD).expand(shape)
        return torch.rand(shape, device=h_XD.device, dtype=torch.promote_types(h_XD.dtype, torch.float32))
