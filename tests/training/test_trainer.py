"""The loop: what stops it, what it says of itself, what it never does between two log points."""

from __future__ import annotations

import json
import math
import random
import shlex
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqnlm import cli
from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.runs import checkpoint
from dqnlm.runs.directory import RunDirectory
from dqnlm.training import summary as run_summary
from dqnlm.training.recorder import Recorder
from dqnlm.utils.permissions import forget_permissions, permit_targets
from dqnlm.utils.signals import Stopped
from tests.helpers import runs as tools
from tests.helpers.environments import NoHostSynchronisation

CPU = torch.device("cpu")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return tools.write_text(tmp_path / "text.txt")


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


DIVERGES = ["optimizer.lr=1e38", "head.loss=squared", "learner.gradient_clip=null", "optimizer.weight_decay=1"]


@pytest.mark.parametrize(
    ("found_by", "message"),
    [
        (["trainer.log_every=1"], r"became (nan|inf|-inf) between"),
        (["trainer.log_every=100", "evaluation.every=3", "checkpoint.every=100"], "a weight became nan"),
        (["trainer.log_every=100", "evaluation.every=100", "checkpoint.every=3"], "a weight became nan"),
    ],
    ids=["log", "evaluation", "save"],
)
def test_a_run_that_diverges_stops_and_keeps_what_was_good(
    tmp_path: Path, text: Path, found_by: list[str], message: str
) -> None:
    """Bug: NaN weights replace a good checkpoint or the best, figures become NaN, or the cause is not named."""
    with pytest.raises(UserError, match=message) as caught:
        tools.start(tmp_path / "run", text, *DIVERGES, *found_by)
    assert all(part in str(caught.value) for part in ("diverged", "optimizer.lr", "last good checkpoint is kept"))
    assert summary(tmp_path / "run")["status"] == "failed"
    path, damaged = checkpoint.newest_whole(tmp_path / "run" / "checkpoints")
    weights = checkpoint.load(path, "policy", CPU)["network"]
    assert not damaged and all(value.isfinite().all() for value in weights.values())
    assert not (tmp_path / "run" / "checkpoints" / "best").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("kind", ["the CPU's own", "CUDA's"])
