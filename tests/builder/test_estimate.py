"""`dqnlm train ... --estimate`: what is said before anything is loaded is what the run has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("peft", reason="LoRA needs peft")

from dqnlm import cli
from tests.helpers import pretrained as models


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("rank", ["null", "2", "0 network.train_output_layer=true", "0 algorithm=q_sharp"])
def test_parameters_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, rank: str
) -> None:
    """Bug: a tied matrix counted twice, adapters of the wrong layers, outputs left out, or counted as one
    number an action where a distribution has many. Oracle: the network that is built."""
    from dqnlm.builder import launch
    from dqnlm.config import composition, validation
    from dqnlm.runs.directory import RunDirectory
    monkeypatch.chdir(tmp_path)
    model = models.write(tmp_path / "model", kind, alphabet="abcdefghijklmnopqrstuvwxyz0123456789 \n.,")
    log, rows = tmp_path / "log.jsonl", [{"prompt": f"{a}b", "completion": "cd", "reward": i % 2} for i, a in enumerate("abcdef")]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "+experiment=logged_pretrained", f"data.path={log}", f"network.name_or_path={model}", "network.context=11", "device=cpu",
        *f"network.lora_rank={rank}".split(), "projection.rank=3", "progress=false", "logger=none", "threads=1",
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


def test_a_trunk_that_does_not_change_costs_its_forward_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the time and memory of a backward pass that is not made. By hand: 1 pass of the trunk in the place of 2, and the
    numbers of one layer of two."""
    from dqnlm.builder import estimate as module
    from dqnlm.config import composition, validation

    monkeypatch.setattr(module, "_rate", lambda *shape: 1e9)
    model = models.write(tmp_path / "model", "llama")
    found = {}
    for rank in (0, 2):
        words = ["+experiment=logged_pretrained", f"network.name_or_path={model}", "network.context=11"]
        words.append(f"network.lora_rank={rank}")
        config = validation.validate(*composition.compose(words), words)
        found[rank] = module.estimate(config, ("q2", "v", "policy"), 1, False, torch.device("cpu"))
    assert found[2].bytes_of["activations of an update"] == 2 * found[0].bytes_of["activations of an update"]
    trunk = sum(p.numel() for name, p in models.body(model).model.named_parameters() if "embed" not in name)
    assert found[2].update_s - found[0].update_s == pytest.approx(16 * 11 * trunk * 2 / 1e9 / module.SHARE_OF_PRODUCTS)


def test_what_it_cannot_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    """One message each."""
    assert cli.main(["train", "+experiment=cartpole", "--estimate"]) == 2
    assert "--estimate is of network=pretrained" in capsys.readouterr().err
    assert cli.main(["train", "-m", "seed=0,1", "--estimate"]) == 2
    assert "leave out -m" in capsys.readouterr().err
