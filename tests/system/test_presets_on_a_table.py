"""The presets themselves, through the whole training loop, on a small random problem whose Q* value iteration knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.envs.tabular import Tabular
from dqnlm.problems.tabular import value_iteration
from dqnlm.runs.directory import RunDirectory

GAMMA = 0.8
# Rows of one transition, so that n-step and lambda returns are one step and share the fixed point Q*; behaviour is uniform.
TYPED = [
    "+experiment=debug/smoke", "max_rounds=null", "env=tabular", "data=none", "network=table", "device=cpu", "threads=1",
    "logger=none",
    "env.states=5", "env.actions=3", "env.branching=1", "env.horizon=1", "env.terminal_probability=0.1", "env.num_envs=60",
    "trainer.rollouts=700", "trainer.rollout_steps=1", "trainer.updates_per_rollout=2", "trainer.batch_size=60",
    "trainer.log_every=1000", "progress=false", f"gamma={GAMMA}", "learner.gradient_clip=null",
    "buffer.capacity=600", "exploration=epsilon_greedy", "exploration.schedule=constant", "exploration.start=1.0",
    "exploration.end=null", "exploration.fraction=null", "optimizer=adam", "optimizer.lr=0.1", "optimizer.schedule=cosine",
    "optimizer.final_fraction=0.01",
]  # fmt: skip
SCALAR = ["head.loss=huber"]
WIDE = ["head.low=-5", "head.high=5"]
PRESETS: dict[str, tuple[list[str], float]] = {  # further settings, and the tolerance
    "dqn": (SCALAR, 0.05),
    "double_dqn": (SCALAR, 0.05),
    "dueling_dqn": (SCALAR, 0.05),
    "n_step_dqn": (SCALAR, 0.05),
    "q_lambda": (SCALAR, 0.05),
    "prioritized_dqn": (SCALAR, 0.05),
    "pqn": (SCALAR, 0.05),
    "noisy_dqn": ([*SCALAR, "projection.sigma=0.1"], 0.15),
    "c51": (WIDE, 0.15),
    "qr_dqn": (["head.num_quantiles=8"], 0.15),
    "iqn": (["head.num_quantiles=8", "head.embedding=8"], 0.25),
    "rainbow": ([*WIDE, "projection.sigma=0.1"], 0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", PRESETS)
def test_presets_find_the_optimal_values(tmp_path: Path, algorithm: str) -> None:
    """Bug: actor, buffer, flags, discounts, preset or target that together lead elsewhere than to Q*, each part being right.

    The problem is deterministic, so Q* is the mean (and the only value) of the return distributions too.
    """
    further, tolerance = PRESETS[algorithm]
    fast = [] if algorithm == "pqn" else ["target.polyak_rate=0.1"]
    typed = [*TYPED, f"algorithm={algorithm}", *fast, *further]
    composed, choices = composition.compose(typed)
    trainer = launch.build(validation.validate(composed, choices, typed), RunDirectory(tmp_path))
    while trainer.rounds_done < trainer.total_rounds:
        trainer.train_round(trainer.phase)
    env, policy = trainer.components.actor.env, trainer.components.policy
    assert isinstance(env, Tabular)
    answer_SA = value_iteration(env.transition_SAS, env.reward_SA, env.terminal_SAS, GAMMA).float()
    policy.network.eval()
    with torch.no_grad():
        found_SA = policy.head.value(policy.network(torch.arange(5)[:, None])["q"])[:, 0]
    assert float(answer_SA.std()) > 0.2, "a problem that tells answers apart"
    torch.testing.assert_close(found_SA, answer_SA, atol=tolerance, rtol=0)
