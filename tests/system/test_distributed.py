"""Runs of several processes on this machine (gloo): the same as one process, exact resume, the death of one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm.buffers.shard import Shard
from dqnlm.builder.shares import share_of
from dqnlm.cli import main
from dqnlm.errors import UserError
from dqnlm.types import Rows
from dqnlm.utils import permissions
from dqnlm.utils.ranks import ALONE, Ranks
from tests.helpers import ranks_worker
from tests.helpers import runs as tools
from tests.helpers.processes import run, torchrun
from tests.system import kill_runs

WAIT_S = 60.0


def tiny(text: Path, folder: Path, *more: str) -> list[str]:
    return ["train", *tools.tiny(text, "env.num_envs=6", "trainer.batch_size=6", *more), f"hydra.run.dir={folder}"]


class Rank(Ranks):
    """One of several, for what needs no communication."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_together_learn_what_one_learns(processes: int, tmp_path: Path) -> None:
    """Bug: gradients are averaged where counts differ, clipped before they are summed, or a rank's target lags behind."""
    with torchrun(processes, "-m", "tests.helpers.ranks_worker", str(tmp_path)) as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(processes)]
    one = ranks_worker.trained(ALONE)
    for rank, other in enumerate(found):
        for a, b, c in zip(found[0]["weights"], other["weights"], one["weights"], strict=True):  # type: ignore[call-overload]
            assert torch.equal(a, b)
            torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-6)
        assert other["transitions"] == one["transitions"] and other["metrics"] == found[0]["metrics"]
        for mine, whole in zip(other["metrics"], one["metrics"], strict=True):  # type: ignore[call-overload]
            assert mine.keys() == whole.keys() and mine == pytest.approx(whole, rel=1e-4, abs=1e-6)
        assert other["most"] == [processes - 1, 0] and other["shared"] == {"from": 0}
        assert other["gathered"] == (list(range(1, processes)) if rank == 0 else [])
        assert other["sum"] == sum(range(1, processes + 1))
        assert other["least"] == pytest.approx((4.0 if rank == 0 else 40.0) / 40.0)
    assert len({other["seed"] for other in found}) == processes and found[0]["seed"] == 7


def test_a_run_of_two_processes_is_one_run(tmp_path: Path) -> None:
    """Bug: two folders, two lines for each log point, or environments that play the same."""
    text = tools.write_text(tmp_path / "text.txt")
    code, said = run(2, *tiny(text, tmp_path / "run"))
    assert code == 0, said
    lines = tools.lines(tmp_path / "run/metrics.jsonl")
    logged = [line for line in lines if "rollout/return" in line]
    assert [line["step"] for line in logged] == sorted({line["step"] for line in logged})
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "finished" and summary["totals"]["env_steps"] == 12 * 6 * 8
    assert 0 < logged[-1]["time/communication_share"] < 1
    assert said.count("evaluation after") == len([line for line in lines if "eval/accuracy" in line])
    training = torch.load(sorted((tmp_path / "run/checkpoints").glob("step-*"))[-1] / "training.pt", weights_only=True)
    (other,) = training["others"]
    assert not torch.equal(training["buffer"]["observation_CS"], other["buffer"]["observation_CS"])
    assert not torch.equal(training["random"], other["random"])


@pytest.mark.slow
def test_resumed_by_as_many_it_ends_as_if_never_stopped(tmp_path: Path) -> None:
    """Bug: a rank's rows, environments or random numbers are not restored, or are those of rank 0."""
    text, folder = tools.write_text(tmp_path / "text.txt"), tmp_path / "run"
    settings = ("env.transition=free", "trainer.rollout_steps=5", "trainer.learning_starts=48", "network.dropout=0.1",
                "buffer=prioritized")  # fmt: skip
    code, said = run(2, *tiny(text, tmp_path / "whole", *settings, "checkpoint.every=3", "checkpoint.keep_last=9"))
    assert code == 0, said
    shutil.copytree(tmp_path / "whole", folder)
    (folder / "summary.json").unlink()
    later = sorted((folder / "checkpoints").glob("step-*"))[2:]
    assert len(later) >= 2
    for checkpoint in later:  # as if it had been killed after the second one
        shutil.rmtree(checkpoint)
    code, said = run(2, "resume", str(folder))
    assert code == 0, said
    tools.assert_same_run(folder, tmp_path / "whole")


