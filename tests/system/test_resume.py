"""Exact resume: a run that was stopped or killed anywhere, and resumed, ends as one that was never stopped, bit for bit."""

from __future__ import annotations

import copy
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.errors import UserError
from dqnlm.runs.checkpoint import step_folders
from dqnlm.utils.signals import Stopped
from tests.helpers import runs as tools

FREE = ["env.transition=free"]
CASES: dict[str, list[str]] = {
    "teacher transformer with dropout": ["network.dropout=0.2"],
    "teacher window_mlp, copies, Polyak": ["network=window_mlp", "env.guesses_per_position=2", "target.polyak_rate=0.05"],
    "cloning gru": ["algorithm=behaviour_cloning", "network=gru"],
    "probability matching": [
        "head=normalised", "projection=dueling", "exploration=probability_matching", "env.guesses_per_position=2", "gamma=0.3",
        "exploration.random=0.1", "policy.kind=probability",
    ],
    "all actions, Adam": ["feedback=all_actions", "gamma=0", "optimizer=adam"],
    "free transformer with dropout, rollouts cut in the middle of episodes": [
        *FREE, "network.dropout=0.2", "trainer.rollout_steps=5", "trainer.learning_starts=32", "env.prompt_length=3",
        "exploration=boltzmann", "buffer.capacity=80",
    ],
    "free gru with a stop token, rollouts cut, hard target": [
        *FREE, "network=gru", "env.stop_token=e", "trainer.rollout_steps=5", "trainer.learning_starts=32", "target=hard",
        "target.period=3",
    ],
    "free transformer with a stop token, similarity, truncation": [
        *FREE, "env.stop_token=e", "reward=similarity", "head.loss=huber", "env.horizon_end=truncate", "trainer.rollout_steps=5",
        "trainer.learning_starts=32",
    ],
    "free window_mlp, single transitions, mixture of rewards, small buffer that wraps": [
        *FREE, "network=window_mlp", "buffer.sample=transitions", "reward=mixture", "buffer.capacity=100", "head.loss=squared",
    ],
    "rainbow: priorities, noise, three steps": ["algorithm=rainbow"],
    "iqn, priorities of single transitions, n-step": [
        *FREE, "algorithm=iqn", "buffer=prioritized", "buffer.sample=transitions", "returns=n_step", "buffer.capacity=100",
    ],
    "pqn: the latest rollout, lambda-returns": ["algorithm=pqn", "trainer.updates_per_rollout=3"],
    "warm start, a reference policy, demonstrations in each batch": [
        *FREE, "algorithm=tbrm", "objective.trajectory.reference=start", "pretraining.updates=5",
        "trainer.demonstration_fraction=0.5", "trainer.rollouts=8", "env.prompt_length=3", "target=polyak",
    ],
    "rows in a file": [*FREE, "buffer.place=file", "trainer.rollout_steps=5", "trainer.learning_starts=32", "buffer.capacity=80"],
    "priorities of single transitions in a file": [*FREE, "buffer=prioritized", "buffer.sample=transitions", "buffer.place=file"],
    "Muon": ["optimizer=muon"],
    "munchausen, heads alone in the target": ["algorithm=munchausen_dqn", "target.heads_only=true"],
}  # fmt: skip


@pytest.mark.parametrize("buffer", ["uniform", "prioritized"])
def test_a_run_is_the_same_wherever_its_rows_lie(buffer: str, tmp_path: Path) -> None:
    """Bug: another row is drawn, or another learned from, where the ring lies in a file."""
    text = tools.write_text(tmp_path / "text.txt")
    for place in ("device", "file"):
        tools.start(tmp_path / place, text, f"buffer={buffer}", f"buffer.place={place}")
    tools.assert_same_run(tmp_path / "file", tmp_path / "device")