def test_out_of_memory_names_three_settings(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Bug: a traceback of the allocator, or a message that its wording does not match any more."""

    def exhaust(actor: Any, steps: int | None) -> None:
        if kind == "CUDA's":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        torch.empty(10**15)

    monkeypatch.setattr("dqnlm.agent.actor.Actor.rollout", exhaust)
    with pytest.raises(UserError) as caught:
        tools.start(tmp_path / "run", text)
    assert all(name in str(caught.value) for name in ("trainer.batch_size", "env.num_envs", "buffer.capacity"))
    assert summary(tmp_path / "run")["status"] == "failed"


def test_other_errors_are_not_taken_for_memory(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a mistake in the code is shown as out of memory, or leaves no summary."""

    def fail(actor: Any, steps: int | None) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("dqnlm.agent.actor.Actor.rollout", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        tools.start(tmp_path / "run", text)
    assert summary(tmp_path / "run")["status"] == "failed"


def test_a_network_too_large_to_be_built(tmp_path: Path, text: Path) -> None:
    """Bug: memory that runs out before training starts ends in a traceback."""
    with pytest.raises(UserError, match="out of memory"):
        tools.start(tmp_path / "run", text, "network=window_mlp", "network.hidden=1e13", "network.width=16")


def test_summary_of_a_finished_run(tmp_path: Path, text: Path) -> None:
    """Bug: the summary lacks what `dqnlm runs` shows, or `best` is the last evaluation."""
    returned = tools.start(tmp_path / "run", text, "evaluation.every=2")
    found = summary(tmp_path / "run")
    assert found == json.loads(json.dumps(returned)) and found["status"] == "finished"
    evaluations = [line for line in tools.lines(tmp_path / "run" / "metrics.jsonl") if "eval/accuracy" in line]
    assert len(evaluations) == 6
    best = max(evaluations, key=lambda line: line["eval/accuracy"])
    assert found["best"]["step"] == best["step"] and found["best"]["eval/accuracy"] == best["eval/accuracy"]
    assert found["last"]["eval/nll"] == evaluations[-1]["eval/nll"]
    assert found["totals"] | {"wall_s": 0} == {
        "rollouts": 12,
        "updates": 12,
        "env_steps": 384,
        "transitions": 384,
        "wall_s": 0,
    }
    state = checkpoint.load(tmp_path / "run" / "checkpoints" / "best", "policy", CPU)
    assert state["step"] == best["step"]


def test_best_is_the_lowest_where_low_is_good(tmp_path: Path, text: Path) -> None:
    """Bug: `best` by eval/nll keeps the worst."""
    found = tools.start(tmp_path / "run", text, "evaluation.every=2", "evaluation.best_metric=eval/nll")
    nats = [line["eval/nll"] for line in tools.lines(tmp_path / "run" / "metrics.jsonl") if "eval/nll" in line]
    assert found["best"]["eval/nll"] == min(nats) < max(nats)


def test_log_lines_hold_the_figures_that_are_promised(tmp_path: Path, text: Path) -> None:
    """Bug: a figure is renamed or lost, so that reports and curves go empty."""
    tools.start(tmp_path / "run", text, "trainer.rollouts=4")
    first, *_ = found = tools.lines(tmp_path / "run" / "metrics.jsonl")
    assert list(first)[:4] == ["step", "env_steps", "transitions", "wall_s"]
    logged = {"loss/td", "q/taken_mean", "q/max_mean", "target/mean", "grad/norm", "buffer/transitions", "rollout/return",
              "rollout/epsilon", "time/transitions_per_second"}  # fmt: skip
    assert logged <= set(first)
    evaluated = {"eval/accuracy", "eval/nll", "eval/return", "eval/return_best_constant", "eval/distinct_2",
                 "eval/top_token_share"}  # fmt: skip
    assert evaluated <= set(found[-1])
    assert [line["step"] for line in found] == [2, 4, 4]
    assert first["buffer/transitions"] == 64 and found[1]["rollout/epsilon"] < first["rollout/epsilon"] < 1
    sample = tools.lines(tmp_path / "run" / "samples.jsonl")[0]
    assert set(sample) == {"step", "kind", "prompt", "text"} and len(sample["text"]) == 12


FREE = ["env.transition=free"]
NO_WAIT = {
    "teacher": [],
    "copies": ["env.guesses_per_position=2", "head=normalised", "projection=dueling", "exploration=probability_matching",
               "exploration.random=0.1"],
    "free": [*FREE, "env.prompt_length=3", "trainer.rollout_steps=5", "trainer.learning_starts=32"],
    "free, stop token, mixture": [*FREE, "env.stop_token=e", "reward=mixture", "trainer.rollout_steps=5",
                                  "trainer.learning_starts=32", "env.horizon_end=truncate"],
    "free gru, stop token, single transitions": [*FREE, "network=gru", "env.stop_token=e", "buffer.sample=transitions"],
}  # fmt: skip


PACKAGE = Path(launch.__file__).parents[
    1
]  # not by its name: the checkout, which holds the tests and torch, may have it too


class NoWaitOnAcceleratorsMode(NoHostSynchronisation):
    """As its base, but a line that asks for `device.type == "cpu"` first may read values: there nothing waits."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.startswith("_local_scalar_dense"):
            lines = [frame.line or "" for frame in traceback.extract_stack() if PACKAGE in Path(frame.filename).parents]
            if 'device.type == "cpu"' in lines[-1]:
                return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("case", NO_WAIT)
def test_nothing_waits_for_the_device_between_two_log_points(tmp_path: Path, text: Path, case: str) -> None:
    """Bug: an .item(), a bool(tensor) or a nonzero in the loop, which on a GPU stops the queue at every step."""
    config, _ = tools.settings(tools.tiny(text, *NO_WAIT[case]))
    trainer = launch.build(config, RunDirectory(tmp_path))
    with NoWaitOnAcceleratorsMode():
        for _ in range(5):
            trainer.train_round(trainer.phase)
    assert trainer.components.learner.updates >= 3


@pytest.mark.parametrize("extra", [["env.transition=teacher"], FREE, [*FREE, "env.prompt_length=3"]])
def test_parts_of_a_reward_are_means_of_every_decision(tmp_path: Path, text: Path, extra: list[str]) -> None:
    """Bug: the parts of a mixture are logged at the last step of an episode only."""
    settings = [
        "reward=mixture",
        "reward.parts.exact_match.weight=1",
        "reward.parts.similarity.weight=0",
        "trainer.rollouts=4",
    ]
    tools.start(tmp_path / "run", text, *settings, *extra)
    for line in (line for line in tools.lines(tmp_path / "run" / "metrics.jsonl") if "rollout/return" in line):
        assert line["rollout/return"] > 0 and line["reward/exact_match"] * 8 == pytest.approx(line["rollout/return"])


@pytest.mark.fault("seed 0 taken for no seed")
def test_seeds(tmp_path: Path, text: Path) -> None:
    """Bug: seed 0 is taken for no seed; two runs of one seed differ; a seed that reaches only some of the streams."""
    options = ["trainer.rollouts=3", "network.dropout=0.1"]
    for name, seed in (("zero", 0), ("again", 0), ("one", 1)):
        tools.start(tmp_path / name, text, f"seed={seed}", *options)
    tools.assert_same_run(tmp_path / "zero", tmp_path / "again")
    found = " ".join(tools.differences(tools.state(tmp_path / "zero"), tools.state(tmp_path / "one")))
    streams = ("env/generator", "exploration", "buffer/generator", "random")
    assert "/policy/network" in found and all(f"/training/{name}" in found for name in streams)


def test_starting_from_the_weights_of_another_run(tmp_path: Path, text: Path) -> None:
    """Bug: fresh weights, the target network left at random, or a resume that needs the first run again."""
    tools.start(tmp_path / "first", text, "trainer.rollouts=4")
    best = checkpoint.load(tmp_path / "first" / "checkpoints" / "best", "policy", CPU)["network"]
    options = [f"pretraining.init_from='{tmp_path / 'first'}'", "trainer.rollouts=2", "seed=3", "optimizer.lr=1e-30"]
    tools.start(tmp_path / "second", text, *options)
    state = tools.state(tmp_path / "second")
    assert not tools.differences(state["policy"]["network"], best)
    assert not tools.differences(state["training"]["learner"]["target"], best)
    shutil.rmtree(tmp_path / "first")
    assert launch.resume(tmp_path / "second", ["trainer.rollouts=4"])["status"] == "finished"


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, text: Path) -> None:
    """Bug: weights of another vocabulary or network are loaded in part, or end in a traceback."""
    tools.start(tmp_path / "first", text, "trainer.rollouts=2")
    start = f"pretraining.init_from='{tmp_path / 'first'}'"
    with pytest.raises(UserError, match="the networks differ"):
        tools.start(tmp_path / "wide", text, start, "network.width=32")
    other = tools.write_text(tmp_path / "other.txt", words=["quick", "brown", "fox"])
    with pytest.raises(UserError, match="another vocabulary"):
        tools.start(tmp_path / "vocabulary", other, start)
    with pytest.raises(UserError, match=r"no runs below|no such folder"):
        tools.start(tmp_path / "nowhere", text, f"pretraining.init_from=nothing-{tmp_path.name}")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([], ["gamma 0.5 cannot change which action is best"]),
        (["gamma=0"], ["target network and bootstrap: gamma is 0"]),
        ([*FREE, "target=none"], ["bootstrap=double: with target=none"]),
        (
            ["gamma=0", "feedback=all_actions"],
            ["exploration", "target network", "supervised", "upper bound"],
        ),
        (["algorithm=behaviour_cloning"], ["supervised learning", "not Q-learning"]),
        ([*FREE], None),
    ],
)
def test_idle_components_are_named(tmp_path: Path, text: Path, overrides: list[str], parts: list[str] | None) -> None:
    """Bug: supervised learning in the form of DQN is presented as reinforcement learning."""
    config, choices = tools.settings(tools.tiny(text, *overrides))
    trainer = launch.build(config, RunDirectory(tmp_path), choices=choices)
    idle = " ".join(run_summary.idle_components(config["pretraining"], trainer.components.context))
    assert not idle if parts is None else all(part in idle for part in parts)


def test_header_shows_what_is_trained_on_what(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: the header leaves out what idles, or costs; the log file differs from the terminal."""
    tools.start(tmp_path / "run", text, "trainer.rollouts=2", "gamma=0")
    shown, logged = capsys.readouterr().out, (tmp_path / "run" / "train.log").read_text()
    for part in (
        "text.txt",
        "3,600 tokens",
        "parameters",
        "bytes a transition",
        "MiB",
        "inactive",
        "gamma is 0",
        "evaluation after",
    ):
        assert part in shown and part in logged, part


def test_the_bundled_text_is_named_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a run on the stand-in text passes for one on Shakespeare; or a resumed run changes from one to the other."""
    monkeypatch.setenv("DQNLM_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DQNLM_DATA_DIR", raising=False)
    options = ["data=tiny_shakespeare", "data.bundled_characters=3000", "trainer.rollouts=2"]
    tools.start(tmp_path / "run", None, *options)
    assert "NOT SHAKESPEARE" in capsys.readouterr().out
    assert "BUNDLED" in " ".join(summary(tmp_path / "run")["notes"])
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["bundled"] is True
    assert launch.resume(tmp_path / "run", ["trainer.rollouts=3"])["status"] == "finished"
    with pytest.raises(UserError, match=r"data\.path|DQNLM_DATA_DIR"):
        tools.start(tmp_path / "strict", None, *options, "data.bundled_fallback=false")


def test_tensorboard_after_a_kill_shows_each_step_once(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a resume wipes the curve of before from TensorBoard, or leaves what the kill made void."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def curve(run: Path) -> list[tuple[int, float]]:
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("loss/td")]

    tools.start(tmp_path / "whole", text, "logger=tensorboard")
    for number, action in ((5, tools.kill), (8, tools.send(signal.SIGTERM))):
        with monkeypatch.context() as patch:
            tools.at_rollout(patch, number, action)
            begin: Callable[[], Any] = lambda number=number: (  # type: ignore[misc]  # noqa: E731
                tools.start(tmp_path / "run", text, "logger=tensorboard")
                if number == 5
                else launch.resume(tmp_path / "run", [])
            )
            with pytest.raises((tools.Killed, Stopped)):
                begin()
    launch.resume(tmp_path / "run", [])
    assert len(curve(tmp_path / "whole")) == 6 and curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_text_without_a_line_break_and_with_an_unknown_character_where_the_held_out_part_begins(tmp_path: Path) -> None:
    """Bug: samples start from a character that the tokenizer refuses, in the middle of the run."""
    path = tmp_path / "text.txt"
    path.write_text("tea at the " * 162 + "Q" + " the tea" * 22)
    ids = tools.start(tmp_path / "run", path, "trainer.rollouts=2", "data.heldout_fraction=0.09")
    assert ids["status"] == "finished" and "1 held-out characters do not occur" in " ".join(ids["notes"])
    assert set(tools.lines(tmp_path / "run" / "samples.jsonl")[0]["text"]) <= set("tea h")


def test_vocabulary_above_256(tmp_path: Path) -> None:
    """Bug: token ids cut to one byte in the buffer, the environment or the samples."""
    path, draw = tmp_path / "text.txt", random.Random(0)
    characters = [chr(0x4E00 + number) for number in range(600)]
    path.write_text("".join(draw.choices(characters, k=9000)) + "\n", encoding="utf-8")
    tools.start(tmp_path / "run", path, "env.transition=free", "trainer.rollouts=3", "evaluation.samples=3")
    buffer = tools.state(tmp_path / "run")["training"]["buffer"]["observation_CS"]
    assert buffer.dtype == torch.int16 and int(buffer.max()) > 256
    text = "".join(line["text"] for line in tools.lines(tmp_path / "run" / "samples.jsonl"))
    assert any(ord(character) > 0x4E00 + 256 for character in text), "false alarm: (257 / 600) ** 36 < 1e-13"


def test_tensorboard_holds_samples_and_settings(tmp_path: Path, text: Path) -> None:
    """Bug: texts and settings of a run are to be found in its folder alone."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tools.start(tmp_path / "run", text, "logger=tensorboard", "evaluation.samples=2")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"settings/text_summary", "samples/text_summary"} == set(events.Tags()["tensors"])
    shown = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("samples/text_summary")]
    saved = [line["prompt"] + line["text"] for line in tools.lines(tmp_path / "run" / "samples.jsonl")]
    pages = [part for page in shown for part in page.split("\n\n---\n\n")]
    assert [[line[4:] for line in page.splitlines()] for page in pages] == [text.splitlines() for text in saved]
    settings = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"num_envs": 4' in settings and '"gamma"' in settings


def test_a_run_ends_with_its_folder_its_best_figure_and_commands_that_work(tmp_path: Path, text: Path) -> None:
    """Bug: the end is an empty prompt; a command of it has to be completed before it runs, or is refused."""
    summary = tools.start(tmp_path / "run", text)
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    end = lines[next(i for i, line in enumerate(lines) if line.startswith("finished in ")) :]
    best = summary["best"]
    assert f"best accuracy (eval/accuracy) {best['eval/accuracy']:.4g} after {best['step']:,.0f} updates" in end[0]
    assert end[1].split() == ["folder", str(tmp_path / "run")]
    commands = {line[2:15].strip(): shlex.split(line[15:]) for line in end[2:]}
    assert set(commands) == {"curves", "try it", "test part", "train on"}
    for words in commands.values():
        assert words[0] == "dqnlm" and cli.main(words[1:]) == 0, words
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["totals"]["rollouts"] == 24


def test_the_command_to_look_at_a_diverged_run_has_its_permissions(tmp_path: Path) -> None:
    """Bug: the command that the message of a diverged run names is refused, as it lacks --allow-targets."""
    recorder = Recorder.__new__(Recorder)
    recorder.updates_between_logs = 1
    recorder.components = SimpleNamespace(updates=5, directory=RunDirectory(tmp_path))  # type: ignore[assignment]
    forget_permissions()  # of other tests in this process
    permit_targets("my_rewards")
    try:
        assert recorder._not_finite("loss/td", math.nan).endswith(f"dqnlm eval {tmp_path} --allow-targets my_rewards")
    finally:
        forget_permissions()
