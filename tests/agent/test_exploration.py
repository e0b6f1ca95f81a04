"""Exploration: schedules point by point, who draws for whom, and what is never chosen.

Statistical tests have fixed seeds; the stated false-alarm chance is that of a correct explorer failing under a new seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dqnlm.agent.exploration import (
    Boltzmann,
    EpsilonGreedy,
    Exploration,
    Greedy,
    ProbabilityMatching,
    Reference,
    sample_categorical,
)
from dqnlm.errors import UserError
from dqnlm.networks.noisy import NoisyLinear, resample_noise, set_noise

A = 8
RISING = torch.arange(A).float()  # the best action is the last


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def epsilon_greedy(epsilon: float = 0.5, **options: Any) -> EpsilonGreedy:
    settings: dict[str, Any] = {
        "schedule": "constant", "start": epsilon, "end": None, "fraction": None, "factor": None, "top_k": None
    }  # fmt: skip
    return EpsilonGreedy(generator(), 1, **(settings | options))


EXPLORERS: dict[str, Callable[[], Exploration]] = {
    "epsilon_greedy": lambda: epsilon_greedy(0.5),
    "top_k": lambda: epsilon_greedy(1.0, top_k=5),
    "boltzmann": lambda: Boltzmann(generator(), 1, temperature=2.0, greedy=0.2, random=0.3),
    "greedy": lambda: Greedy(generator()),
    "probability_matching": lambda: ProbabilityMatching(generator(), 1, greedy=0.3, random=0.3, sharpness=1.0),
    "matching_of_copies": lambda: ProbabilityMatching(generator(), 3, greedy=0.3, random=0.3, sharpness=1.0),
}


@pytest.mark.fault("an epsilon schedule stuck at its end value")
@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        # 1 -> 0.1 over the first half: 1 - 0.9 * progress / 0.5, then 0.1. Episodes do not matter.
        ({"schedule": "linear", "end": 0.1, "fraction": 0.5},
         [(0, 0, 1.0), (0.1, 9, 0.82), (0.25, 0, 0.55), (0.5, 0, 0.1), (0.75, 0, 0.1), (1, 0, 0.1)]),
        # half an episode, not below 0.1: 1, 1/2, 1/4, 1/8, then 0.1. Progress does not matter.
        ({"schedule": "exponential", "end": 0.1, "factor": 0.5},
         [(0, 0, 1.0), (0.9, 1, 0.5), (0, 2, 0.25), (0, 3, 0.125), (0, 4, 0.1), (1, 1000, 0.1)]),
        ({"schedule": "constant"}, [(0, 0, 1.0), (1, 50, 1.0)]),
        ({"schedule": "linear", "end": 0.1, "fraction": 0.0}, [(0, 0, 0.1)]),
    ],
)  # fmt: skip
def test_schedules_point_by_point(schedule: dict[str, Any], points: list[tuple[float, float, float]]) -> None:
    """Guards an epsilon stuck at its end value from the start (LeanRL), or one that never moves."""
    explorer = epsilon_greedy(1.0, **schedule)
    assert explorer.epsilon == 1.0
    for progress, episodes, expected in points:
        explorer.advance(progress, episodes)
        assert explorer.epsilon == pytest.approx(expected)


def test_the_schedule_reaches_the_actions() -> None:
    """Guards an epsilon that is logged but not used: at 1 a share (A - 1) / A is not the best, at 0 none.

    4096 draws; 6 standard deviations (0.031): chance 2e-9.
    """
    explorer = epsilon_greedy(1.0, schedule="linear", end=0.0, fraction=0.5)
    q_XA = RISING.expand(4096, A)
    for progress, expected in ((0.0, 7 / 8), (0.25, 7 / 16), (0.5, 0.0)):
        explorer.advance(progress, 0)
        strayed = float((explorer(q_XA, None) != A - 1).float().mean())
        assert abs(strayed - expected) <= 6 * math.sqrt(expected * (1 - expected) / 4096)


@pytest.mark.fault("one draw decides exploration for a whole batch of environments")
@pytest.mark.parametrize("name", sorted(EXPLORERS.keys() - {"greedy"}))
@pytest.mark.parametrize("shape", [(96,), (6, 16), (96, 1)])
def test_every_place_draws_for_itself(name: str, shape: tuple[int, ...]) -> None:
    """Guards one coin for a whole batch of environments (SB3), or for all times of a row.

    All 96 places have the same Q, and no action has a probability above 0.6. That all places (of copies only the first
    counts: 32) do the same has a chance below 0.6^31 = 2e-7 for each of 20 calls.
    """
    explorer = EXPLORERS[name]()
    q_XA = RISING.expand(*shape, A) / 2
    for _ in range(20):
        action_X = explorer(q_XA, None, q_XA.log_softmax(-1))
        assert action_X.shape == shape
        assert len(set(action_X[:: explorer.copies].flatten().tolist())) > 1


@pytest.mark.parametrize("name", sorted(EXPLORERS))
def test_random_numbers_are_of_its_own_stream(name: str) -> None:
    """Guards draws from torch's global generator, which whatever else draws from it (an evaluation, dropout) then moves."""
    q_XA, found = RISING.expand(66, A) / 2, []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(EXPLORERS[name]()(q_XA, None, q_XA.log_softmax(-1)))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", sorted(EXPLORERS))
