"""From rewards, discounts and values of the next observation to regression targets. Pure functions on tensors.

Time: `reward_BT[t]` and `discount_BT[t]` belong to s_t -> s_{t+1}; `value_BS[t]` to s_t, S = T + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def carried_value(value_BS: Tensor, reward_BT: Tensor, discount_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """A step without a decision carries its value: v_t = r_t + d_t v_{t+1}; a decision keeps its own.

    Used where a partner's tokens lie between two decisions, so that the earlier one bootstraps from the later one.

    Args:
        value_BS: bootstrap values of every observation.
        mask_BT: 1 where the agent decided.

    Returns:
        value_BS, with v_t replaced at times without a decision, from the last backwards.
    """
    values = list(value_BS.unbind(1))
    for t in reversed(range(reward_BT.shape[1])):
        carried_B = reward_BT[:, t] + discount_BT[:, t] * values[t + 1]
        values[t] = torch.where(mask_BT[:, t] > 0, values[t], carried_B)
    return torch.stack(values, 1)


def one_step_target(reward_BT: Tensor, discount_BT: Tensor, value_BS: Tensor) -> Tensor:
    """y_t = r_t + d_t v(s_{t+1}) (Watkins 1989), with the discount as data: 0 ends the return.

    Returns:
        target_BT.
    """
    return reward_BT + discount_BT * value_BS[:, 1:]
