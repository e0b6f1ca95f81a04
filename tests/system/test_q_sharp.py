"""algorithm=q_sharp from the command line to the export: it learns pi_ref exp(Q / eta), and pi_ref stays as it was."""

from __future__ import annotations

import json
import math
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
from dqnlm.runs import checkpoint
from dqnlm.runs.directory import RunDirectory
from tests.helpers import pretrained as models
from tests.helpers import runs as tools

ETA = 0.25
TYPED = [
    "+experiment=logged_pretrained", "algorithm=q_sharp", "network.lora_rank=0", "network.context=8", "projection=linear",
    "data.reward_scaling=none", "head.num_atoms=5", f"head.temperature={ETA}", "policy.beta=4", "device=cpu", "threads=1",
    "logger=none", "progress=false", "trainer.offline_rounds=300", "trainer.batch_size=32", "trainer.log_every=100",
    "evaluation.every=300", "optimizer.lr=0.05", "optimizer.weight_decay=0", "optimizer.final_fraction=0.01",
    "trainer.preflight=false",
]  # fmt: skip


def settings(folder: Path, *more: str) -> dict[str, Any]:
    """Four prompts; the answer a is paid 1/2 each time, b is paid 0 or 1: the same mean."""
    if not (folder / "model").exists():
        models.write(folder / "model")
        rows = [
            {"prompt": prompt, "completion": said, "reward": reward}
            for prompt in (*"defg", "gd") for said, reward in (("a", 0.5), ("a", 0.5), ("b", 0), ("b", 1))
        ]  # fmt: skip
        for name, kept in (("log", rows[:16]), ("heldout", rows[16:])):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    typed = [
        *TYPED, f"network.name_or_path={folder / 'model'}", f"data.path={folder / 'log.jsonl'}",
        f"data.heldout_path={folder / 'heldout.jsonl'}", *more,
    ]  # fmt: skip
    composed, choices = composition.compose(typed)
    return validation.validate(composed, choices, typed)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("q_sharp")
    (folder / "run").mkdir()
    launch.start(settings(folder), folder / "run", choices={}, command_line=["dqnlm", "train"])
    return folder / "run"