@pytest.mark.parametrize("mask", ["A", "EA", "ETA"])
def test_illegal_actions_are_never_chosen(name: str, mask: str) -> None:
    """Guards a random action, or an argmax, over everything: the best and most of the others are illegal."""
    E, T = 6, 200
    shape = {"A": (A,), "EA": (E, 1, A), "ETA": (E, T, A)}[mask]
    legal = torch.rand(shape, generator=generator(1)) < 0.5
    legal[..., 7] = False
    legal[..., :3] = True  # as many as there are copies
    if mask == "ETA":  # copies have the same observations, so the same legal actions
        legal = legal[::3].repeat_interleave(3, 0)
    elif mask == "EA":
        legal[:] = legal[:1]
    q_XA = RISING.expand(E, T, A)
    for _ in range(5):
        action_X = EXPLORERS[name]()(q_XA, legal, q_XA.log_softmax(-1))
        assert legal.expand(E, T, A).gather(-1, action_X[..., None]).all()


def shares(action_X: Tensor) -> Tensor:
    return torch.bincount(action_X.flatten(), minlength=A) / action_X.numel()


def assert_shares(action_X: Tensor, expected_A: Tensor) -> None:
    """Within 6 standard deviations, and exact zeros: chance below 2e-8 for 8 actions."""
    found_A = shares(action_X)
    assert (found_A[expected_A == 0] == 0).all()
    deviation_A = (expected_A * (1 - expected_A) / action_X.numel()).sqrt()
    assert ((found_A - expected_A).abs() <= 6 * deviation_A + 1e-6).all(), (found_A, expected_A)


def test_frequencies_of_epsilon_greedy() -> None:
    """Guards random actions that exclude the best one, and top_k that takes the worst. Epsilon 0.4, by hand."""
    q_XA = RISING.expand(20000, A)
    everything = torch.full((A,), 0.4 / 8)
    everything[-1] += 0.6
    assert_shares(epsilon_greedy(0.4)(q_XA, None), everything)
    assert_shares(epsilon_greedy(0.4, top_k=2)(q_XA, None), torch.tensor([0, 0, 0, 0, 0, 0, 0.2, 0.8]))
    legal = torch.tensor([True, True, False, True, False, False, False, False])
    assert_shares(epsilon_greedy(0.3, top_k=4)(q_XA, legal), torch.tensor([0.1, 0.1, 0, 0.8, 0, 0, 0, 0]))
    assert_shares(epsilon_greedy(0.0)(q_XA, None), torch.eye(A)[-1])


def test_frequencies_of_boltzmann() -> None:
    """Guards a temperature that multiplies, and shares applied in another order: random last, greedy before it."""
    explorer = Boltzmann(generator(), 1, temperature=2.0, greedy=0.25, random=0.2)
    mixture = 0.75 * (RISING / 2).softmax(-1)
    mixture[-1] += 0.25
    assert_shares(explorer(RISING.expand(20000, A), None), 0.8 * mixture + 0.2 / A)
    cold = Boltzmann(generator(), 1, temperature=1e-3, greedy=0.0, random=0.0)
    assert_shares(cold(RISING.expand(1000, A), None), torch.eye(A)[-1])


def test_frequencies_of_probability_matching() -> None:
    """Guards sharpness the wrong way round, and probabilities that are not normalised over the legal actions."""
    probability = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0])
    log_XA = probability.log().expand(20000, A)
    for sharpness in (1.0, 2.0):
        explorer = ProbabilityMatching(generator(), 1, greedy=0.0, random=0.0, sharpness=sharpness)
        powered = probability**sharpness
        assert_shares(explorer(log_XA.exp(), None, log_XA), powered / powered.sum())
        legal = torch.arange(A) < 2
        powered = powered * legal
        assert_shares(explorer(log_XA.exp(), legal, log_XA), powered / powered.sum())
    explorer = ProbabilityMatching(generator(), 1, greedy=0.5, random=0.0, sharpness=1.0)
    assert_shares(explorer(log_XA.exp(), None, log_XA), 0.5 * probability + 0.5 * torch.eye(A)[3])


