"""Several rewards of a log: how columns are read, scaled and stored, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm.buffers.uniform import UniformBuffer
from dqnlm.data.tokenizers.base import CharacterTokenizer
from dqnlm.data.trajectories.records import Trajectory
from dqnlm.data.trajectories.rows import padded, token_rows
from dqnlm.envs.logged import Logged
from dqnlm.errors import UserError
from dqnlm.tasks.log import shape_of
from dqnlm.types import DECISION, TERMINATED, Rows
from tests.data.test_logs import CPU, read, write
from tests.helpers import buffers as tools

NAMES = ["reward_a", "reward_b"]


def rows(count: int = 20) -> list[dict[str, Any]]:
    return [
        {"prompt": f"p{i % 5}", "completion": "xy", "reward_a": i % 3, "reward_b": -2.0 * (i % 2), "other": "z"}
        for i in range(count)
    ]


def both(items: list[Trajectory]) -> list[tuple[float, float]]:
    return [(item.rewards[-1], item.more[0][-1]) for item in items]


def test_every_column_is_read(tmp_path: Path) -> None:
    """Bug: a column in another's place; rewards that differ between JSONL and CSV, where all is text."""
    log = read(write(tmp_path / "log.jsonl", rows()), rewards=NAMES)
    expected = sorted((float(row["reward_a"]), row["reward_b"]) for row in rows())
    assert sorted(both(log.train.items + log.heldout.items)) == expected and log.reward_names == tuple(NAMES)
    assert all(item.rewards[0] == 0 and len(item.more) == 1 for item in log.train.items)
    assert "20 rows are read as completions" in log.source.notes  # counted once, not once a reward
    with (tmp_path / "log.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows()[0]))
        writer.writeheader()
        writer.writerows(rows())
    again = read(tmp_path / "log.csv", rewards=NAMES)
    assert [item.more for item in again.train.items] == [item.more for item in log.train.items]


def test_the_rows_own_reward_is_not_read_beside_columns(tmp_path: Path) -> None:
    """Bug: `score`, `label` or `rewards` of the row is learned in the place of a named column."""
    lines = [row | {"score": 99, "label": True, "rewards": [7, 7]} for row in rows()]
    log = read(write(tmp_path / "log.jsonl", lines), rewards=NAMES)
    assert sorted(both(log.train.items + log.heldout.items)) == sorted((float(r["reward_a"]), r["reward_b"]) for r in rows())


def test_a_weighted_sum_is_one_reward(tmp_path: Path) -> None:
    """2 a + b / 2. Bug: weights of the wrong column; a run that still has several rewards."""
    log = read(write(tmp_path / "log.jsonl", rows()), reward_weights={"reward_b": 0.5, "reward_a": 2.0}, keep_best=0.5)
    assert not log.reward_names and not log.train.items[0].more
    expected = sorted(2.0 * row["reward_a"] + 0.5 * row["reward_b"] for row in rows())
    kept = [item.rewards[-1] for item in log.train.items]
    assert set(kept) <= set(expected) and min(kept) >= 1.0


def test_each_reward_is_scaled_by_itself(tmp_path: Path) -> None:
    """Bug: one deviation for both, or held-out rows by their own."""
    log = read(write(tmp_path / "log.jsonl", rows(60)), rewards=NAMES, reward_scaling="standardise")
    table = torch.tensor(both(log.train.items), dtype=torch.float64)
    torch.testing.assert_close(table.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(table.std(0, correction=0), torch.ones(2, dtype=torch.float64))
    assert sum("Rewards were scaled" in note for note in log.source.notes) == 2
    lines = [row | {"reward_b": 1.0} for row in rows()]
    with pytest.raises(UserError, match=r"^reward_b: data.reward_scaling=standardise cannot be done"):
        read(write(tmp_path / "same.jsonl", lines), rewards=NAMES, reward_scaling="standardise")


def test_rows_and_bounds_by_hand() -> None:
    """`a` -> `bc` for 1 and -3, the end 9 paid. Bug: the second reward at another time, bounds of the first reward alone."""
    item = Trajectory("a", "bc", (0.0, 1.0), more=((0.0, -3.0),))
    [row] = token_rows([item], CharacterTokenizer("abc"), 9)
    assert row.reward_T.tolist() == [[0, 0], [0, 0], [1, -3]] and row.of_reward(1).reward_T.tolist() == [0, 0, -3]
    block = padded([row], 4, torch.int64, CPU)
    assert block.reward_BT.tolist() == [[[0, 0], [0, 0], [1, -3], [0, 0]]]


def test_the_environment_of_such_a_log(tmp_path: Path) -> None:
    """Bug: returns of the second reward lie outside the bounds of the first, and are clamped without a word."""
    log = read(write(tmp_path / "log.jsonl", rows()), rewards=NAMES)
    env = Logged(shape_of(log), log.tokenizer.vocabulary_size, None, CPU, horizon=None)
    assert tuple(env.return_bounds(1.0)) == (-2.0, 2.0) and env.spec.reward_names == tuple(NAMES)


def test_fingerprints_tell_rewards_apart(tmp_path: Path) -> None:
    """Bug: a run resumes on a log whose second reward has changed."""
    log = read(write(tmp_path / "log.jsonl", rows()), rewards=NAMES)
    other = [row | ({"reward_b": 5.0} if i == 3 else {}) for i, row in enumerate(rows())]
    assert log.fingerprint() != read(write(tmp_path / "other.jsonl", other), rewards=NAMES).fingerprint()
    assert log.fingerprint() == read(tmp_path / "log.jsonl", rewards=NAMES).fingerprint()


@pytest.mark.parametrize("mode", ["rows", "transitions"])
def test_the_buffer_gives_every_reward_back(mode: str) -> None:
    """Bug: a window that mixes rewards, leaves one out, or shows what lies outside of it."""
    T = tools.T
    ring = UniformBuffer(_setup(), capacity=None, sample=mode, place="device")  # type: ignore[arg-type]
    reward_BT = torch.arange(4 * T * 2, dtype=torch.float32).view(4, T, 2)
    flag_BT = torch.full((4, T), DECISION, dtype=torch.uint8)
    flag_BT[:, -1] |= TERMINATED
    ring.add(Rows(torch.zeros(4, T + 1, dtype=torch.int64), torch.zeros(4, T, dtype=torch.int64), reward_BT, flag_BT,
                  torch.full((4,), T)))  # fmt: skip
    for _ in range(5):
        batch = ring.sample(6)
        assert batch.reward_BT.shape[-1] == 2
        row_B = batch.index_B if mode == "rows" else batch.index_B // T
        begin_B = torch.zeros_like(row_B) if mode == "rows" else batch.index_B % T
        for b in range(6):
            paid = batch.reward_BT[b][batch.mask_BT[b] > 0]
            assert paid.tolist() == reward_BT[row_B[b], begin_B[b] :].tolist()
            assert not batch.reward_BT[b][batch.mask_BT[b] == 0].any()
    state = {name: value.clone() for name, value in ring.state_dict().items()}
    ring.clear()
    ring.load_state_dict(state)
    assert ring.storage.reward_CT[:4].equal(reward_BT)


def _setup() -> Any:
    from dqnlm.buffers.base import Setup
    from dqnlm.types import TaskSpec

    spec = TaskSpec(num_actions=5, num_tokens=5, row_transitions=tools.T, episode_steps=tools.T, reward_names=("a", "b"))
    return Setup(spec, 0.9, tools.T, None, 4, CPU, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": ["reward_a", "rewardb"]}, r"line 1 has no rewardb \(data.rewards\); .*\n  did you mean reward_b\?"),
        ({"reward_weights": {"reward_c": 1.0}}, r"line 1 has no reward_c \(data.reward_weights\)"),
        ({"rewards": NAMES, "reward_weights": {"reward_a": 1.0}}, "set one of them to null"),
        ({"rewards": []}, r"names no column"),
        ({"rewards": ["reward_a", "a"]}, "would both be called q_a"),
        ({"rewards": ["reward_a", "reward_a"]}, "would both be called q_a"),
        ({"reward_weights": {"reward_a": 0.0}}, "not all 0"),
        ({"reward_weights": {"reward_a": float("nan")}}, "reward_a has nan"),
        ({"rewards": NAMES, "keep_best": 0.1}, r"data.reward_weights=\{reward_a: 1, reward_b: 1\}"),
        ({"rewards": ["reward_a", "other"]}, r"other: reward is 'z', which is no number"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "log.jsonl", rows()), **settings)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"turns": [{"text": "a", "agent": False}, {"text": "b", "agent": True, "reward": 1}]}, "turns"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "chosen"),
    ],
)
def test_rewards_that_stand_elsewhere_are_refused(tmp_path: Path, row: dict[str, Any], field: str) -> None:
    """Bug: pairs of a preference all get the columns' reward, the rejected answer too."""
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row | {"reward_a": 1}) + "\n" for _ in range(4)))
    with pytest.raises(UserError, match=f"has {field}, whose rewards do not stand in columns"):
        read(tmp_path / "log.jsonl", rewards=["reward_a"])
