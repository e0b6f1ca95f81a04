"""A small learner with nothing of Hydra, and batches for it; used by the tests of heads, objectives, target and learner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dqnlm.agent import optimizer as optimizers
from dqnlm.agent.learner import Learner
from dqnlm.agent.target import Target
from dqnlm.heads.base import Head
from dqnlm.heads.normalised import Normalised
from dqnlm.heads.scalar import Scalar
from dqnlm.metrics import Accumulator
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Dueling
from dqnlm.networks.recurrent import GRU
from dqnlm.objectives.base import Objective
from dqnlm.objectives.bootstrap import Bootstrap, Double, Max, Munchausen, Soft, Value
from dqnlm.objectives.cross_entropy import CrossEntropy
from dqnlm.objectives.returns import OneStep, Returns
from dqnlm.objectives.td import TemporalDifference
from dqnlm.rewards.exact_match import ExactMatch
from dqnlm.types import DECISION, TERMINATED, TRUNCATED, Batch, Bounds, discount_from_flags

A, T, GAMMA = 5, 6, 0.5
BOUNDS = Bounds(0.0, 2.0)
CPU = torch.device("cpu")

HEADS: dict[str, Callable[[], Head]] = {
    "squared": lambda: Scalar(BOUNDS, False, loss="squared", initial_return=None),
    "huber": lambda: Scalar(BOUNDS, False, loss="huber", initial_return=None),
    "logistic": lambda: Scalar(BOUNDS, False, loss="logistic", initial_return=None),
    "normalised": lambda: Normalised(BOUNDS, False, value_weight=1.0),
}

BOOTSTRAPS: dict[str, Callable[[], Bootstrap]] = {
    "max": Max,
    "double": Double,
    "soft": lambda: Soft(temperature=0.3),
    "munchausen": lambda: Munchausen(alpha=0.9, temperature=0.3, clip_low=-1.0),
    "value": Value,
}


def make_network(seed: int = 0) -> QNetwork:
    """A GRU whose weights are large enough that every part shows in the outputs."""
    torch.manual_seed(seed)
    body = GRU(layers=1, width=12, context=T)
    network = QNetwork(TokenEncoder(A, 12, 1.0), body, {"q": Dueling(12, A, 1, hidden=0)})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def make_td(
    head: str = "squared",
    bootstrap: str = "double",
    legal: Tensor | None = None,
    feedback: str = "taken",
    gamma: float = GAMMA,
    last_has_value: bool = True,
    weight: float = 1.0,
    multistep: Returns | None = None,
    twin: bool = False,
    interleaved: bool = False,
) -> TemporalDifference:
    reward_all: Callable[[Tensor], Tensor] | None = None
    if feedback == "all_actions":
        reward = ExactMatch(A, match=1.0, mismatch=0.0)
        reward_all = lambda observation_BS: reward.all_actions(observation_BS[:, 1:])  # noqa: E731
    return TemporalDifference(
        HEADS[head](), BOOTSTRAPS[bootstrap](), multistep or OneStep(), lambda observation_BS: legal, reward_all, gamma > 0,
        last_has_value, interleaved, weight=weight, twin=twin,
    )  # fmt: skip


def make_learner(
    *objectives: Objective, seed: int = 0, period: int | None = 100, polyak_rate: float | None = None,
    gradient_clip: float | None = None,
) -> Learner:  # fmt: skip
    network = make_network(seed)
    target = Target(network, period=period, polyak_rate=polyak_rate)
    if target.copies:
        target.network.load_state_dict(make_network(seed + 50).state_dict())  # so that a mix-up of the two shows
    optimizer = optimizers.adam(
        network, 100, lr=0.01, betas=[0.9, 0.99], eps=1e-8, warmup_updates=0, schedule="constant", final_fraction=None
    )
    named = {"cross_entropy" if isinstance(o, CrossEntropy) else "td": o for o in objectives or (make_td(),)}
    settings: Any = {
        "gamma": GAMMA, "feedback": "taken", "gradient_clip": gradient_clip, "precision": "float32", "compile": False,
        "burn_in": 0, "reference_weight": 0.0, "reference_temperature": 1.0, "rows_at_once": None,
    }  # fmt: skip
    return Learner(network, target, named, optimizer, Accumulator(CPU), **settings)


def random_batch(
    rows: int = 4, seed: int = 0, first: int = 0, end: int = TRUNCATED, gamma: float = GAMMA, copies: int = 1
) -> Batch:
    """Rows of random tokens and rewards; decisions from `first` on, the second row ends two steps early by termination."""
    g = torch.Generator().manual_seed(seed)
    length_B = torch.full((rows,), T)
    length_B[1::3] = T - 2
    time_T = torch.arange(T)
    within_BT = time_T < length_B[:, None]
    flag_BT = ((time_T >= first) & within_BT) * DECISION
    flag_BT[torch.arange(rows), length_B - 1] |= torch.where(length_B == T, end, TERMINATED)
    flag_BT = flag_BT.to(torch.uint8)
    mask_BT = ((flag_BT & DECISION) != 0).float()
    return Batch(
        torch.randint(A, (rows // copies, T + 1), generator=g).repeat_interleave(copies, 0),
        torch.randint(A, (rows, T), generator=g),
        torch.rand(rows, T, generator=g) * mask_BT,
        discount_from_flags(flag_BT, length_B, gamma),
        mask_BT,
        length_B,
        torch.ones(rows),
        torch.arange(rows),
        first,
        copies,
    )


def gradient(learner: Learner, batch: Batch) -> list[Tensor]:
    """What one update would follow: read from the weights after it, by way of Adam's inputs (no clipping)."""
    learner.update(batch)
    return [p.grad.clone() for p in learner.network.parameters() if p.grad is not None]


def figures(learner: Learner) -> dict[str, float]:
    return learner.accumulator.drain()


def assert_close(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def differ(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether two gradients are clearly not the same."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True)) > 1e-4
