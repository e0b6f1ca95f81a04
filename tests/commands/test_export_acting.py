"""`dqnlm export`: a model that acts as the run did, in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("safetensors", reason="the value heads are written as safetensors")

from dqnlm.agent.policy import Policy
from dqnlm.commands import export
from dqnlm.errors import UserError
from dqnlm.heads.scalar import Scalar
from dqnlm.networks.base import QNetwork
from dqnlm.networks.pretrained import Pretrained
from dqnlm.networks.projections import Dueling, Linear, LowRank, StateValue
from dqnlm.types import Bounds
from studies import tiny_gpt2
from tests.helpers import pretrained as models

ALPHABET = models.ALPHABET
CONFIG: dict[str, Any] = {
    "network": {"name_or_path": "model", "lora_rank": None, "q_init": "zero"}, "trainer": {"batch_size": 1},
    "data": {"_target_": "x.logged"}, "objective": {"td": {}}, "gamma": 1.0, "optimizer": {"lr": 1.0}, "seed": 0,
    "head": {"_target_": "x.Scalar"}, "projection": {"_target_": "x.LowRank"},
}  # fmt: skip
ARCHITECTURES = ("gpt2", "llama", "qwen2", "gpt_neox", "mistral")


def write_model(folder: Path, kind: str, tied: bool) -> Path:
    """A small random model of this architecture, with a chat template and generation settings of its own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True)
    size = tiny_gpt2.write_tokenizer(folder, ALPHABET)
    torch.manual_seed(0)
    wide = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 12} if kind == "gpt2" else wide
    if kind in ("llama", "qwen2", "mistral"):
        sizes["num_key_value_heads"] = 2
    if kind == "mistral":
        sizes["sliding_window"] = None
    config = AutoConfig.for_model(
        kind, vocab_size=size, max_position_embeddings=12, tie_word_embeddings=tied, pad_token_id=0, eos_token_id=1,
        bos_token_id=1, **sizes,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "pad_token_id": 0, "top_k": 0}))
    return folder


def a_policy(
    folder: Path, acting_q: str = "mean", declared: str = "reweighted", make: Any = None, outputs: Any = models.OUTPUTS,
    **settings: Any,
) -> Policy:  # fmt: skip
    body = models.body(folder, **settings)
    encoder = body.make_encoder()
    usual = make or (lambda: LowRank(16, len(ALPHABET), 1, rank=3))
    heads = body.make_outputs(outputs, len(ALPHABET), lambda name: Linear(16, 1, 1) if name == "v" else usual())
    network = QNetwork(encoder, body, heads).eval()
    torch.manual_seed(1)
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.4)
    network.requires_grad_(False)
    head = Scalar(Bounds(-float("inf"), float("inf")), False, loss="squared", initial_return=None)
    from dqnlm.data.tokenizers.base import CharacterTokenizer

    tokens = CharacterTokenizer(ALPHABET)
    beta = 3.0 if declared == "reweighted" else 0.0
    return Policy(network, head, tokens, None, declared, 0.7, beta=beta, outputs=outputs, acting_q=acting_q)  # type: ignore[arg-type]


def exported(policy: Policy, folder: Path, behaviour: bool = False, adapter: bool = False) -> list[str]:
    folder.mkdir()
    return export.write(policy, CONFIG, {}, folder, behaviour, adapter, "float32")


def logits_of(policy: Policy, observation: torch.Tensor) -> torch.Tensor:
    return policy.logits(policy.network(observation), policy.declared, None)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("adapted", [False, True])
