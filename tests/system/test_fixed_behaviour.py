"""ILQL beside a pretrained model that does not change: it is pi_b itself, and only Q and V learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("tokenizers", reason="network=pretrained needs tokenizers")

from dqnlm import cli, load_policy
from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from tests.helpers import pretrained as models

TYPED = [
    "+experiment=logged_pretrained", "objective=[td,expectile_value]", "~objective.conservative", "~objective.cross_entropy",
    "network.lora_rank=0", "network.context=8", "data.reward_scaling=none", "projection.rank=4", "policy.beta=4",
    "evaluation.betas=[0.0]", "device=cpu", "threads=1", "logger=none", "progress=false", "trainer.offline_rounds=150",
    "trainer.batch_size=16", "trainer.log_every=50", "evaluation.every=150", "optimizer.lr=0.03", "optimizer.weight_decay=0",
    "trainer.preflight=false",
]  # fmt: skip


def settings(folder: Path, *more: str) -> dict[str, Any]:
    """The answer a is paid 1, b is paid 0, to each of five prompts."""
    models.write(folder / "model")
    rows = [{"prompt": prompt, "completion": said, "reward": said == "a"} for prompt in (*"defg", "gd") for said in "ab"]
    for name, kept in (("log", rows[:8]), ("heldout", rows[8:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row | {"reward": float(row["reward"])}) + "\n" for row in kept))
    typed = [
        *TYPED, f"network.name_or_path={folder / 'model'}", f"data.path={folder / 'log.jsonl'}",
        f"data.heldout_path={folder / 'heldout.jsonl'}", *more,
    ]  # fmt: skip
    composed, choices = composition.compose(typed)
    return validation.validate(composed, choices, typed)


def test_it_acts_by_the_model_reweighted_and_is_exported_so(tmp_path: Path) -> None:
    """Bug: another pi_b than the model, or one that learned; an export that leaves Q out. Oracles: the model's own logits, and
    by hand odds of a against b of those of the model times e^(beta (1 - 0))."""
    from transformers import AutoModelForCausalLM

    run = tmp_path / "run"
    run.mkdir()
    launch.start(settings(tmp_path), run, choices={}, command_line=["dqnlm", "train"])
    policy = load_policy(run, "last")
    a, b = policy.tokenizer.encode_strict("ab").tolist()
    rows = policy.tokenizer.encode_strict("defg").long()[:, None]
    ids = policy.network.get_buffer("encoder.model_id_A")
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--checkpoint", "last"]) == 0
    with torch.no_grad():
        output = policy.network(rows)
        own_SA = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(ids[rows]).logits[:, 0, ids].log_softmax(-1)
        written_SA = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids[rows]).logits[:, 0, ids]
        acted_SA = policy.logits(output, "reweighted", None)[:, 0].log_softmax(-1)
    torch.testing.assert_close(output["policy"][:, 0, :, 0].log_softmax(-1), own_SA, rtol=1e-4, atol=1e-4)
    change_S = (acted_SA - own_SA)[:, a] - (acted_SA - own_SA)[:, b]
    torch.testing.assert_close(change_S, torch.full((4,), 4.0), rtol=0, atol=0.4)
    legal_A = acted_SA.isfinite().all(0)
    assert legal_A.sum() == len(legal_A) - 1  # one token of the model has no meaning here
    torch.testing.assert_close(written_SA[:, legal_A].log_softmax(-1), acted_SA[:, legal_A], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("word", ["network.lora_rank=null", "network.train_output_layer=true"])
def test_a_policy_that_changes_must_be_cloned(tmp_path: Path, word: str) -> None:
    """Bug: without cross-entropy, pi_b goes wherever the loss of Q takes the weights that it shares."""
    with pytest.raises(UserError, match=r"needs a cloned pi_b.*network\.lora_rank=0"):
        launch.build(settings(tmp_path, word), RunDirectory(tmp_path))