@pytest.mark.fault("a random stream that starts again on load")
@pytest.mark.parametrize("case", CASES)
def test_killed_or_stopped_and_resumed_equals_never_stopped(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a counter, a random state, an open episode, the buffer's cursor or the target network lost on resume."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "whole", text, *CASES[case])
    with monkeypatch.context() as patch:  # killed between two checkpoints: rollouts 4 and 5 are lost and done again
        tools.at_rollout(patch, 5, tools.kill)
        with pytest.raises(tools.Killed):
            tools.start(tmp_path / "run", text, *CASES[case])
    with monkeypatch.context() as patch:  # and stopped, after the resume, where no checkpoint was due
        tools.at_rollout(patch, 7, tools.send(signal.SIGTERM))
        with pytest.raises(Stopped) as stopped:
            launch.resume(tmp_path / "run", [])
    assert stopped.value.code == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert f"dqnlm resume {tmp_path / 'run'}" in capsys.readouterr().out
    summary = launch.resume(tmp_path / "run", [])
    assert summary["status"] == "finished"
    tools.assert_same_run(tmp_path / "run", tmp_path / "whole")


LOGGED = [
    "+experiment=random_walks", "algorithm=ilql", "network.hidden=16", "trainer.offline_rounds=6", "trainer.batch_size=8",
    "evaluation.episodes=20", "buffer.capacity=9000",
]  # fmt: skip
CARTPOLE = [
    "+experiment=cartpole", "network.hidden=16", "trainer.rollouts=36", "evaluation.episodes=2",
    "trainer.learning_starts=600",
    "env.max_episode_steps=30", "trainer.batch_size=8",
]  # fmt: skip
LASTING = ["logger=none", "device=cpu", "threads=1", "progress=false", "trainer.log_every=2", "evaluation.every=6",
           "checkpoint.every=3", "checkpoint.minutes=null"]  # fmt: skip


@pytest.mark.parametrize("case", [LOGGED, CARTPOLE], ids=["logged walks, ilql", "cartpole"])
def test_tasks_without_a_text_resume_exactly(case: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: logged rows added twice, or an environment on the host that starts its episodes again."""
    if case is CARTPOLE:
        pytest.importorskip("gymnasium")
    typed = [*case, *LASTING]
    composed, choices = composition.compose(typed)
    checked = validation.validate(composed, choices, typed)

    def start(folder: Path) -> None:
        folder.mkdir()
        launch.start(copy.deepcopy(checked), folder, choices=choices, command_line=["dqnlm", "train"])

    start(tmp_path / "whole")
    with monkeypatch.context() as patch:
        tools.at_rollout(patch, 5 if case is LOGGED else 35, tools.kill)
        with pytest.raises(tools.Killed):
            start(tmp_path / "run")
    assert launch.resume(tmp_path / "run", [])["status"] == "finished"
    tools.assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.fault("counter, epsilon, buffer or random state lost on resume")
def test_the_comparison_sees_every_part() -> None:
    """Bug: two states that differ pass as equal, so that all tests of this file prove nothing."""
    import torch

    state = {"a": torch.zeros(3), "b": [1, {"c": 2.0}], "d": "x"}
    assert tools.differences(state, copy.deepcopy(state)) == []
    for change in (
        {"a": torch.tensor([0.0, 0.0, 1e-9])},
        {"b": [1, {"c": 2.1}]},
        {"d": "y"},
        {"a": torch.zeros(3).double()},
    ):
        assert len(tools.differences(state, state | change)) == 1
    assert tools.differences(state, {"a": state["a"]}) == [""]


def test_interrupted_by_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: Ctrl-C loses what was done since the last checkpoint, or ends with another exit code than 130."""
    text = tools.write_text(tmp_path / "text.txt")
    with monkeypatch.context() as patch:
        tools.at_rollout(patch, 5, tools.send(signal.SIGINT))
        with pytest.raises(Stopped) as stopped:
            tools.start(tmp_path / "run", text)
    assert stopped.value.code == 130
    assert step_folders(tmp_path / "run" / "checkpoints")[-1].name == "step-00000005"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_stops_at_once_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a hanging save cannot be left, or the status says failed where a person stopped the run."""
    text = tools.write_text(tmp_path / "text.txt")

    def twice(trainer: Any) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        tools.at_rollout(patch, 5, twice)
        with pytest.raises(KeyboardInterrupt):
            tools.start(tmp_path / "run", text)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert step_folders(tmp_path / "run" / "checkpoints")[-1].name == "step-00000003"


def test_evaluating_and_saving_more_often_changes_nothing_in_training(tmp_path: Path) -> None:
    """Bug: an evaluation draws from the random stream of the training, or leaves the network in another mode."""
    text, often = tools.write_text(tmp_path / "text.txt"), ["evaluation.every=1", "checkpoint.every=1"]
    options = [*FREE, "network.dropout=0.2", "env.stop_token=e", "trainer.rollouts=6"]
    tools.start(tmp_path / "seldom", text, *options)
    tools.start(tmp_path / "often", text, *options, *often)

    def training(run: Path) -> list[dict[str, Any]]:
        return [line for line in tools.metrics(run) if "loss/td" in line]

    assert len(training(tmp_path / "seldom")) == 3 and training(tmp_path / "seldom") == training(tmp_path / "often")
    seldom, frequent = tools.state(tmp_path / "seldom"), tools.state(tmp_path / "often")
    for state in (seldom, frequent):
        del state["training"]["trainer"]
    assert not tools.differences(seldom, frequent)


def test_a_finished_run_is_not_resumed_but_can_be_extended(tmp_path: Path) -> None:
    """Bug: resuming a finished run trains on, spoils it, or an extension forgets what came before."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "run", text)
    before, saved = tools.metrics(tmp_path / "run"), tools.state(tmp_path / "run")
    with pytest.raises(UserError, match=r"is finished \(12 rollouts\).*trainer.rollouts=24"):
        launch.resume(tmp_path / "run", [])
    assert (tmp_path / "run" / "summary.json").exists() and not tools.differences(tools.state(tmp_path / "run"), saved)
    summary = launch.resume(tmp_path / "run", ["trainer.rollouts=16"])
    after = tools.metrics(tmp_path / "run")
    assert summary["totals"]["rollouts"] == 16 and after[: len(before)] == before and after[-1]["step"] == 16
    assert "rollouts: 16" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_run_killed_after_its_last_checkpoint_is_finished_by_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: killed between the last checkpoint and the summary, a run stays without a summary for ever."""
    text = tools.write_text(tmp_path / "text.txt")
    expected = tools.start(tmp_path / "run", text)
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(UserError, match=r"trainer.rollouts=5 is less than the 12"):
        launch.resume(tmp_path / "run", ["trainer.rollouts=5"])
    assert "rollouts: 12" in (tmp_path / "run" / "config.yaml").read_text()  # the refused length is not kept
    summary = launch.resume(tmp_path / "run", [])
    assert summary["status"] == "finished" and summary["totals"]["rollouts"] == 12
    assert summary["best"] == expected["best"] and (tmp_path / "run" / "summary.json").exists()


def test_early_stopping_stops_at_the_same_place_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the patience that is used up is forgotten, so that a resumed run goes on, if only for one rollout."""
    text = tools.write_text(tmp_path / "text.txt")
    options = [
        "optimizer.lr=1e-30",
        "evaluation.patience=1",
        "checkpoint.every=4",
        "evaluation.every=4",
    ]
    summary = tools.start(tmp_path / "run", text, *options)
    assert summary["status"] == "finished" and summary["totals"]["rollouts"] == 8, "evaluation 2 cannot be better"
    saved = tools.state(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    assert launch.resume(tmp_path / "run", [])["totals"]["rollouts"] == 8
    assert not tools.differences(tools.state(tmp_path / "run"), saved)
    assert launch.resume(tmp_path / "run", ["evaluation.patience=null"])["totals"]["rollouts"] == 12


def test_damaged_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a damaged checkpoint ends in a traceback, is loaded, or keeps a run from going on from the one before."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "whole", text)
    with monkeypatch.context() as patch:
        tools.at_rollout(patch, 11, tools.kill)
        with pytest.raises(tools.Killed):
            tools.start(tmp_path / "run", text)
    older, newer = step_folders(tmp_path / "run" / "checkpoints")
    file = newer / "training.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    file.write_bytes(content)
    shutil.copytree(tmp_path / "run", tmp_path / "hopeless")
    launch.resume(tmp_path / "run", [])
    out = capsys.readouterr().out
    assert f"{newer} is damaged and passed over" in out and "from step-00000006" in out
    tools.assert_same_run(tmp_path / "run", tmp_path / "whole")
    (tmp_path / "hopeless" / "checkpoints" / older.name / "policy.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint to resume from \(2 are damaged\)"):
        launch.resume(tmp_path / "hopeless", [])


def test_stopped_before_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a run without any checkpoint ends in a traceback on resume."""
    text = tools.write_text(tmp_path / "text.txt")
    monkeypatch.setattr("dqnlm.training.trainer.Trainer._loop", tools.kill)
    with pytest.raises(tools.Killed):
        tools.start(tmp_path / "run", text)
    with pytest.raises(UserError, match="stopped before its first was written"):
        launch.resume(tmp_path / "run", [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1", "seed cannot change on a resume"),
        ("env.horizon=6", "env cannot change on a resume"),
        ("network.width=32", "network cannot change on a resume"),
        ("gamma=0.9", "gamma cannot change on a resume"),
        ("feedback=all_actions", "feedback cannot change on a resume"),
        ("trainer.rolouts=20", "trainer.rollouts"),
    ],
)
def test_what_a_resume_may_not_change(tmp_path: Path, override: str, message: str) -> None:
    """Bug: a resumed run silently becomes another one."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "run", text, "trainer.rollouts=2")
    config = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(UserError, match=message):
        launch.resume(tmp_path / "run", [override])
    assert (tmp_path / "run" / "config.yaml").read_text() == config


def test_changed_or_missing_text_is_refused(tmp_path: Path) -> None:
    """Bug: a run goes on, on another text."""
    text = tools.write_text(tmp_path / "text.txt")
    tools.start(tmp_path / "run", text, "trainer.rollouts=2")
    tools.write_text(text, seed=1)
    with pytest.raises(UserError, match="the data is not what this run was trained on"):
        launch.resume(tmp_path / "run", ["trainer.rollouts=4"])
    text.unlink()
    with pytest.raises(UserError, match=r"text\.txt"):
        launch.resume(tmp_path / "run", ["trainer.rollouts=4"])
    assert "rollouts: 2\n" in (tmp_path / "run" / "config.yaml").read_text()