@pytest.mark.slow
def test_another_number_of_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a run goes on with half of its rows and nobody is told; the command that the message names does not work."""
    permissions.forget_permissions()
    text, folder = tools.write_text(tmp_path / "text.txt"), tmp_path / "run"
    assert run(2, *tiny(text, folder, "trainer.rollouts=4"))[0] == 0
    assert main(["resume", str(folder), "trainer.rollouts=6"]) == 2
    said = capsys.readouterr().err
    assert "was trained by 2 processes and is resumed by one process" in said
    assert f"torchrun --nproc-per-node=2 -m dqnlm resume {folder}" in said and f"dqnlm resume {folder} --reshard" in said
    before = torch.load(sorted((folder / "checkpoints").glob("step-*"))[-1] / "training.pt", weights_only=True)
    assert main(["resume", str(folder), "trainer.rollouts=6", "--reshard"]) == 0
    assert "rows are dealt out anew" in (folder / "train.log").read_text()
    after = torch.load(sorted((folder / "checkpoints").glob("step-*"))[-1] / "training.pt", weights_only=True)
    assert after["others"] == [] and json.loads((folder / "summary.json").read_text())["totals"]["env_steps"] == 6 * 6 * 8
    held = {tuple(row.tolist()) for row in after["buffer"]["observation_CS"]}
    for share in (before, *before["others"]):
        count = min(int(share["buffer"]["added"]), len(share["buffer"]["length_C"]) - 1)
        assert {tuple(row.tolist()) for row in share["buffer"]["observation_CS"][:count]} <= held


@pytest.mark.slow
def test_one_process_dies(tmp_path: Path) -> None:
    """Bug: the others wait for ever, or nobody says how to go on. (kill_runs.py --processes 2 compares all that is saved.)"""
    text, folder = tools.write_text(tmp_path / "text.txt"), tmp_path / "run"
    with torchrun(2, "-m", "dqnlm", *tiny(text, folder, "checkpoint.every=3", "trainer.rollouts=100000")) as process:
        deadline = time.monotonic() + WAIT_S
        while kill_runs.last_step(folder) < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(kill_runs.children(process)[-1], signal.SIGKILL)  # type: ignore[arg-type]
        _, error = process.communicate(timeout=WAIT_S)
    assert process.returncode != 0
    assert "has lost another one" in error and f"torchrun --nproc-per-node=2 -m dqnlm resume {folder}" in error
    reached = kill_runs.last_step(folder)
    code, said = run(2, "resume", str(folder), f"trainer.rollouts={reached + 2}")
    assert code == 0, said
    assert json.loads((folder / "summary.json").read_text())["totals"]["rollouts"] == reached + 2


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_stops_all(tmp_path: Path) -> None:
    """Bug: one process stops and the others wait for it, or what was trained is lost."""
    text, folder = tools.write_text(tmp_path / "text.txt"), tmp_path / "run"
    with torchrun(2, "-m", "dqnlm", *tiny(text, folder, "trainer.rollouts=100000")) as process:
        deadline = time.monotonic() + WAIT_S
        while kill_runs.last_step(folder) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(kill_runs.children(process)[-1], signal.SIGTERM)  # type: ignore[arg-type]
        process.communicate(timeout=WAIT_S)
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.batch_size=5"], "trainer.batch_size=5 is shared by 2 processes, each with as much: set it to 4 or 6"),
        (["-m", "seed=0,1"], "start a sweep without torchrun"),
    ],
)
def test_refusals(words: list[str], said: str, tmp_path: Path) -> None:
    text = tools.write_text(tmp_path / "text.txt")
    code, output = run(2, *tiny(text, tmp_path / "run"), *words)
    assert code != 0 and said in output


# Without processes


def test_shares_of_the_settings() -> None:
    """Bug: a batch is as large on every rank as it was to be in all; a limit that is rounded down to too little."""
    config: dict[str, Any] = {
        "env": {"num_envs": 6}, "trainer": {"batch_size": 9, "demonstration_fraction": 0.0}, "buffer": {"capacity": 100},
        "pretraining": {"batch_size": None}, "seed": 3,
    }  # fmt: skip
    first, second = (share_of(config, Rank(rank, 3)) for rank in (0, 1))
    assert first["env"]["num_envs"] == 2 and first["trainer"]["batch_size"] == 3 and first["buffer"]["capacity"] == 34
    assert first["seed"] == 3 and second["seed"] != 3 and config["env"]["num_envs"] == 6
    assert share_of(config, ALONE) is config
    grouped = config | {"env": {"num_envs": 6, "guesses_per_position": 2}}
    with pytest.raises(UserError, match="in groups of 2 that belong together: set it to 4 or 8"):
        share_of(grouped, Rank(0, 2))
    mixed = {"batch_size": 8, "demonstration_fraction": 0.25}
    prompts = config | {"env": {"num_envs": 6, "samples_per_prompt": 3}, "trainer": mixed}
    assert share_of(prompts, Rank(0, 2))["env"]["num_envs"] == 3
    with pytest.raises(UserError, match=r"rows, which 4 processes cannot share equally: set it to 0\.5"):
        share_of(prompts | {"env": {"num_envs": 24}}, Rank(0, 4))
    with pytest.raises(UserError, match=r"env\.num_envs=6 is shared by 4 processes, each with as much: set it to 4 or 8"):
        share_of(config, Rank(0, 4))


def test_rows_are_dealt_out_whole_and_once() -> None:
    """Bug: a row that no rank has, or two; a group of rows that is torn apart; the count that starts anew in each block."""

    class Taker:
        rows, copies, storage = 4, 2, None

        def __init__(self) -> None:
            self.taken: list[int] = []

        def add(self, rows: Rows) -> None:
            self.taken += rows.length_B.tolist()

    takers = [Taker() for _ in range(3)]
    for rank, taker in enumerate(takers):
        shard = Shard(taker, Rank(rank, 3))  # type: ignore[arg-type]
        assert shard.rows == 12
        for begin in (0, 6):  # row i has length i
            numbers = torch.arange(begin, begin + 6)
            shard.add(Rows(numbers[:, None], numbers[:, None], numbers[:, None], numbers[:, None], numbers))
    assert [taker.taken for taker in takers] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
