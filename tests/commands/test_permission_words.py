"""Both ways of typing a permission are understood by every command that needs one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from dqnlm.commands.permission_words import unified
from dqnlm.config.composition import parse_overrides
from dqnlm.utils import permissions


@pytest.mark.parametrize("command", ["train", "validate", "resume"])
@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["run", "--allow-targets", "a"], ["run", "+allow_targets=[a]"]),
        (["--allow-targets=a", "seed=1", "--allow-targets", "b.c"], ["seed=1", "+allow_targets=[a,b.c]"]),
        (["run", "+allow_targets=[a]"], ["run", "+allow_targets=[a]"]),
        (["run"], ["run"]),
    ],
)
def test_as_a_setting(command: str, typed: list[str], read: list[str]) -> None:
    """Bug: the flag of the other commands is refused, or only the last of several counts."""
    assert unified(command, typed) == read


@pytest.mark.parametrize("command", ["eval", "generate", "chat", "inspect", "rate", "export", "report"])
@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["run", "+allow_targets=[a,b.c]"], ["run", "--allow-targets", "a", "--allow-targets", "b.c"]),
        (["+allow_targets=a", "run"], ["--allow-targets", "a", "run"]),
        (["run", "--prompt", "allow_targets=a"], ["run", "--prompt", "allow_targets=a"]),
        (["run", "--allow-targets", "a"], ["run", "--allow-targets", "a"]),
    ],
)
def test_as_a_flag(command: str, typed: list[str], read: list[str]) -> None:
    """Bug: the setting of train is refused as an unrecognized argument."""
    assert unified(command, typed) == read


def test_other_commands_read_their_own_words() -> None:
    assert unified("report", ["a", "--allow-targets", "b"]) == ["a", "--allow-targets", "b"]


def test_a_printed_permission_can_be_typed(tmp_path: Path) -> None:
    """Bug: a path with brackets, commas or quotes in the proposed command is no word of Hydra's grammar."""
    names = ["a.b", str(tmp_path / "it's (1), new/my.py")]
    permissions.forget_permissions()
    permissions.permit_targets(names)
    words = shlex.split(permissions.resume_command(tmp_path / "a run", "trainer.rollouts=4"))
    assert words[:4] == ["dqnlm", "resume", str(tmp_path / "a run"), "trainer.rollouts=4"]
    assert sorted(parse_overrides(words[4:])[0].value()) == sorted(names)
    permissions.forget_permissions()
