"""Checkpoints: whole or not at all, whatever happens; and nothing in them is ever executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm import cli, load_policy
from dqnlm.builder import launch
from dqnlm.errors import UserError
from dqnlm.runs import checkpoint
from dqnlm.runs.checkpoint import Checkpoints, step_folders
from dqnlm.runs.settings import CheckpointSettings
from dqnlm.utils.files import sha256_of_file
from tests.helpers import runs as tools

CPU = torch.device("cpu")


def save(folder: Path, step: int, keep_last: int = 2) -> None:
    """A checkpoint that knows its step, and the best policy likewise."""
    checkpoints = Checkpoints(folder, keep_last)
    checkpoints.save_best({"step": step, "weights": torch.full((50,), step)})
    checkpoints.save(step, {"step": step}, {"step": step, "buffer": torch.full((50,), step)})


def held(folder: Path, which: str) -> int:
    """The step that a checkpoint knows, its tensor checked."""
    path = checkpoint.find(folder, which)
    state = checkpoint.read(path, "policy", CPU)
    return int(state["step"])


def test_last_ones_are_kept_and_found(tmp_path: Path) -> None:
    """Bug: too many or the wrong ones are removed; 10 sorts before 9; `best` is removed with the old ones."""
    for step in (9, 10, 100, 1000):
        save(tmp_path, step, keep_last=3)
    assert [path.name for path in step_folders(tmp_path)] == ["step-00000010", "step-00000100", "step-00001000"]
    assert [held(tmp_path, which) for which in ("best", "last", "10", "0100")] == [1000, 1000, 10, 100]
    with pytest.raises(UserError, match=r"no checkpoint '9' .* there are: best, last, 10, 100, 1000"):
        checkpoint.find(tmp_path, "9")
    with pytest.raises(UserError, match="there are: none"):
        checkpoint.find(tmp_path / "empty", "last")
    with pytest.raises(UserError, match=r"checkpoint\.keep_last must be at least 1"):
        CheckpointSettings(every=1, minutes=None, keep_last=0)


CALLS = [(os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "rmdir"), (os, "unlink"), (os, "replace")]


def in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a fork of this process; its exit code, 9 where `work` ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(70)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(number: int, work: Callable[[], None]) -> Callable[[], None]:
    """`work`, ended without any clean-up just before its `number`-th call that changes the disk."""
    count = 0

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os._exit(9)
            return original(*arguments, **named)

        return call

    def run() -> None:
        for module, name in CALLS:
            setattr(module, name, dying(getattr(module, name)))
        work()

    return run


@pytest.mark.parametrize("step", [3, 2], ids=["another step", "the same step again"])
def test_killed_at_any_moment_of_a_save_one_whole_checkpoint_and_one_whole_best_remain(
    tmp_path: Path, step: int
) -> None:
    """Bug: a moment at which neither the old nor the new is in its place, and nothing puts it back.

    The same step is saved again where no update lies between two saves (learning_starts), or after damage.
    """
    codes = []
    save(tmp_path / "before", 1)
    save(tmp_path / "before", 2)
    for number in range(1, 60):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "before", folder)
        codes.append(in_child(die_at(number, lambda folder=folder: save(folder, step))))  # type: ignore[misc]
        assert held(folder, "best") in (2, step)
        path, damaged = checkpoint.newest_whole(folder)
        assert int(checkpoint.read(path, "training", CPU)["step"]) in (2, step) and not damaged
        assert held(folder, "best") in (2, step)
        save(folder, 4)  # the next one clears up
        assert sorted(p.name for p in folder.iterdir())[0] == "best"
        assert [p.name for p in step_folders(folder)][-1] == "step-00000004" and held(folder, "best") == 4
        if codes[-1] == 0:
            break
    assert codes.count(9) == len(codes) - 1 > 12, codes


def test_a_reader_does_not_disturb_the_writer(tmp_path: Path) -> None:
    """Bug: `dqnlm generate` puts back a best that the running training is about to replace, and the training dies of it."""
    save(tmp_path, 1)
    (tmp_path / "best").rename(tmp_path / ".tmp-old-best-77")
    assert held(tmp_path, "best") == 1
    assert not (tmp_path / "best").exists()


def disk_full(*arguments: Any, **named: Any) -> None:
    raise OSError(28, "No space left on device")


def test_full_disk_in_every_call_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a traceback, half a checkpoint under its final name, or the old one gone."""
    for name in ("torch.save", "os.fsync", "dqnlm.runs.checkpoint.write_json_atomic", "pathlib.Path.mkdir"):
        folder = tmp_path / name
        save(folder, 1)
        with monkeypatch.context() as patch:
            patch.setattr(name, disk_full)
            with pytest.raises(UserError, match=r"No space left.*that are safe: step-00000001.*dqnlm resume"):
                Checkpoints(folder, 2).save(2, {}, {})
        assert sorted(p.name for p in folder.iterdir()) == ["best", "step-00000001"] and held(folder, "last") == 1


