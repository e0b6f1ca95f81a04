"""`dqnlm train ... --estimate`: what is said before anything is loaded is what the run has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("peft", reason="LoRA needs peft")

from dqnlm import cli
from tests.helpers import pretrained as models


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("whole", [False, True])
def test_parameters_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, whole: bool
) -> None:
    """Bug: a tied matrix counted twice, adapters of the wrong layers, outputs left out. Oracle: the network that is built."""
    from dqnlm.builder import launch
    from dqnlm.config import composition, validation
    from dqnlm.runs.directory import RunDirectory
    monkeypatch.chdir(tmp_path)
    model = models.write(tmp_path / "model", kind, alphabet="abcdefghijklmnopqrstuvwxyz0123456789 \n.,")
    log, rows = tmp_path / "log.jsonl", [{"prompt": f"{a}b", "completion": "cd", "reward": i % 2} for i, a in enumerate("abcdef")]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "+experiment=logged_pretrained", f"data.path={log}", f"network.name_or_path={model}", "network.context=11", "device=cpu",
        f"network.lora_rank={'null' if whole else 2}", "projection.rank=3", "progress=false", "logger=none", "threads=1",
    ]  # fmt: skip
    assert cli.main(["train", *words, "--estimate"]) == 0
    said = re.search(r"([\d,]+) parameters, ([\d,]+) of them learn", capsys.readouterr().out)
    assert said is not None
    composed, choices = composition.compose(words)
    network = launch.build(validation.validate(composed, choices, words), RunDirectory(tmp_path)).components.policy.network
    every = {id(p): p for p in network.parameters()}.values()
    assert [int(number.replace(",", "")) for number in said.groups()] == [
        sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)
    ]  # fmt: skip


def test_what_it_cannot_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    """One message each."""
    assert cli.main(["train", "+experiment=cartpole", "--estimate"]) == 2
    assert "--estimate is of network=pretrained" in capsys.readouterr().err
    assert cli.main(["train", "-m", "seed=0,1", "--estimate"]) == 2
    assert "leave out -m" in capsys.readouterr().err
