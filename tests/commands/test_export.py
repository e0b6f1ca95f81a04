"""`dqnlm export`: what transformers makes of the folder is what the run computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("safetensors", reason="the value heads are written as safetensors")

from dqnlm import load_policy
from dqnlm.commands import export, export_card
from dqnlm.errors import UserError
from tests.helpers import pretrained as models
from tests.networks.test_pretrained import KINDS, lora, run_walks, walks_settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some updates by LoRA, on one trunk for all outputs."""
    pytest.importorskip("peft", reason="LoRA needs peft")
    folder = tmp_path_factory.mktemp("export")
    settings = walks_settings(folder, "network.lora_rank=2", "optimizer.lr=0.05", "optimizer.warmup_updates=0")
    return run_walks(folder / "run", settings)


def test_transformers_computes_what_the_run_did(run: Path, tmp_path: Path) -> None:
    """Bug: adapters that are left out, an output layer tied back to the embedding, or ids in another order."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert export.main([str(run), str(tmp_path / "out"), "--checkpoint", "last", "--behaviour"]) == 0
    policy = load_policy(run, "last")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    walks = ["bcdef", "gkaua", "lmnoa"]
    ids = tokenizer(walks, return_tensors="pt", add_special_tokens=False).input_ids
    observation = torch.stack([policy.tokenizer.encode_strict(walk).long() for walk in walks])
    with torch.no_grad():
        output, result = policy.network(observation), model(ids, output_hidden_states=True)
    heads = load_file(tmp_path / "out" / export.HEADS)
    columns = heads["model_id_A"]
    assert columns.tolist() == tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstu"))
    torch.testing.assert_close(result.logits[..., columns], output["policy"].squeeze(-1), rtol=1e-5, atol=1e-5)
    assert output["policy"].std() > 1e-2  # something was learned
    # The card's formula for Q, with h as other programs see it.
    h = result.hidden_states[-1]
    for name in ("q", "q2", "v"):
        raw = h @ heads[f"{name}.linear.weight"].T + heads.get(f"{name}.linear.bias", torch.zeros(1))
        torch.testing.assert_close(raw, output[name].squeeze(-1), rtol=1e-5, atol=1e-5)


def test_the_card_says_what_the_run_was(run: Path, tmp_path: Path) -> None:
    """Bug: a card with another run's figures, or one that names this machine's folders."""
    export.main([str(run), str(tmp_path / "out")])
    text = (tmp_path / "out" / export.CARD).read_text()
    best = json.loads((run / "summary.json").read_text())["best"]
    assert f"| eval/return | {best['eval/return']:.4g} |" in text and "walks.jsonl" in text and "beta = 32" in text
    assert "LoRA of rank 2" in text and str(tmp_path) not in text and str(run.parent) not in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "config.json", "generation_config.json", "heads.safetensors", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip


@KINDS
@pytest.mark.parametrize("adapted", [False, True])
def test_every_architecture_keeps_its_logits(tmp_path: Path, kind: str, adapted: bool) -> None:
    """Bug: trunk weights by the wrong names. Tokens that the run never uses keep the output layer that came."""
    from transformers import AutoModelForCausalLM

    folder = models.write(tmp_path / "model", kind)
    before = AutoModelForCausalLM.from_pretrained(folder).get_output_embeddings().weight.detach().clone()
    network = models.network(folder, **(lora(kind) if adapted else {}))
    exported = network.body.to_transformers(network.projections["policy"].linear.weight, None)  # type: ignore[operator]
    exported.save_pretrained(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    observation = models.tokens(3, 7)
    ids = network.get_buffer("encoder.model_id_A")
    with torch.no_grad():
        logits = loaded(network.encoder(observation)).logits
        torch.testing.assert_close(logits[..., ids], network(observation)["policy"].squeeze(-1), rtol=1e-4, atol=1e-4)
    assert loaded.get_output_embeddings().weight[:2].equal(before[:2])  # <unk> and <end>


def test_a_folder_that_holds_something_is_left_alone(run: Path, tmp_path: Path) -> None:
    """Bug: an export over somebody's files; or a half-written folder where the export failed."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("text")
    with pytest.raises(UserError, match="holds something"):
        export.main([str(run), str(tmp_path / "mine")])
    (tmp_path / "empty").mkdir()
    assert export.main([str(run), str(tmp_path / "empty")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_a_failed_export_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a folder without its card, which looks whole."""

    def fail(*_: Any) -> str:
        raise RuntimeError("full")

    monkeypatch.setattr(export_card, "card", fail)
    with pytest.raises(RuntimeError):
        export.main([str(run), str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_networks_of_our_own_are_refused(tmp_path: Path) -> None:
    """Bug: a folder that transformers cannot read."""
    small = ["network=transformer", "network.layers=1", "network.width=16"]
    folder = run_walks(tmp_path / "run", walks_settings(tmp_path, *small, own_network=True))
    with pytest.raises(UserError, match=r"network=transformer.*load_policy"):
        export.main([str(folder), str(tmp_path / "out")])


def test_push_without_a_token_and_without_the_hub(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a traceback of the client, or an upload of a folder that lacks its card. The client here keeps what it is given."""
    import huggingface_hub

    from dqnlm.commands import push

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="needs a token"):
        push.main([str(run), "me/model"])
    with pytest.raises(UserError, match="OWNER/NAME is 'model'"):
        push.main([str(run), "model"])
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    seen: dict[str, Any] = {}

    class Client:
        endpoint = "hub"

        def __init__(self, token: str) -> None:
            seen["token"] = token

        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            seen["private"] = private

        def upload_folder(self, folder_path: Path, repo_id: str, commit_message: str) -> None:
            seen["files"] = sorted(path.name for path in folder_path.iterdir())

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    assert push.main([str(run), "me/model", "--private", "--behaviour"]) == 0
    assert seen["token"] == "secret" and seen["private"] and {"README.md", "model.safetensors"} <= set(seen["files"])
    assert "pushed to hub/me/model" in capsys.readouterr().out

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(Client, "create_repo", refuse)
    with pytest.raises(UserError, match="did not take me/model: no route"):
        push.main([str(run), "me/model", "--behaviour"])


def test_another_beta(run: Path, tmp_path: Path) -> None:
    """Bug: an option that nothing reads. beta 0 is the cloned behaviour."""
    from safetensors.torch import load_file

    weights = []
    for name, words in (("b", ["--behaviour"]), ("0", ["--beta", "0"]), ("1", ["--beta", "1"])):
        assert export.main([str(run), str(tmp_path / name), *words]) == 0
        weights.append(load_file(tmp_path / name / "model.safetensors")["lm_head.weight"])
    torch.testing.assert_close(weights[0], weights[1])
    assert (weights[2] - weights[0]).abs().max() > 1e-4
    with pytest.raises(UserError, match="--beta must be at least 0"):
        export.main([str(run), str(tmp_path / "x"), "--beta", "-1"])