def test_a_file_that_the_system_refuses_to_grow(tmp_path: Path) -> None:
    """Bug: torch.save reports what a full disk does to it as another kind of error than the rest of Python."""
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"could not write the checkpoint.*File too large.*step-00000001"):
            Checkpoints(tmp_path, 2).save(2, {}, {"buffer": torch.zeros(200_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert held(tmp_path, "last") == 1 and not list(tmp_path.glob(".tmp-*"))


def full_after(calls: int, original: Callable[..., Any]) -> Callable[..., Any]:
    count = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        return original(*arguments, **named) if count <= calls else disk_full()

    return call


def test_a_run_on_a_full_disk_ends_with_one_message_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: the summary, which cannot be written either, hides the message; exit code 1; the run cannot be resumed."""
    monkeypatch.chdir(tmp_path)
    text = tools.write_text(tmp_path / "text.txt")
    arguments = [*tools.tiny(text), f"hydra.run.dir={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        note_best = "dqnlm.training.recorder.Recorder._note_best"
        patch.setattr(note_best, lambda recorder, figures: patch.setattr("os.fsync", disk_full))
        assert cli.main(["train", *arguments]) == 2
    err = capfd.readouterr().err
    assert "No space left" in err and "dqnlm resume" in err and err.count("error:") == 1 and "Traceback" not in err
    assert cli.main(["resume", str(tmp_path / "run")]) == 0
    tools.start(tmp_path / "whole", text)
    tools.assert_same_run(tmp_path / "run", tmp_path / "whole")


ELSEWHERE = ["dqnlm.metrics.JsonLines.write", "dqnlm.builder.launch.save_run_config", "dqnlm.training.trainer.write_json_atomic"]


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_disk_that_is_full_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    """Bug: figures, settings or the summary that cannot be written end in a traceback."""
    monkeypatch.chdir(tmp_path)
    arguments = [*tools.tiny(tools.write_text(tmp_path / "text.txt"), "trainer.rollouts=3"), "hydra.run.dir=run"]
    monkeypatch.setattr(where, disk_full)
    assert cli.main(["train", *arguments]) == 2
    err = capfd.readouterr().err
    assert "No space left on device" in err and err.count("error:") == 1 and "Traceback" not in err


class Bomb:
    """Unpickled without care, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("plain", [True, False], ids=["a plain pickle", "inside torch's archive"])
def test_code_in_a_checkpoint_is_never_executed(tmp_path: Path, plain: bool) -> None:
    """Bug: a run's folder from somebody else runs his code."""
    save(tmp_path / "run", 1)
    stream, bomb = io.BytesIO(), Bomb(tmp_path / "exploded")
    pickle.dump(bomb, stream, 2) if plain else torch.save({"step": bomb}, stream)
    path = tmp_path / "run" / "step-00000001"
    (path / "policy.pt").write_bytes(stream.getvalue())
    (path / "sha256.json").write_text(json.dumps({"policy": sha256_of_file(path / "policy.pt")}))
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(path, "policy", CPU)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "exploded").exists(), "the bomb would have worked"


@pytest.mark.parametrize(
    "damage", ["bit", "short", "missing", "no checksum", "empty checksum", "garbage with its checksum"]
)
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    """Bug: half a file is loaded, or ends in torch's own error."""
    save(tmp_path, 1)
    path = step_folders(tmp_path)[0]
    file, sums = path / "policy.pt", path / "sha256.json"
    content = file.read_bytes()
    if damage == "bit":
        file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "short":
        file.write_bytes(content[:-7])
    elif damage == "missing":
        file.unlink()
    elif damage == "no checksum":
        sums.unlink()
    elif damage == "empty checksum":
        sums.write_text("{}")
    else:
        file.write_bytes(b"garbage")
        sums.write_text(json.dumps({"policy": sha256_of_file(file)}))
    with pytest.raises(UserError, match=r"damaged|cannot be read"):
        checkpoint.load(path, "policy", CPU)


def test_checkpoint_of_another_network_or_text(tmp_path: Path) -> None:
    """Bug: a checkpoint that was copied from another run ends in a traceback, or is trained on."""
    text = tools.write_text(tmp_path / "text.txt")
    other_text = tools.write_text(tmp_path / "other.txt", words=["quick", "brown", "fox"])
    tools.start(tmp_path / "run", text, "trainer.rollouts=3")
    tools.start(tmp_path / "wide", text, "trainer.rollouts=3", "network.width=32")
    tools.start(tmp_path / "other", other_text, "trainer.rollouts=3")
    for source, message in (("wide", "does not fit .* copied from another run"), ("other", "the data is not what")):
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        shutil.copytree(tmp_path / source / "checkpoints", tmp_path / "run" / "checkpoints")
        with pytest.raises(UserError, match=message):
            launch.resume(tmp_path / "run", ["trainer.rollouts=6"])
        if source == "wide":
            with pytest.raises(UserError, match="does not fit"):
                load_policy(tmp_path / "run", device="cpu")