def test_the_greater_spread_is_preferred_by_as_much_as_the_soft_values_say(run: Path) -> None:
    """Bug: Q is the mean, which is the same for both; beta is not 1 / eta; a reference that moved. By hand, with eta 1/4: Q(a) =
    1/2, and Q(b) = log((1 + e^4) / 2) / 4 = 0.831, so the odds of b against a are those of the model times e^1.325 = 3.76.

    In eight runs with the seeds 0 to 7 no Q(b) was more than 0.031 from its value, and no Q(a) more than 0.0005.
    """
    from transformers import AutoModelForCausalLM

    policy = load_policy(run, "last")
    observation = policy.tokenizer.encode_strict("defg").long()[:, None]
    a, b = policy.tokenizer.encode_strict("ab").tolist()
    with torch.no_grad():
        output = policy.network(observation)
        q_SA, p_SA = policy.head.value(output["q"])[:, 0], policy.logits(output, "reweighted", None)[:, 0].softmax(-1)
        ids = policy.network.get_buffer("encoder.model_id_A")
        own_SA = AutoModelForCausalLM.from_pretrained(run.parent / "model")(ids[observation]).logits[:, 0, ids].softmax(-1)
    soft = math.log((1 + math.exp(4)) / 2) / 4
    torch.testing.assert_close(q_SA[:, a], torch.full((4,), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(q_SA[:, b], torch.full((4,), soft), atol=0.06, rtol=0)
    exact_S = own_SA[:, b] / own_SA[:, a] * math.exp((soft - 0.5) / ETA)
    torch.testing.assert_close(p_SA[:, b] / p_SA[:, a], exact_S, atol=0, rtol=0.3)
    mean_b = float((policy.head.atoms(output["q"][:, 0, b])[1] * torch.linspace(0, 1, 5)).sum(-1).mean())  # type: ignore[attr-defined,operator]
    assert mean_b == pytest.approx(0.5, abs=0.06)


def test_a_run_keeps_its_outputs_alone_and_is_exported_as_the_reference(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: a checkpoint of the whole model; a folder that does not act by Q and does not say so; another reference than the
    model. Oracle: the logits of the model's own folder."""
    from transformers import AutoModelForCausalLM

    state = checkpoint.load(checkpoint.find(RunDirectory(run).checkpoints, "last"), "policy", torch.device("cpu"))
    assert {name for name in state["network"] if not name.startswith("projections.q.")} == {"encoder.model_id_A"}
    assert cli.main(["export", str(run), str(run.parent / "out"), "--checkpoint", "last"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Q = eta log E exp(Z / eta)" in said and "dqnlm export --behaviour" in said
    assert cli.main(["export", str(run), str(run.parent / "out"), "--checkpoint", "last", "--behaviour"]) == 0
    ids = load_policy(run, "last").network.get_buffer("encoder.model_id_A")
    own, written = (AutoModelForCausalLM.from_pretrained(run.parent / name) for name in ("model", "out"))
    rows = ids[models.tokens(3, 6)]
    torch.testing.assert_close(written(rows).logits, own(rows).logits, rtol=1e-4, atol=1e-4)
    assert "a trunk that does not change" in (run.parent / "out" / "README.md").read_text()
    assert cli.main(["export", str(run), str(run.parent / "adapter"), "--behaviour", "--adapter"]) == 2
    assert "network.lora_rank=8" in capsys.readouterr().err


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: outputs that begin anew on a resume, or a trunk in bfloat16 that is taken for another model."""
    short = ["trainer.offline_rounds=6", "evaluation.every=3", "checkpoint.every=2", "trainer.log_every=2"]
    checked = settings(tmp_path, *short, "network.dtype=bfloat16")
    reference, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (reference, killed):
        folder.mkdir()
    launch.start(checked, reference, choices={}, command_line=["dqnlm", "train"])
    with monkeypatch.context() as patched:
        tools.at_rollout(patched, 5, tools.kill)
        with pytest.raises(tools.Killed):
            launch.start(checked, killed, choices={}, command_line=["dqnlm", "train"])
    launch.resume(killed, [])
    tools.assert_same_run(killed, reference)


def test_inspection_says_that_q_is_no_mean(run: Path) -> None:
    """Bug: soft values shown as expected returns."""
    from dqnlm.builder.agent import objectives_without_env
    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.builder.q_semantics import why_q_is_no_expected_return

    policy, config = load_policy_and_config(str(run), "last", "outputs", "cpu", [], None)
    reason = why_q_is_no_expected_return(config, objectives_without_env(config, policy.head))
    assert reason is not None and "head.temperature" in reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["policy.beta=3"], r"policy\.beta is 3\.0 and head\.temperature 0\.25; set policy\.beta=4"),
        (["policy.kind=boltzmann", "policy.beta=null", "evaluation.betas=[]"], r"policy\.kind=boltzmann: set policy\.kind=rew"),
        (["network.lora_rank=null"], r"network=pretrained as it is set the output `policy` learns: .*lora_rank=0"),
        (["network.train_output_layer=true"], r"does not change.*train_output_layer=null"),
        (["network.lora_rank=2"], r"does not change.*lora_rank=0"),
        (["gamma=0.9"], r"no discount, and gamma is 0\.9: set gamma=1"),
        (["head.temperature=null"], r"Categorical has no temperature: set head=categorical head\.temperature"),
        (["head=scalar", "~head.temperature", "~head.num_atoms"], "Scalar predicts no distribution: set head=categorical"),
        (["objective=[q_sharp,cross_entropy]", "objective.cross_entropy.output=policy"], r"cross_entropy\.output=policy clones"),
        (["buffer.sample=transitions"], "q_sharp needs whole episodes"),
        (["pretraining.updates=3"], r"pretraining\.updates clones actions into the output `policy`"),
        (["policy.beta=null"], r"needs policy\.beta"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    """Bug: a run that acts by something else than pi_ref exp(Q / eta), without a word."""
    if "network.lora_rank=2" in words:
        pytest.importorskip("peft", reason="LoRA needs peft")
    typed = settings(tmp_path, *words) if not any(word.startswith("~") for word in words) else _without(tmp_path)
    with pytest.raises(UserError, match=message):
        launch.build(typed, RunDirectory(tmp_path))


def _without(folder: Path) -> dict[str, Any]:
    """The settings with a scalar head."""
    found = settings(folder)
    found["head"] = {"_target_": "dqnlm.heads.scalar.Scalar", "loss": "squared", "initial_return": None}
    return found


def test_rollouts_of_the_learned_policy_are_refused(tmp_path: Path) -> None:
    """Bug: returns of the policy that is learned taken for those of the reference."""
    from tests.system.test_algorithms import build

    words = ["algorithm=q_sharp", "network=pretrained", "network.lora_rank=0", "gamma=1", "trainer.rollouts=5"]
    with pytest.raises(UserError, match=r"q_sharp learns the returns of the reference policy.*trainer\.rollouts=0"):
        build(tmp_path, *words, "env.num_envs=4")


def test_a_fixed_policy_is_not_cloned(tmp_path: Path) -> None:
    """Bug: an objective that trains nothing, and a behaviour that is the model's own without a word."""
    from tests.system.test_algorithms import build

    words = ["algorithm=ilql", "network=pretrained", "network.lora_rank=0", "projection=linear", "target.heads_only=true"]
    with pytest.raises(UserError, match=r"cross_entropy\.output=policy clones.*network\.train_output_layer=true"):
        build(tmp_path, *words)
    build(tmp_path, *words, "network.train_output_layer=true")
