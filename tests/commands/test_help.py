"""Every command's help ends with examples, and these work as they stand there."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import dqnlm.builder.launch
from dqnlm import cli
from dqnlm.config.run_config import load_run_config
from tests.helpers import runs as tools

# What is not run here: beginning of an example, and the reason.
NOT_RUN = {
    "dqnlm chat latest --secret": "of a run of Wordle: test_chat.py",
    "dqnlm export ": "of a run on a pretrained model: test_export.py",
    "dqnlm push ": "needs the network",
    "dqnlm compare ": "composed in test_compare.py",
    "dqnlm bench": "takes minutes: test_bench.py",
}
VERSES = ["ROMEO: To be, or not to be\n", "JULIET: What's in a name?\n", "house and heath, quoth he, in vain!\n"]


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    try:
        assert cli.main([command, "--help"]) == 0
    except SystemExit as stop:
        assert stop.code == 0
    return capsys.readouterr().out


def examples_in(text: str) -> list[str]:
    found = [re.split(r" {2,}", line.strip())[0] for line in text.splitlines() if re.match(r"  (dqnlm|echo) ", line)]
    return [line.split("  #")[0] for line in found]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `outputs/` of a small run on verses, and a play to be read."""
    folder = tmp_path_factory.mktemp("help")
    (folder / "play.txt").write_text("".join(VERSES) * 120)
    (folder / "my.yaml").write_text("# @package _global_\n# my: a file of the user's\ngamma: 0.5\n")
    tools.start(folder / "outputs" / "2026-01-01" / "10-00-00", folder / "play.txt")
    return folder


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_examples_work_as_typed(
    command: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a command without an example; one with a flag, a setting or an option that is no more, or that asks for more."""
    monkeypatch.chdir(trained)
    resumed: list[Path] = []

    def resume(directory: Path, overrides: list[str], reshard: bool = False) -> dict[str, Any]:
        load_run_config(directory / "config.yaml", overrides)
        resumed.append(directory)
        return {"status": "finished"}

    monkeypatch.setattr(dqnlm.builder.launch, "resume", resume)
    found = examples_in(help_of(command, capsys))
    assert found, f"dqnlm {command} --help shows no example"
    for example in found:
        if any(example.startswith(beginning) for beginning in NOT_RUN):
            continue
        said, _, line = example.rpartition(" | ")
        typed = shlex.split(said)[-1] + "\n" if said else "q\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        words = shlex.split(line, comments=True)
        assert words[:2] == ["dqnlm", command], example
        further = []
        if command == "train":  # composed and checked, not trained; of a sweep the first job
            further = ["--cfg", "job"]
            words = [re.sub(r"=([^,]+),.*", r"=\1", word) for word in words if word != "-m"]
        assert cli.main([*words[1:], *further]) == 0, f"{example}\n{capsys.readouterr().err}"
    assert bool(resumed) == (command == "resume")


def test_texts_are_wrapped_and_examples_are_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: an example is broken where the terminal is narrow, so that half of it is copied; or the text before it is not."""
    monkeypatch.setenv("COLUMNS", "50")
    lines = help_of("rate", capsys).splitlines()
    assert "  dqnlm rate latest" in lines and any(line.startswith("keys: ") for line in lines)
    assert max(len(line) for line in help_of("generate", capsys).splitlines() if not line.startswith("  ")) <= 50
    assert "  dqnlm generate latest --prompt 'ROMEO:' --max-tokens 500" in help_of("generate", capsys).splitlines()
