"""A small learner with nothing of Hydra, used by the tests of heads, objectives, target and learner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from dqnlm.agent import optimizer as optimizers
from dqnlm.agent.learner import Learner
from dqnlm.agent.optimizer import OptimizerWithSchedule
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
from dqnlm.objectives.td import TDObjective, td
from dqnlm.rewards.exact_match import ExactMatch
from dqnlm.types import Batch, Bounds
from tests.helpers.batches import GAMMA, A, T

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
    feedback: str = "taken",
    gamma: float = GAMMA,
    last_has_value: bool = True,
    weight: float = 1.0,
    multistep: Returns | None = None,
    twin: bool = False,
) -> TDObjective:
    reward_all: Callable[[Tensor], Tensor] | None = None
    if feedback == "all_actions":
        reward = ExactMatch(A, match=1.0, mismatch=0.0)
        reward_all = lambda observation_BS: reward.all_actions(observation_BS[:, 1:])  # noqa: E731
    return td(
        HEADS[head](), BOOTSTRAPS[bootstrap](), multistep or OneStep(), reward_all, gamma > 0, last_has_value,
        weight=weight, twin=twin,
    )  # fmt: skip


def cross_entropy(
    weight: float = 1.0, output: Literal["q", "policy"] = "q", normaliser_weight: float = 0.0
) -> CrossEntropy:
    return CrossEntropy(weight=weight, output=output, normaliser_weight=normaliser_weight)


def learner_settings(**changes: Any) -> Any:
    """The learner's settings, plain where a test does not say otherwise."""
    settings: dict[str, Any] = {
        "gradient_clip": None, "precision": "float32", "compile": False, "record": False, "burn_in": 0, "kl_weight": 0.0,
        "kl_temperature": 1.0, "micro_batch_size": None,
    }  # fmt: skip
    assert set(changes) <= set(settings), changes
    return settings | changes


def adam(network: QNetwork, updates: int = 100, lr: float = 0.01) -> OptimizerWithSchedule:
    return optimizers.adam(
        network, updates, lr=lr, betas=[0.9, 0.99], eps=1e-8, warmup_updates=0, schedule="constant", final_fraction=None
    )


def make_learner(
    *objectives: Objective, seed: int = 0, period: int | None = 100, polyak_rate: float | None = None, context_carry: int = 0,
    target_of: Callable[[QNetwork], Target] | None = None, **settings: Any,
) -> Learner:  # fmt: skip
    """A learner of the objectives (one-step TD unless told), with the settings of `learner_settings`."""
    network = make_network(seed)
    target = target_of(network) if target_of else Target(network, period=period, polyak_rate=polyak_rate)
    if target.copies and target_of is None:
        target.network.load_state_dict(make_network(seed + 50).state_dict())  # so that a mix-up of the two shows
    named = {"cross_entropy" if isinstance(o, CrossEntropy) else "td": o for o in objectives or (make_td(),)}
    return Learner(network, target, named, adam(network), Accumulator(CPU), context_carry, **learner_settings(**settings))


def gradient(learner: Learner, batch: Batch) -> list[Tensor]:
    """What one update would follow: read from the weights after it, by way of Adam's inputs (no clipping)."""
    learner.update(batch)
    return [p.grad.clone() for p in learner.network.parameters() if p.grad is not None]


def figures(learner: Learner) -> dict[str, float]:
    return learner.accumulator.pop_means()


def assert_close(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def differ(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether two gradients are clearly not the same."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True)) > 1e-4
