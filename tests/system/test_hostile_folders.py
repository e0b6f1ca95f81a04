"""Folders that somebody else has made: nothing in them is called, nothing is read without end, and there is one message."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from scripts import damaged_runs
from tests.helpers import runs
from tests.helpers.slow import mostly_slow

COMMANDS = {
    "generate": ["--max-tokens", "4", "--prompt", "the "], "resume": ["trainer.rollouts=14"],
    "report": ["--output", "report.html"],
}  # fmt: skip
BOMB = "went off"


class Bomb:
    """Unpickled without care, it makes a folder in the current one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (BOMB,)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    runs.start(folder / "text", runs.write_text(folder / "text.txt"))
    return folder / "text"


def checkpoints(run: Path) -> list[Path]:
    return [folder for folder in (run / "checkpoints").iterdir() if folder.is_dir()]


def signed(folder: Path) -> None:
    """Writes the checksums that fit, so that the parts are read."""
    noted = {part.stem: hashlib.sha256(part.read_bytes()).hexdigest() for part in folder.glob("*.pt") if part.is_file()}
    (folder / "sha256.json").write_text(json.dumps(noted))


def policy(change: Callable[[Any], Any], part: str = "policy") -> Callable[[Path], None]:
    """Changes a part of every checkpoint."""

    def damage(run: Path) -> None:
        for folder in checkpoints(run):
            if (folder / f"{part}.pt").exists():
                torch.save(change(torch.load(folder / f"{part}.pt", weights_only=True)), folder / f"{part}.pt")
                signed(folder)

    return damage


def setting(key: str, value: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        config = yaml.safe_load((run / "config.yaml").read_text())
        *path, name = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[name] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    return damage


def name_that_is_no_text(run: Path) -> None:
    with (run / "config.yaml").open("a") as stream:
        stream.write("1: 2\n")


def pickled(plain: bool) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        for folder in checkpoints(run):
            file = folder / "policy.pt"
            file.write_bytes(pickle.dumps(Bomb())) if plain else torch.save({"network": Bomb()}, file)
            signed(folder)

    return damage


def endless(run: Path) -> None:
    for folder in checkpoints(run):
        (folder / "policy.pt").unlink()
        (folder / "policy.pt").symlink_to("/dev/zero")


def elsewhere(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to("/etc")


# Damage -> the commands that refuse it; the others do their work.
CASES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a pickle": (pickled(True), {"generate", "resume"}), "a pickle in an archive": (pickled(False), {"generate", "resume"}),
    "a policy that is a list": (policy(lambda state: [1]), {"generate", "resume"}),
    "a policy that is a number": (policy(lambda state: 7), {"generate", "resume"}),
    "no weights": (policy(lambda state: {k: v for k, v in state.items() if k != "network"}), {"generate", "resume"}),
    "another tokenizer": (policy(lambda state: state | {"tokenizer": {"kind": "byte"}}), {"generate"}),
    "a nested tokenizer": (policy(lambda s: s | {"tokenizer": {"kind": "pretrained", "json": "[" * 9999}}), {"generate"}),
    "a mask of another size": (policy(lambda state: state | {"legal": torch.ones(3, dtype=torch.bool)}), {"generate"}),
    "another kind of policy": (policy(lambda state: state | {"declared": "evil"}), {"generate"}),
    "no temperature": (policy(lambda state: state | {"temperature": float("nan")}), {"generate"}),
    "a state of training that is a list": (policy(lambda state: [1], "training"), {"resume"}),
    "a buffer that is none": (policy(lambda state: state | {"buffer": {}}, "training"), {"resume"}),
    "counters that are none": (policy(lambda state: state | {"trainer": {"x": 1}}, "training"), {"resume"}),
    "a policy without an end": (endless, {"generate", "resume"}), "a link to another folder": (elsewhere, {"generate", "resume"}),
    "code to call": (setting("network._target_", "os.system"), {"generate", "resume"}),
    "code of dqnlm that is no part": (setting("reward._target_", "dqnlm.cli.main"), {"generate", "resume"}),
    "a permission": (setting("allow_targets", ["os"]), {"generate", "resume"}),
    "a device as data": (setting("data.path", "/dev/zero"), {"resume"}),
    "a name that is no text": (name_that_is_no_text, {"generate", "resume"}),
}  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(CASES, 4))
def test_a_hostile_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Bug: code is called, a device is read until the memory is full, or parts that do not fit end in a traceback."""
    monkeypatch.chdir(tmp_path)
    damage, refusing = CASES[name]
    for command, further in COMMANDS.items():
        copy = tmp_path / command / run.name
        shutil.copytree(run, copy)
        damage(copy)
        ended, said = damaged_runs.call([command, str(copy), *further])
        assert ended == ("2" if command in refusing else "0"), f"{command}: {ended} {said}"
        assert not (tmp_path / BOMB).exists(), f"{command} has called what it read"


def test_the_bomb_goes_off_where_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above could not fail if it did not."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / BOMB).is_dir()
