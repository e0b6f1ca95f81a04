"""Faults seen in other libraries, each with the test that would find it here; those that had no place yet are below.

The table is checked: a fault whose test is renamed or dropped fails.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from learner_tools import GAMMA, HEADS, assert_close, differ, gradient, make_learner, make_td, random_batch
from torch import nn

from dqnlm.exploration import EpsilonGreedy
from dqnlm.networks.noisy import NoisyLinear, resample_noise, set_noise

# fault -> (test file, test)
WHERE: dict[str, tuple[str, str]] = {
    "one draw decides exploration for a whole batch of environments": ("exploration", "every_place_draws_for_itself"),
    "an epsilon schedule stuck at its end value": ("exploration", "schedules_point_by_point"),
    "the last n - 1 states of an episode never learned under n-step": ("ops_returns", "n_step_against_a_loop"),
    "n-step returns running across a truncation": ("ops_returns", "rows_end_stops_a_return"),
    "prioritised weights ignored where the loss is Huber": ("faults_of_peers", "importance_weights_count_whatever_the_loss"),
    "a restored target network overwritten at the first update": (
        "target_and_optimizer", "restored_target_is_not_overwritten_by_the_first_update",
    ),
    "squared error as priority": ("buffer_prioritized", "priorities_are_absolute_errors_not_squares"),
    "the same random numbers at every replay": ("faults_of_peers", "random_numbers_are_new_at_every_call"),
    "a random stream that starts again on load": ("resume", "killed_or_stopped_and_resumed_equals_never_stopped"),
    "counter, epsilon, buffer or random state lost on resume": ("resume", "the_comparison_sees_every_part"),
    "the reset row of a vector environment stored as a transition": (
        "gymnasium", "the_reset_observation_never_follows_an_action",
    ),
    "truncation treated as termination": ("gymnasium", "truncation_is_no_termination"),
    "seed 0 taken for no seed": ("trainer", "seeds"),
    "masked actions left in the bootstrap": ("ops", "illegal_actions_never_enter_the_bootstrap"),
    "settings that nothing reads": ("configs", "every_setting_is_read"),
    "YAML missing from the built wheel": ("packaging", "wheel_holds_every_yaml_and_every_module"),
    "an ignore file that hides configs/env": ("packaging", "git_ignores_no_file_of_the_project"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WHERE)
def test_each_fault_has_its_test(fault: str) -> None:
    """Bug: a known fault that nothing looks for any more."""
    file, name = WHERE[fault]
    tree = ast.parse((Path(__file__).parent / f"test_{file}.py").read_text())
    assert f"test_{name}" in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("head", sorted(HEADS))
def test_importance_weights_count_whatever_the_loss(head: str) -> None:
    """Bug: prioritised weights multiplied into the squared loss alone. Weight 0 leaves a row out, whatever the loss."""
    batch, light = random_batch(), random_batch()
    light.weight_B = torch.tensor([1.0, 0.0, 1.0, 1.0])
    other = random_batch()
    other.weight_B = light.weight_B
    other.reward_BT[1] += 7.0  # the row without weight
    one, two, full = (gradient(make_learner(make_td(head)), b) for b in (light, other, batch))
    assert_close(one, two)
    assert differ(one, full)
    assert GAMMA > 0


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
