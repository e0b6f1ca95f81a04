"""The KL divergence of a reweighted policy, against sums by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.evaluation.divergence import divergence
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import DECISION, Rows


class OneHot:
    """A network whose features are the observation, and whose outputs are given for each."""

    projections = ("policy", "q")

    def __init__(self, policy_OA: Tensor, q_OA: Tensor) -> None:
        self.policy_OA, self.q_OA = policy_OA, q_OA

    def features(self, observation_BS: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(observation_BS, len(self.policy_OA)).float()

    def project(self, h_XD: Tensor) -> dict[str, Tensor]:
        return {"policy": (h_XD @ self.policy_OA)[..., None], "q": h_XD @ self.q_OA}


def policy(network: OneHot, beta: float, legal_A: Tensor | None = None) -> Any:
    def q(output: dict[str, Tensor]) -> Tensor:
        return masked_q(output["policy"].squeeze(-1).log_softmax(-1) + beta * output["q"], legal_A)

    spec, head = SimpleNamespace(num_actions=3), SimpleNamespace(num_parameters=1)
    return SimpleNamespace(network=network, q=q, legal_A=legal_A, spec=spec, head=head)


def rows(observation_BS: list[list[int]], flag_BT: list[list[int]]) -> Rows:
    observation, flag = torch.tensor(observation_BS), torch.tensor(flag_BT, dtype=torch.uint8)
    zero = torch.zeros(flag.shape, dtype=torch.long)
    return Rows(observation, zero, zero.float(), flag, torch.full((len(flag),), flag.shape[1]))


def test_by_hand() -> None:
    """Bug: the divergence the wrong way round, of decisions that are none, of a last observation, or with illegal actions.

    At observation 0 pi_b is (1/2, 1/4, 1/4) and beta Q = (0, log 2, 0): pi = (2, 2, 1) / 5. At observation 1 pi = pi_b.
    """
    network = OneHot(
        torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]).log(), torch.tensor([[0.0, math.log(2) / 4, 0.0], [7.0, 7.0, 7.0]])
    )
    expected = 0.4 * math.log(0.4 / 0.5) + 0.4 * math.log(0.4 / 0.25) + 0.2 * math.log(0.2 / 0.25)
    played = rows([[0, 0, 0], [0, 1, 0]], [[DECISION, DECISION], [0, DECISION]])
    assert divergence(policy(network, 4.0), [played]) == pytest.approx(2 / 3 * expected, rel=1e-5)
    assert divergence(policy(network, 0.0), [played, played]) == pytest.approx(0, abs=1e-6)
    # Without the third action pi_b is (2/3, 1/3) and pi (1/2, 1/2).
    legal = policy(network, 4.0, torch.tensor([True, True, False]))
    without = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    assert divergence(legal, [rows([[0, 0]], [[DECISION]])]) == pytest.approx(without, rel=1e-5)
