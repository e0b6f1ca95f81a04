"""Figures of a text do not depend on how many of its Q-values are held at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm.agent.policy import Policy
from dqnlm.builder import launch
from dqnlm.evaluation import positions, text_positions
from dqnlm.evaluation.positions import CachedLogits
from dqnlm.evaluation.text import score_text
from dqnlm.evaluation.text_positions import TextPositions
from dqnlm.runs.directory import RunDirectory
from tests.helpers import runs as tools

PROBABILITY = ["gamma=0", "policy.kind=probability"]


def policy_and_text(folder: Path, *overrides: str) -> tuple[Policy, torch.Tensor]:
    """A fresh network with outputs of some size, and a held-out text with some characters that it does not know."""
    text = tools.write_text(folder / "text.txt", 5000)
    trainer = launch.build(tools.settings(tools.tiny(text, *overrides))[0], RunDirectory(folder))
    policy: Any = trainer.components.policy
    with torch.no_grad():
        for parameter in policy.network.projections["q"].parameters():
            parameter.mul_(20)
    policy.network.eval()
    ids = trainer.components.task.data.validation_ids.clone()
    if policy.tokenizer.unknown_id is not None:
        ids[7::31] = policy.tokenizer.unknown_id
    return policy, ids


@pytest.mark.parametrize(
    "overrides",
    [[], PROBABILITY, ["network=window_mlp", "env.allowed=' etanh'"]],
    ids=["usual", "probability", "window"],
)
@torch.no_grad()
def test_figures_are_the_same_in_small_blocks(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a block left out or read twice, means of means, another temperature, or all of Q in memory after all."""
    policy, ids = policy_and_text(tmp_path, *overrides)
    held = score_text(policy, ids)
    assert 0 < held["eval/unscored_share"] < 0.9
    seen: list[int] = []
    read = policy.q
    monkeypatch.setattr(policy, "q", lambda output: (seen.append(output["q"].numel()), read(output))[1])
    monkeypatch.setattr(text_positions, "HELD_NUMBERS", 100)
    monkeypatch.setattr(positions, "BLOCK_NUMBERS", 700)
    assert score_text(policy, ids) == pytest.approx(held, rel=2e-4)
    assert len(seen) > 20 and max(seen) <= 700


@torch.no_grad()
def test_positions_are_those_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: Q of another position, or a part with other targets than it should have."""
    policy, ids = policy_and_text(tmp_path)
    monkeypatch.setattr(positions, "BLOCK_NUMBERS", 700)
    text = TextPositions(policy, ids, policy.q)
    all_of = text.held()
    assert torch.equal(all_of.target_N, ids[1:].long()) and len(text) == len(ids) - 1
    window = policy.q(policy.network(ids[: policy.network.context].long()[None]))[0]
    torch.testing.assert_close(all_of.q_NA[: len(window)], window)
    for part, expected in ((text.every(7), all_of.every(7)), (text.halves()[1], all_of.halves()[1])):
        torch.testing.assert_close(part.held().q_NA, expected.q_NA)
        assert torch.equal(part.target_N, expected.target_N)
    sizes = [len(target_M) for _, target_M in CachedLogits(all_of.q_NA, all_of.target_N).blocks()]
    assert sum(sizes) == len(text) and max(sizes) * all_of.num_actions <= 700
