"""+experiment=prompts from end to end: learns from its own completions, is resumed, writes, and is exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm import load_policy
from dqnlm.builder import launch
from dqnlm.commands import export
from dqnlm.config import composition, validation
from dqnlm.errors import UserError
from dqnlm.utils import user_code
from tests.helpers import runs as tools

TYPED = [
    "+experiment=prompts", "device=cpu", "threads=1", "logger=none", "progress=false", "env.horizon=6", "env.num_envs=16",
    "env.samples_per_prompt=4", "trainer.batch_size=16", "evaluation.episodes=16", "evaluation.samples=1",
    "trainer.log_every=10", "optimizer.warmup_updates=2",
]  # fmt: skip
SCORE = """
def score(prompts, completions, wanted, **columns):
    return [sum(c == w for c in text) / 6 for text, w in zip(completions, wanted)]
"""


def settings(folder: Path, *more: str, wanted: str | None = None) -> dict[str, Any]:
    """Thirty-six prompts, whose column `wanted` is the letter that is paid: the prompt's own first one, or the same for all."""
    file, data = folder / "score.py", folder / "prompts.jsonl"
    file.write_text(SCORE)
    user_code._run.cache_clear()
    texts = [f"{letter}{a}{b}" for letter in "abcd" for a in "abc" for b in "bcd"]
    rows = [{"prompt": text, "wanted": wanted or text[0]} for text in sorted(texts, key=hash_of)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dropped = {word.split("=")[0] for word in more}
    typed = [word for word in TYPED if word.split("=")[0] not in dropped]
    typed += [f"data.path={data}", f"reward.path={file}:score", f"+allow_targets=[{file}]", *more]
    composed, choices = composition.compose(typed)
    return validation.validate(composed, choices, typed)


def hash_of(text: str) -> int:
    """An order of the prompts that mixes the letters."""
    return sum(ord(letter) * 7**place for place, letter in enumerate(text)) % 101


OWN_NETWORK = [
    "network=transformer", "projection=linear", "~network.lora_rank", "~network.q_init", "~network.q_temperature",
    "network.dropout=0.0", "network.layers=1", "network.width=32", "network.heads=2", "network.context=12",
]  # fmt: skip
LEARNING = [
    "trainer.rollouts=400", "evaluation.every=400", "optimizer.lr=2e-3", "reward.scale=60", "env.num_envs=32",
    "trainer.batch_size=32",
]  # fmt: skip


def run(folder: Path, checked: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir(parents=True)
    return launch.start(checked, folder, choices={}, command_line=["dqnlm", "train"])


@pytest.mark.slow
def test_it_learns_what_the_reward_asks_on_prompts_it_has_not_seen(tmp_path: Path) -> None:
    """Bug: rewards of another prompt's column, a group's baseline over several prompts, older completions counted as new.

    The letter that is paid depends on the prompt. Untrained completions earn about .2 of 1; with the seeds 0 to 7 the run earned
    1.0 each time (sampled, held-out prompts): no false alarm in eight at .9 (below 32 % with 95 % confidence by count alone),
    and none near it.
    """
    last = run(tmp_path / "run", settings(tmp_path, *OWN_NETWORK, *LEARNING))["last"]
    assert last["eval/return"] / 60 >= 0.9, last
    assert last["policy/log_ratio"] > 0 and last["eval/length"] >= 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft", reason="LoRA needs peft")
    from tests.helpers import pretrained as models

    return models.write(tmp_path_factory.mktemp("model") / "model", "llama", alphabet="abcd")


def pretrained(folder: Path, model: Path, *more: str) -> dict[str, Any]:
    words = [f"network.name_or_path={model}", "network.context=10", "network.lora_rank=2", "projection=low_rank"]
    words.append("projection.rank=3")
    return settings(folder, *words, "trainer.rollouts=4", "evaluation.every=2", "checkpoint.every=1", "optimizer.lr=0.05", *more)


def test_a_pretrained_model_starts_as_it_was_and_is_exported_as_it_acts(tmp_path: Path, model: Path) -> None:
    """Bug: the first policy is not the model; the export is not the policy. Oracle: transformers on the same texts."""
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(model)
    start = run(tmp_path / "start", pretrained(tmp_path, model, "trainer.rollouts=1", "optimizer.lr=1e-12"))
    assert abs(start["last"].get("policy/log_ratio", 0.0)) < 1e-4
    run(tmp_path / "run", pretrained(tmp_path, model))
    ids = torch.randint(2, 6, (4, 8), generator=torch.Generator().manual_seed(0))
    for folder, other in ((tmp_path / "start", before), (tmp_path / "run", None)):
        assert export.main([str(folder), str(folder / "out"), "--checkpoint", "last"]) == 0
        policy = load_policy(folder, "last")
        assert policy.legal_A is not None  # the unknown token is never chosen
        expected = policy.logits(policy.network(ids), "boltzmann", None)[..., policy.legal_A].log_softmax(-1)
        found = AutoModelForCausalLM.from_pretrained(folder / "out")(ids).logits[..., policy.legal_A].log_softmax(-1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        if other is not None:
            torch.testing.assert_close(found, other(ids).logits[..., policy.legal_A].log_softmax(-1), rtol=1e-3, atol=1e-4)
        else:
            assert (found - before(ids).logits[..., policy.legal_A].log_softmax(-1)).abs().max() > 0.01
    assert policy.default == "boltzmann" and len(policy.generate("ab", 5, n=2)) == 2


def replay(folder: Path, model: Path, *more: str) -> dict[str, Any]:
    """`+experiment=prompts_replay`: Q and V on the features of a model that does not change; the letter a is paid."""
    words = [
        "+experiment=prompts_replay", f"network.name_or_path={model}", "network.context=10", "projection.rank=4",
        "trainer.rollouts=4", "evaluation.every=2", "checkpoint.every=1",
    ]  # fmt: skip
    return settings(folder, *words, *more, wanted="a")


def test_values_beside_a_fixed_model_learn_with_replay(tmp_path: Path, model: Path) -> None:
    """Bug: a reward at the end that reaches no earlier token, completions that are learned from once, a policy that is not the
    exported one, a divergence that is not 0 at the start.

    Untrained completions earn about .25 of 1. With the seeds 0 to 7 the run earned .93, .98, 1, .39, .98, 1, 1, 1: no false
    alarm in eight at .35 (below 32 % with 95 % confidence by count alone), one of them near it.
    """
    from transformers import AutoModelForCausalLM

    start = run(tmp_path / "start", replay(tmp_path, model, "trainer.rollouts=1", "optimizer.lr=1e-12"))
    assert start["last"]["eval/kl"] == pytest.approx(0, abs=1e-5)
    words = ["trainer.rollouts=30", "evaluation.every=30", "checkpoint.every=null", "reward.scale=4", "policy.beta=4"]
    last = run(tmp_path / "run", replay(tmp_path, model, *words, "optimizer.lr=1e-2"))["last"]
    assert last["eval/return"] / 4 >= 0.35 and last["eval/kl"] > 0.1, last
    assert export.main([str(tmp_path / "run"), str(tmp_path / "out"), "--checkpoint", "last"]) == 0
    policy, ids = load_policy(tmp_path / "run", "last"), torch.randint(2, 6, (4, 8), generator=torch.Generator().manual_seed(0))
    expected = policy.logits(policy.network(ids), "reweighted", None)[..., policy.legal_A].log_softmax(-1)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits[..., policy.legal_A].log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [pretrained, replay])
def test_killed_and_resumed_ends_as_if_never_stopped(
    make: Callable[[Path, Path], dict[str, Any]], tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: prompts drawn anew, groups or older completions forgotten, the target's outputs new, adapters on other weights."""
    checked = make(tmp_path, model)
    reference = run(tmp_path / "whole", checked) and tmp_path / "whole"
    with monkeypatch.context() as patched:
        tools.at_rollout(patched, 3, tools.kill)
        with pytest.raises(tools.Killed):
            run(tmp_path / "killed", checked)
    launch.resume(tmp_path / "killed", [f"+allow_targets=[{tmp_path / 'score.py'}]"])
    tools.assert_same_run(tmp_path / "killed", reference)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretraining.updates=2"], "not every prompt has a `reference`"),
        (["trainer.batch_size=6"], r"whole groups .*trainer\.batch_size=4|trainer\.batch_size=8"),
        (["network.context=7"], r"network\.context=8"),
        (["env.samples_per_prompt=1"], r"env\.samples_per_prompt=4 or so"),
        (["data.heldout_fraction=2"], "in \\(0, 1\\)"),
        (["policy.temperature=0"], r"policy\.temperature"),
    ],
)
def test_refusals(tmp_path: Path, words: list[str], message: str) -> None:
    """One message each, before anything is trained."""
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", settings(tmp_path, *OWN_NETWORK, "trainer.rollouts=1", *words))
