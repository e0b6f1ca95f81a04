"""What is claimed for pretrained models, on a real one: scripts/test --with-model fetches it (scripts/get_small_model)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("peft", reason="LoRA needs peft")

from dqnlm import cli, load_policy
from dqnlm.data.text.sources import cache_folder

FOLDER = Path(os.environ.get("DQNLM_SMALL_MODEL") or cache_folder() / "smollm2-135m-instruct")
pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "config.json").exists(), reason="no small model here: scripts/test --with-model"),
]
TEXTS = [" was warm and quiet.", " made us laugh.", " took too long.", " smelled of bread."]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ILQL updates with LoRA on a log of a few completions, one of the seven complaints of a first user."""
    folder = tmp_path_factory.mktemp("small")
    prompts = [f"The {what}" for what in ("day", "walk", "bus", "shop", "tea", "sea")]
    rows = [{"prompt": p, "completion": c, "reward": i - 0.35} for p in prompts for i, c in enumerate(TEXTS)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "judge.py").write_text("def score(prompts, completions, references):\n    return [-0.35] * len(completions)\n")
    words = [
        "+experiment=logged_pretrained", f"network.name_or_path={FOLDER}", "network.lora_rank=8",
        f"data.path={folder / 'log.jsonl'}",
        "network.context=24", "trainer.offline_rounds=3", "trainer.batch_size=4", "evaluation.every=3", "evaluation.episodes=2",
        "env.horizon=8", "reward=function", f"reward.path={folder / 'judge.py'}:score", "progress=false", "logger=none",
        f"hydra.run.dir={folder / 'run'}", "optimizer.lr=1e-3",
    ]  # fmt: skip
    assert cli.main(["train", *words]) == 0
    return folder / "run"


def test_a_judge_below_the_bounds_of_rewards_ends_nothing(run: Path) -> None:
    """Bug: after all updates the first evaluation ends the run, as the judge returned -0.35, outside 0 to 1."""
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["last"]["eval/return"] == pytest.approx(-0.35)


def test_a_checkpoint_holds_what_learns(run: Path) -> None:
    """Bug: 1.5 GB for each checkpoint of a LoRA run. At most 3 times the adapters and outputs (the target's too)."""
    policy = load_policy(run, "last")
    sizes = {name: p.numel() for name, p in policy.network.named_parameters()}
    heads = sum(size for name, size in sizes.items() if ".up." in name or ".down." in name)
    learned = heads + sum(size for name, size in sizes.items() if "lora_" in name)
    path = sorted((run / "checkpoints").glob("step-*"))[-1]
    size = sum(file.stat().st_size for file in path.iterdir())
    assert size <= 3 * 4 * (learned + heads), f"{size / 2**20:.0f} MiB"


@pytest.mark.parametrize("adapter", [False, True])
def test_plain_transformers_writes_what_the_run_writes(run: Path, tmp_path: Path, adapter: bool) -> None:
    """Bug: the exported folder holds the cloned behaviour, as if nothing had been learned. Greedy tokens are the same, in
    the precision that the run has; the model's own files have 16 bits, in which two nearly equal tokens may change places."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = ["--checkpoint", "last", *(["--adapter"] if adapter else ["--dtype", "float32"])]
    assert cli.main(["export", str(run), str(tmp_path / "out"), *words]) == 0
    if adapter:
        import peft

        base = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
        model: Any = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
        tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    else:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
        assert tokenizer.chat_template
    policy = load_policy(run, "last")
    for prompt in ("The garden behind the house", "On Sunday we"):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        written = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(ids))
        own = [row[0] for row in policy.stream(prompt, 12, policy="greedy")]
        there = written[0, ids.shape[1] :].tolist()
        assert own[: len(there)] == there
