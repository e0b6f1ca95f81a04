"""`dqnlm bench` times what it says, on both sides; its numbers are checked for form here, never for speed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from dqnlm import cli
from dqnlm.benchmarks import acting, replay, scaling, timing, update, utilisation
from dqnlm.benchmarks.runs import SMALL, TEXT, built

CPU = torch.device("cpu")


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    """Bug: a ratio of medians, which a pause of the machine in one side's rounds moves; sides swapped."""
    row = timing.compared("a", "b", {"first": [1.0, 9.0, 4.0], "second": [2.0, 3.0, 1.0]})
    assert row.ratio == 3.0 and (row.first, row.second) == (4000.0, 2000.0)


def test_both_sides_run_in_each_round_after_a_warm_up() -> None:
    """Bug: one side is timed after the other, or the first, slow rounds count."""
    order: list[str] = []
    times = timing.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * (3 + timing.WARM_UP) and [len(t) for t in times.values()] == [3, 3]


def test_the_supervised_side_learns_and_reads_the_same_rows() -> None:
    """Bug: the other side of the update is no training step, so that the ratio says nothing."""
    settings = (*TEXT, SMALL, "device=cpu", "trainer.batch_size=16")
    with built(*settings, "gamma=0.5") as ours, built(*settings, "algorithm=behaviour_cloning") as twin:
        ours.train_round(ours.phase)
        before = [p.detach().clone() for p in twin.components.policy.network.parameters()]
        update._supervised(ours, twin)()
        after = list(twin.components.policy.network.parameters())
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        count = ours.components.learner.updates
        update._update(ours)()
        assert ours.components.learner.updates == count + 1


def test_the_rings_hold_what_they_are_said_to_hold() -> None:
    """Bug: a draw is timed from a ring that is nearly empty."""
    for _, mode, length, prioritised in replay.KINDS:
        ring = replay._filled(6400, mode, length, prioritised, CPU)
        assert int(ring.transitions()) == 6400 and ring.sample(64).mask_BT.shape[0] == 64
    rows = list(replay.rows(1, "cpu", sizes=(640, 6400)))
    assert [row.ratio is not None and row.ratio >= 1 for row in rows] == [True] * 4


def test_both_ways_of_acting_write_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the quick side does less than the slow one."""
    seen = []
    with built(*TEXT, SMALL, "device=cpu") as ours:
        network = ours.components.policy.network.eval()
        cached = torch.stack(acting._cached(network, 2, CPU)(), 1)  # type: ignore[arg-type]
        monkeypatch.setattr(torch, "cat", lambda parts, dim, cat=torch.cat: seen.append(cat(parts, dim)) or seen[-1])
        acting._anew(network, 2, CPU)()
    assert cached.shape == (2, acting.TOKENS) and torch.equal(seen[-1][:, 1:], cached)


@pytest.mark.slow
def test_the_command_writes_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a group that cannot run is left out in silence; JSON that does not hold what the table shows."""
    file = tmp_path / "bench.json"
    assert cli.main(["bench", "--only", "update", "--rounds", "1", "--device", "cpu", "--profile", "--json", str(file)]) == 0
    out, found = capsys.readouterr().out, json.loads(file.read_text())
    assert [row["what"] for row in found["rows"]] == ["update", "memory", *["profile"] * update.COSTS]
    assert found["threads"] == 1 and found["rows"][0]["ratio"] > 0 and "DQN update / cross-entropy step" in out
    shares = [row["first"] for row in found["rows"][2:]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100 and all(map(math.isfinite, shares))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "repaly"], "there is no such group; groups: update, replay"),
        (["--rounds", "0"], "1 or more"),
        (["--json", "nowhere/b.json"], "there is no folder"),
        (["--json", "."], "this is a folder"),
    ],
)
def test_refusals(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2 and said in capsys.readouterr().err


def test_exponents() -> None:
    """Bug: a slope of times over sizes instead of their logarithms."""
    assert scaling.exponent({1: 2.0, 2: 8.0, 4: 32.0}) == pytest.approx(2.0)
    assert scaling.exponent({8: 3.0, 64: 3.0}) == pytest.approx(0.0)


@pytest.mark.slow
def test_everything_that_is_varied_can_be_built_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a size that the settings of another group do not allow; a row without its times."""
    pytest.importorskip("tokenizers")
    found = list(scaling.rows(1, "cpu", most=2))
    assert len(found) == len(scaling.UPDATES) + len(scaling.ACTING) + 1
    assert all(row.first is not None and math.isfinite(row.first) and row.note.count("ms") == 2 for row in found)


def test_shares_of_the_device_for_every_kind_of_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a kind of update that cannot be built, or whose operations are counted while nothing is learned."""
    monkeypatch.setattr(utilisation, "operations_per_second", lambda device: 1e12)
    monkeypatch.setattr(utilisation, "UPDATES", 1)
    plain = {name: settings for name, settings in utilisation.VARIANTS.items() if "plain" in name}
    monkeypatch.setattr(utilisation, "VARIANTS", plain)
    small = ("network.layers=1", "network.width=32", "network.heads=2", "network.context=16", "env.horizon=16")
    found = list(utilisation.rows(1, "cpu", *small, "learner.precision=float32"))
    assert len(found) == 3 and all(row.first is not None and row.first > 0 for row in found)
