"""Diagnostics by hand, and warnings that come when they should and only then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqnlm.agent.learner import LastUpdate
from dqnlm.heads.base import Head
from dqnlm.heads.scalar import Scalar
from dqnlm.objectives.base import Requirements
from dqnlm.training.diagnostics import diagnostics, warnings
from dqnlm.types import Bounds
from dqnlm.utils.ranks import ALONE
from tests.helpers.batches import decisions, make_batch
from tests.helpers.learners import HEADS

UNBOUNDED = Bounds(float("-inf"), float("inf"))


def parts(legal: Any = None, **target: Any) -> Any:
    """Two decisions with Q 1 3 6 and 9 2 5; actions 1 and 2, targets 4 and 4, rewards 2 and 4."""
    raw = torch.tensor([[[1.0, 3.0, 6.0], [9.0, 2.0, 5.0]]])[..., None]
    batch = decisions(make_batch([[1, 2]], [[2.0, 4.0]]), legal)
    last = LastUpdate({"q": raw}, torch.tensor([[1.0, -1.0]]), batch)
    settings: dict[str, Any] = {"copies": True, "polyak_rate": None, "period": 50} | target
    return SimpleNamespace(
        ranks=ALONE,
        learner=SimpleNamespace(last_update=last, requires=Requirements(target=True), updates=30, transitions=torch.tensor(600),
                                target=SimpleNamespace(**settings)),
        buffer=SimpleNamespace(transitions=lambda: torch.tensor(40), terminal_share=lambda: torch.tensor(0.25)),
        env_steps=300,
        policy=SimpleNamespace(head=HEADS["squared"]()),
    )  # fmt: skip


def test_figures_by_hand() -> None:
    """Bug: the gap of raw numbers, of all actions or of the action taken; ratios upside down."""
    found = diagnostics(parts())
    expected = {
        "buffer/transitions": 40, "buffer/terminal_share": 0.25, "target/effective_period": 50,
        "time/updates_per_decision": 0.1, "time/replay_ratio": 2.0, "q/largest": 9.0, "q/action_gap": (3 + 4) / 2,
        "reward/deviation": 1.0, "reward/mean": 3.0, "td/error_p50": 1.0, "td/error_p90": 1.0, "td/error_p99": 1.0,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    masked = diagnostics(parts(torch.tensor([True, True, False]), period=None, polyak_rate=0.02))
    assert masked["q/action_gap"] == (2 + 7) / 2 and masked["target/effective_period"] == pytest.approx(50)
    assert "q/action_gap" not in diagnostics(parts(torch.tensor([True, False, False]))), "one legal action has no rival"


@pytest.mark.parametrize(
    ("figures", "head", "keys"),
    [
        ({"q/largest": 15.0}, HEADS["squared"](), set()),  # bounds 0 to 2
        ({"q/largest": 25.0}, HEADS["squared"](), {"runaway"}),
        (
            {"q/largest": 25.0, "rollout/return": 20.0},
            Scalar(UNBOUNDED, False, loss="huber", initial_return=None),
            set(),
        ),
        (
            {"q/largest": 900.0, "rollout/return": 20.0},
            Scalar(UNBOUNDED, False, loss="huber", initial_return=None),
            {"runaway"},
        ),
        (
            {"q/largest": 1e9},
            Scalar(UNBOUNDED, False, loss="huber", initial_return=None),
            set(),
        ),  # nothing to compare with
        ({"reward/deviation": 0.0, "reward/mean": 0.0, "buffer/terminal_share": 0.1}, HEADS["squared"](), {"reward"}),
        (
            {"reward/deviation": 0.0, "reward/mean": 1.0, "buffer/terminal_share": 0.1},
            HEADS["squared"](),
            set(),
        ),  # CartPole
        ({"reward/deviation": 0.0, "reward/mean": 1.0, "buffer/terminal_share": 0.0}, HEADS["squared"](), {"reward"}),
        ({"reward/deviation": 0.4, "reward/mean": 0.0}, HEADS["squared"](), set()),
    ],
)
def test_warnings(figures: dict[str, float], head: Head, keys: set[str]) -> None:
    """Bug: a warning that never comes, or one at CartPole, whose rewards are all 1 and whose lengths teach."""
    assert set(warnings(figures, head)) == keys
