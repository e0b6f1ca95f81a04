"""Folders of pretrained models that are damaged or of a kind that cannot be: each is named as what it is, before a run begins."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("safetensors", reason="weights are safetensors")

from dqnlm.errors import UserError
from dqnlm.rewards import pretrained as rewards
from dqnlm.utils.weight_files import problem_of
from tests.helpers import pretrained as models

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def _write(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer": (lambda path: path.write_text(LFS), "Git LFS.*git lfs pull"),
    "cut in its numbers": (lambda path: path.write_bytes(path.read_bytes()[:-40]), r"was cut off: it has [\d,]+ bytes.*again"),
    "cut in its header": (lambda path: path.write_bytes(path.read_bytes()[:60]), "was cut off|is damaged"),
    "cut after 5 bytes": (lambda path: path.write_bytes(path.read_bytes()[:5]), "no safetensors file"),
    "empty": (_write(b""), "is empty"),
    "noise": (_write(bytes(range(255, 0, -1))), "no safetensors file"),
    "a web page": (_write(b"<!DOCTYPE html><html><body>Not found</body></html>"), "no safetensors file"),
    "another header": (_write(struct.pack("<Q", 4) + b"[12]" + bytes(90)), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_of_weights_is_named_as_what_it_is(tmp_path: Path, name: str) -> None:
    """Bug: a SafetensorError with a traceback, or an error that blames the architecture."""
    damage, message = DAMAGES[name]
    folder = models.write(tmp_path / "model")
    assert problem_of(folder / "model.safetensors") is None
    damage(folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"network\.name_or_path=.*model\.safetensors.*({message})"):
        models.body(folder)
    with pytest.raises(UserError, match=rf"reward\.name_or_path=.*({message})"):
        rewards.loaded(str(folder), "cpu", "AutoModelForCausalLM", "causal_model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    """Bug: the probe of one NaN weight says that the architecture cannot act token by token."""
    from safetensors.torch import load_file, save_file

    path = models.write(tmp_path / "model", "llama") / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "mlp" in name)
    weights[name].view(-1)[3] = value
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=rf"1 of its weights hold numbers that are not finite.*{name}"):
        models.body(path.parent)


@pytest.mark.parametrize(("key", "value"), [("final_logit_softcapping", 30.0), ("logits_scaling", 8.0), ("logit_scale", 0.25)])
def test_logits_that_the_configuration_changes_are_refused(tmp_path: Path, key: str, value: float) -> None:
    """Bug: small logits at the start pass a probe, and what is exported differs from what was trained."""
    folder = models.write(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=f"changes them afterwards.*{key}={value}"):
        models.body(folder)
    (folder / "config.json").write_text(json.dumps(config | {key: None}))
    assert torch.equal(models.body(folder)._model_id_A, models.body(models.write(tmp_path / "b", "llama"))._model_id_A)


def test_added_tokens_without_embeddings_are_named() -> None:
    """Bug: the message says that tokenizer and model are of two folders, which they are not."""
    from dqnlm.networks.pretrained_checks import model_ids

    text = json.dumps({"model": {"vocab": {"a": 0}}})
    recipe = {"files": {"tokenizer.json": text}}
    with pytest.raises(UserError, match=r"the tokenizer has 354 tokens.*embeds 349.*resize_token_embeddings"):
        model_ids(354, {"kind": "pretrained", "json": text}, recipe, 349)
    assert len(model_ids(349, {"kind": "pretrained", "json": text}, recipe, 354)) == 349