def test_copies_try_different_actions() -> None:
    """Guards copies that repeat each other, and a draw that is not successive sampling without replacement.

    The first copy draws from p; the second from p without the first's action: P(second = b) = sum_a p_a p_b / (1 - p_a).
    """
    copies, groups = 3, 20000
    probability = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.2, 0.1, 0.1, 0.1])
    log_XA = probability.log().expand(groups * copies, A)
    explorer = ProbabilityMatching(generator(), copies, greedy=0.0, random=0.0, sharpness=1.0)
    action_GK = explorer(log_XA.exp(), None, log_XA).view(groups, copies)
    assert all(len(set(row)) == copies for row in action_GK.tolist())
    assert_shares(action_GK[:, 0], probability)
    pair_AB = probability[:, None] * probability[None] / (1 - probability[:, None])
    assert_shares(action_GK[:, 1], pair_AB.fill_diagonal_(0).sum(0))


def test_greedy_is_for_the_first_copy_and_copies_lie_side_by_side() -> None:
    """Guards all copies taking the argmax, and the answers of one text handed to another's rows."""
    copies, groups, T = 4, 6, 50
    explorer = ProbabilityMatching(generator(), copies, greedy=1.0, random=0.0, sharpness=1.0)
    best_GT = torch.randint(A, (groups, T), generator=generator(2))
    log_XTA = torch.nn.functional.one_hot(best_GT, A).float().log_softmax(-1).repeat_interleave(copies, 0)
    action_GKT = explorer(log_XTA.exp(), None, log_XTA).view(groups, copies, T)
    assert torch.equal(action_GKT[:, 0], best_GT)
    assert all(len(set(action_GKT[g, :, t].tolist())) == copies for g in range(groups) for t in range(T))


def test_sample_categorical_with_extreme_logits() -> None:
    """Guards 0 / 0 in the race: an impossible action is never drawn, a certain one always."""
    logit_XA = torch.full((5000, A), -math.inf)
    logit_XA[:, 3] = -1e4
    assert sample_categorical(logit_XA, generator()).eq(3).all()


def test_greedy_needs_no_random_numbers_and_ties_are_legal() -> None:
    state = generator().get_state()
    explorer = Greedy(generator())
    assert explorer(torch.zeros(5, A), torch.arange(A) == 4).eq(4).all()
    assert torch.equal(explorer.generator.get_state(), state)
    assert not Reference(generator()).needs_q


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: epsilon_greedy(1.5), "exploration.start must lie between 0 and 1"),
        (lambda: epsilon_greedy(schedule="linear", end=-1.0, fraction=0.5), "exploration.end must lie between 0 and 1"),
        (lambda: epsilon_greedy(schedule="linear", end=0.1), "needs exploration.fraction"),
        (lambda: epsilon_greedy(end=0.1), "does not use exploration.end"),
        (lambda: epsilon_greedy(schedule="exponential", end=0.1, factor=0.9, fraction=0.5), "does not use exploration.fraction"),
        (lambda: epsilon_greedy(top_k=0), "exploration.top_k must be at least 1"),
        (lambda: Boltzmann(generator(), 1, temperature=0.0, greedy=0.0, random=0.0), "exploration=greedy"),
        (lambda: Boltzmann(generator(), 1, temperature=1.0, greedy=1.1, random=0.0), "exploration.greedy"),
        (lambda: ProbabilityMatching(generator(), 1, greedy=0.0, random=-0.1, sharpness=1.0), "exploration.random"),
        (lambda: ProbabilityMatching(generator(), 1, greedy=0.0, random=0.0, sharpness=0.0), "exploration.sharpness"),
    ],
)
def test_user_errors(make: Callable[[], Exploration], words: str) -> None:
    """Guards settings that are silently ignored or make no sense, and messages that do not name the key."""
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        make()


@pytest.mark.fault("the same random numbers at every replay")
def test_random_numbers_are_new_at_every_call() -> None:
    """Bug: draws frozen into a captured or compiled function. 200 random actions of 8 are equal by chance with 8^-200."""
    explorer = EpsilonGreedy(
        torch.Generator().manual_seed(0),
        1,
        schedule="constant",
        start=1.0,
        end=None,
        fraction=None,
        factor=None,
        top_k=None,
    )
    q_XA = torch.zeros(200, 8)
    assert not explorer(q_XA, None).equal(explorer(q_XA, None))
    network = nn.Sequential(NoisyLinear(4, 4, 0.5, True))
    set_noise(network, True)
    x = torch.ones(1, 4)
    outputs = []
    for _ in range(2):
        resample_noise(network)
        outputs.append(network(x))
    assert not outputs[0].equal(outputs[1])
