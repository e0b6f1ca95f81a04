"""Figures of completions to held-out prompts: sampled from the policy as it is used, beside greedy ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.evaluation.completions import CompletionEvaluator
from dqnlm.runs.directory import RunDirectory
from dqnlm.utils import user_code

SCORE = """
def score(prompts, completions, **columns):
    return [text.count("a") + 0.1 * text.count("b") for text in completions]
"""
TYPED = [
    "+experiment=prompts", "device=cpu", "threads=1", "logger=none", "progress=false", "env.horizon=5", "env.num_envs=8",
    "env.samples_per_prompt=2", "trainer.batch_size=8", "evaluation.episodes=9", "evaluation.samples=1",
    "network=transformer", "projection=linear", "~network.lora_rank", "~network.q_init", "~network.q_temperature",
    "network.dropout=0.0", "network.layers=1", "network.width=16", "network.heads=2", "network.context=16",
    "policy.kind=boltzmann", "policy.temperature=1.0",
]  # fmt: skip


def test_sampled_and_greedy_figures(tmp_path: Path) -> None:
    """Bug: another temperature than the policy's, a greedy figure that is sampled, new random numbers each time.

    Near temperature 0 a sample is the greedy completion; the greedy figure is the same at any temperature. Prompts have six
    tokens and completions at most five, so a length that counts the prompt is above 5.
    """
    (tmp_path / "score.py").write_text(SCORE)
    user_code._run.cache_clear()
    rows = [{"prompt": f"abcd{a}{b}"} for a in "abcd" for b in "abcd"]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = tmp_path / "score.py"
    typed = [
        *TYPED, f"data.path={tmp_path / 'prompts.jsonl'}", f"reward.path={own}:score", f"+allow_targets=[{own}]",
        "data.heldout_fraction=0.6", "data.test_fraction=0.0",
    ]  # fmt: skip
    composed, choices = composition.compose(typed)
    components = launch.build(validation.validate(composed, choices, typed), RunDirectory(tmp_path), choices=choices).components
    evaluator, policy = components.evaluator, components.policy
    assert isinstance(evaluator, CompletionEvaluator)
    found = {}
    for temperature in (1e-6, 1e3):
        policy.temperature = temperature
        found[temperature] = evaluator.evaluate(policy).metrics
        assert evaluator.evaluate(policy).metrics == found[temperature]
    cold, hot = found[1e-6], found[1e3]
    assert cold["eval/return"] == pytest.approx(cold["eval/return_greedy"])
    assert cold["eval/return_greedy"] == hot["eval/return_greedy"]
    assert hot["eval/return"] != cold["eval/return"] and hot["eval/return_least"] <= hot["eval/return"]
    assert 0 < hot["eval/length"] <= 5 and 0 < hot["eval/distinct_2"] <= 1
