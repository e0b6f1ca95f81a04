"""The outputs at each row's end as the next row, which begins there, will see them (`Environment.restart`).

No decision follows in the row itself, so the value of its last observation in this context is never learned, and would be
anything.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dqnlm.objectives.base import Outputs
from dqnlm.types import Batch


@torch.no_grad()
def fresh(network: nn.Module, batch: Batch, restart: int) -> Outputs:
    """Outputs after the last `restart` observations of each row, read without what stands before them: one time."""
    back_R = torch.arange(1 - restart, 1, device=batch.length_B.device)
    last_BR = batch.observation_BS.gather(1, (batch.length_B[:, None] + back_R).clamp(min=0))
    found: Outputs = network(last_BR, restart - 1)
    return found


def with_ends(output: Outputs, ends: Outputs, batch: Batch) -> Outputs:
    """`output` (times `batch.first` on) with `ends` (one time) where each row ends."""
    place_B = batch.length_B - batch.first

    def place(raw: Tensor) -> Tensor:
        return place_B.view(-1, 1, 1, 1).expand(-1, 1, *raw.shape[2:])

    return {name: raw.scatter(1, place(raw), ends[name].to(raw.dtype)) for name, raw in output.items()}