def test_generate_of_transformers_writes_what_the_run_writes(tmp_path: Path, kind: str, tied: bool, adapted: bool) -> None:
    """Bug: the cloned behaviour in place of the policy that acts; an output layer tied back to the embedding; tokens the run
    never chooses. Oracle: the run's own greedy tokens, and its probabilities at every place of sampled texts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if adapted:
        pytest.importorskip("peft", reason="LoRA needs peft")
    policy = a_policy(write_model(tmp_path / "model", kind, tied), **({"lora_rank": 2} if adapted else {}))
    exported(policy, tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and model.config.tie_word_embeddings is False
    ids = policy.network.get_buffer("encoder.model_id_A")
    prompt = torch.tensor([[0, 3], [5, 1]])
    for seed, greedy in ((0, True), (1, False)):
        kind_of = "greedy" if greedy else None
        texts = policy.generate(ALPHABET[0] + ALPHABET[3], 8, policy=kind_of, n=2, seed=seed)  # type: ignore[arg-type]
        rows = torch.stack([policy.tokenizer.encode_strict("ad" + text).long() for text in texts])
        there = model(ids[rows]).logits[..., ids].log_softmax(-1)
        torch.testing.assert_close(there, logits_of(policy, rows).log_softmax(-1), rtol=1e-3, atol=1e-4)
    written = model.generate(ids[prompt], max_new_tokens=8, do_sample=False, attention_mask=torch.ones(2, 2))
    for row, text in zip(written[:, 2:], ("ad", "fb"), strict=True):
        own = policy.generate(text, 8, policy="greedy")[0]
        assert "".join(ALPHABET[ids.tolist().index(i)] for i in row.tolist()) == own
    drawn = model.generate(ids[prompt].repeat(50, 1), max_new_tokens=8, do_sample=True, attention_mask=torch.ones(100, 2))
    assert set(drawn[:, 2:].flatten().tolist()) <= set(ids.tolist())  # no token that the run never chooses
    assert "messages" in AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


@pytest.mark.parametrize("which", ["first", "mean"])
def test_which_q_acts(tmp_path: Path, which: str) -> None:
    """Bug: a setting that nothing reads. By hand: log pi + beta Q1, or beta times the mean of both."""
    policy = a_policy(write_model(tmp_path / "model", "gpt2", True), acting_q=which)
    output = policy.network(models.tokens(2, 5))
    q = {name: output[name].squeeze(-1) for name in ("q", "q2", "policy")}
    acting = q["q"] if which == "first" else (q["q"] + q["q2"]) / 2
    torch.testing.assert_close(policy.preference(output), q["policy"].log_softmax(-1) + 3.0 * acting)
    assert not torch.allclose(q["q"], q["q2"], atol=0.05)


@pytest.mark.parametrize("which", ["first", "mean"])
def test_one_mixture_of_several_rewards_is_exported(tmp_path: Path, which: str) -> None:
    """Bug: the Q of one reward alone, weights of another order, or V in the place of Q. Oracle: the policy at these weights."""
    from transformers import AutoModelForCausalLM

    outputs = ("q_a", "q2_a", "v_a", "q_b", "q2_b", "v_b", "policy")
    policy = a_policy(write_model(tmp_path / "model", "llama", False), acting_q=which, outputs=outputs)
    policy.weights = {"reward_a": 1.0, "reward_b": 0.3}
    exported(policy, tmp_path / "out")
    model, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), policy.network.get_buffer("encoder.model_id_A")
    rows = models.tokens(2, 5)
    there = model(ids[rows]).logits[..., ids].log_softmax(-1)
    torch.testing.assert_close(there, logits_of(policy, rows).log_softmax(-1), rtol=1e-3, atol=1e-4)
    assert "Q = 1 Q(reward_a) + 0.3 Q(reward_b)" in (tmp_path / "out" / "README.md").read_text()
    policy.weights = {"reward_a": 0.3, "reward_b": 1.0}
    assert (there - logits_of(policy, rows).log_softmax(-1)).abs().max() > 0.05


def test_the_smaller_of_two_qs_is_exported_with_how_far_it_is_off(tmp_path: Path) -> None:
    """Bug: a folder that acts otherwise and does not say so."""
    policy = a_policy(write_model(tmp_path / "model", "gpt2", True), acting_q="min")
    notes = exported(policy, tmp_path / "out")
    assert "smaller of two Q-functions" in notes[0] and "agrees at" in notes[0] and "policy.acting_q=mean" in notes[0]
    assert notes[0] in (tmp_path / "out" / "README.md").read_text()
    assert float(notes[0].split("divergence is ")[1].split()[0]) > 1e-3


@pytest.mark.parametrize("settings", [{}, {"q_init": "logits", "q_temperature": 0.5}])
def test_softmax_of_q_is_exported_at_its_temperature(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Bug: Q without its temperature, or the logits below Q left out or counted twice."""
    from transformers import AutoModelForCausalLM

    pytest.importorskip("peft", reason="LoRA needs peft")
    folder = write_model(tmp_path / "model", "llama", True)
    policy = a_policy(folder, "first", "boltzmann", outputs=("q",), lora_rank=2, **settings)
    exported(policy, tmp_path / "out")
    rows, ids = models.tokens(3, 6), policy.network.get_buffer("encoder.model_id_A")
    there = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids[rows]).logits[..., ids]
    expected = (policy.network(rows)["q"].squeeze(-1) / 0.7).log_softmax(-1)
    torch.testing.assert_close(there.log_softmax(-1), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_an_adapter_acts_on_the_model_that_it_was_trained_from(tmp_path: Path, kind: str) -> None:
    """Bug: an adapter of the trunk alone, which acts as the behaviour did; matrices in the wrong order, or scaled twice."""
    peft = pytest.importorskip("peft", reason="LoRA needs peft")
    from transformers import AutoModelForCausalLM

    folder = write_model(tmp_path / "model", kind, tied=True)
    policy = a_policy(folder, lora_rank=2, lora_targets=["c_attn"] if kind == "gpt2" else None)
    exported(policy, tmp_path / "out", adapter=True)
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "out").eval()
    rows, ids = models.tokens(3, 6), policy.network.get_buffer("encoder.model_id_A")
    there = model(ids[rows]).logits[..., ids].log_softmax(-1)
    torch.testing.assert_close(there, logits_of(policy, rows).log_softmax(-1), rtol=1e-3, atol=1e-4)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("adapter", [False, True])
