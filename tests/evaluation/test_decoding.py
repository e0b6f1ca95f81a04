"""Beam search by hand: hypotheses are compared by their log-probabilities, not by the numbers of the network."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.evaluation.decoding import beam_search
from dqnlm.heads.scalar import Scalar
from dqnlm.types import Bounds

STOP, PROMPT, LOUD, SURE = 0, 1, 2, 3


class Table:
    """Q by the last token alone."""

    def __init__(self, q_AA: Tensor) -> None:
        self.q_AA = q_AA

    def __call__(self, observation_BS: Tensor, first: int) -> dict[str, Tensor]:
        return {"q": self.q_AA[observation_BS[:, first:]][..., None]}


def test_a_path_of_great_numbers_is_not_a_likely_one() -> None:
    """Bug: logits are added up as they are. After LOUD all four tokens have 20, so 1/4 each; after SURE the end has 1 - e^-9."""
    q_AA = torch.zeros(4, 4)
    q_AA[PROMPT] = torch.tensor([-9.0, -9.0, 0.1, 0.0])
    q_AA[LOUD], q_AA[SURE] = 20.0, torch.tensor([0.0, -10.0, -10.0, -10.0])
    network: Any = Table(q_AA)
    head = Scalar(Bounds(-math.inf, math.inf), False, loss="squared", initial_return=None)
    policy = Policy(network, head, None, None, "boltzmann", 1.0)
    assert beam_search(policy, torch.tensor([PROMPT]), STOP, 2, width=2) == [SURE, STOP]
    assert beam_search(policy, torch.tensor([PROMPT]), STOP, 2, width=1)[0] == LOUD, "greedy takes the likelier first token"