def test_a_policy_whose_adapters_alone_learned_keeps_the_output_layer(tmp_path: Path, adapter: bool) -> None:
    """Bug: V of the state folded in as if it told actions apart, or an adapter refused because there are no thin matrices."""
    peft = pytest.importorskip("peft", reason="LoRA needs peft")
    from transformers import AutoModelForCausalLM

    folder = write_model(tmp_path / "model", "llama", True)
    policy = a_policy(
        folder, "first", "boltzmann", lambda: StateValue(16, len(ALPHABET), 1), ("q",), lora_rank=2, q_init="logits",
        q_temperature=0.7,
    )  # fmt: skip
    exported(policy, tmp_path / "out", adapter=adapter)
    base = AutoModelForCausalLM.from_pretrained(folder if adapter else tmp_path / "out")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval() if adapter else base
    rows, ids = models.tokens(3, 6), policy.network.get_buffer("encoder.model_id_A")
    expected = (policy.network(rows)["q"].squeeze(-1) / 0.7).log_softmax(-1)
    torch.testing.assert_close(model(ids[rows]).logits[..., ids].log_softmax(-1), expected, rtol=1e-3, atol=1e-4)
    start = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(base.get_output_embeddings().weight, start.get_output_embeddings().weight, rtol=1e-5, atol=1e-7)


def test_what_no_output_layer_can_be_is_refused(tmp_path: Path) -> None:
    """Bug: a folder that acts otherwise. A head with a hidden layer, and a bias for each token where the model has none."""
    pytest.importorskip("peft", reason="LoRA needs peft")
    folder = write_model(tmp_path / "model", "llama", False)
    deep = a_policy(folder, make=lambda: Dueling(16, len(ALPHABET), 1, hidden=4))
    with pytest.raises(UserError, match=r"q cannot be folded.*projection=low_rank"):
        exported(deep, tmp_path / "a")
    biased = a_policy(folder, make=lambda: Dueling(16, len(ALPHABET), 1, hidden=0))
    with pytest.raises(UserError, match=r"bias for each token|one for each token.*--behaviour"):
        exported(biased, tmp_path / "b")
    with pytest.raises(UserError, match="--adapter"):
        exported(a_policy(folder, lora_rank=2, acting_q="min"), tmp_path / "c", adapter=True)
    with pytest.raises(UserError, match=r"--adapter.*no adapters"):
        exported(a_policy(folder), tmp_path / "d", adapter=True)
    assert isinstance(deep.network.body, Pretrained)


@pytest.mark.parametrize(("files", "expected"), [("bfloat16", "bfloat16"), ("float32", "float32"), ("float64", "float32")])
def test_weights_are_written_as_the_models_own(tmp_path: Path, files: str, expected: str) -> None:
    """Bug: a model of 16-bit weights comes back twice as large."""
    from transformers import AutoModelForCausalLM

    folder = write_model(tmp_path / "model", "llama", False)
    AutoModelForCausalLM.from_pretrained(folder).to(getattr(torch, files)).save_pretrained(folder)
    policy = a_policy(folder)
    assert export.own_dtype(policy) == expected
    policy.network.body.recipe.pop("dtype")  # type: ignore[union-attr]
    assert export.own_dtype(policy) == "float32"  # a run of before


@pytest.mark.parametrize("begins", [False, True])
def test_prompts_begin_in_transformers_as_they_do_here(tmp_path: Path, begins: bool) -> None:
    """Bug: the run reads <s> before a prompt and the exported folder does not, or the other way round.

    Oracle: the tokenizer of the exported folder on prompt and answer together, and the greedy tokens of its model.
    """
    from tokenizers import Tokenizer, processors
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dqnlm.data.tokenizers.pretrained import read

    folder = write_model(tmp_path / "model", "llama", False)
    if begins:
        library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        name = library.id_to_token(1)
        library.post_processor = processors.TemplateProcessing(single=f"{name} $A", special_tokens=[(name, 1)])
        library.save(str(folder / "tokenizer.json"))
    policy = a_policy(folder)
    policy.tokens = read(str(folder))
    exported(policy, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    there = tokenizer("ad").input_ids
    assert policy.tokens.encode_prompt("ad").tolist() == there and (there[0] == 1) == begins
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float32
