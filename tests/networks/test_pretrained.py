"""Pretrained models as trunks: they keep the promises of `dqnlm.networks.base`, and start as what they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers import runs as tools

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("tokenizers", reason="network=pretrained needs tokenizers")

from dqnlm import load_policy
from dqnlm.agent.target import hard, polyak
from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.errors import UserError
from dqnlm.networks import fixed_weights
from dqnlm.networks.base import QNetwork, State
from dqnlm.networks.pretrained import Pretrained
from dqnlm.networks.pretrained_outputs import LogitQ
from dqnlm.runs.directory import RunDirectory
from tests.helpers import pretrained as models

KINDS = pytest.mark.parametrize("kind", ["gpt2", "llama"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: models.write(tmp_path_factory.mktemp("models") / kind, kind) for kind in ("gpt2", "llama")}


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def lora(kind: str) -> dict[str, Any]:
    pytest.importorskip("peft", reason="LoRA needs peft")
    return {"lora_rank": 2, "lora_alpha": 6.0, "lora_targets": ["c_attn", "c_fc"] if kind == "gpt2" else None}


@KINDS
def test_policy_starts_as_the_model_itself(folders: dict[str, Path], kind: str) -> None:
    """Bug: token ids mixed up between environment and model, or another output layer. Oracle: transformers' own logits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, observation = models.network(folders[kind], std=0), models.tokens(3, 6)
    text = ["".join(models.ALPHABET[i] for i in row) for row in observation.tolist()]
    tokenizer, model = AutoTokenizer.from_pretrained(folders[kind]), AutoModelForCausalLM.from_pretrained(folders[kind])
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    assert ids.shape == observation.shape
    columns = tokenizer.convert_tokens_to_ids(list(models.ALPHABET))
    output = network(observation)
    close(output["policy"].squeeze(-1), model(ids).logits[..., columns])
    for name in ("q", "q2", "v"):
        assert not output[name].any(), f"{name} starts at 0"


@KINDS
def test_q_from_logits(folders: dict[str, Path], kind: str) -> None:
    """Bug: a wrong sign or axis. By definition Q = T (logit - logsumexp), so T logsumexp(Q / T) = v = 0 at first."""
    network = models.network(folders[kind], std=0, q_init="logits", q_temperature=0.5)
    output = network(models.tokens(3, 6))
    logit, q = output["policy"].squeeze(-1), output["q"].squeeze(-1)
    close(q, 0.5 * (logit - logit.logsumexp(-1, keepdim=True)))
    close(q.argmax(-1).float(), logit.argmax(-1).float())
    head = network.projections["q"]
    assert isinstance(head, LogitQ)
    torch.nn.init.ones_(head.value.linear.bias)  # type: ignore[attr-defined]
    soft = 0.5 * (network(models.tokens(3, 6))["q"].squeeze(-1) / 0.5).logsumexp(-1)
    close(soft, torch.ones(3, 6))


@KINDS
@pytest.mark.parametrize("adapted", [False, True])
def test_prefill_then_steps_equal_forward(folders: dict[str, Path], kind: str, adapted: bool) -> None:
    """Bug: a cache off by one, or positions that differ between the two ways of reading."""
    network = models.network(folders[kind], **(lora(kind) if adapted else {}))
    observation = models.tokens(4, models.CONTEXT + 1)
    expected = network(observation)
    for prefix in (0, 1, 5, models.CONTEXT + 1):
        state = network.initial_state(4, "cpu")
        outputs = []
        if prefix:
            read, state = network.prefill(observation[:, :prefix], state)
            outputs = list(read["q"].unbind(1))
        for time in range(prefix, models.CONTEXT + 1):
            output, state = network.step(observation[:, time], state)
            outputs.append(output["q"])
        close(torch.stack(outputs, 1), expected["q"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@KINDS
def test_steps_recorded_on_a_device_equal_forward(folders: dict[str, Path], kind: str) -> None:
    """Bug: the model's code reads a position on the host, and the recording repeats the first one."""
    network, observation = models.network(folders[kind]).cuda().eval(), models.tokens(3, 9).cuda()
    for _ in range(2):
        state = network.initial_state(3, "cuda")
        output, state = network.prefill(observation[:, :4], state)
        found = [output["q"][:, -1]]
        for observation_E in observation[:, 4:].unbind(1):
            output, state = network.step(observation_E, state)
            found.append(output["q"])
        close(torch.stack(found, 1), network(observation, 3)["q"])
        recording = network._recordings.find(state)
        assert recording is not None and recording._graph is not None
        del state


@KINDS
def test_rows_restart_at_different_times(folders: dict[str, Path], kind: str) -> None:
    """Bug: a reset that touches other rows, or leftovers of the old episode that are still read."""
    network, steps, prefix = models.network(folders[kind]), 20, 2
    observation = models.tokens(4, steps)
    resets = {4: [1], 6: [0, 3], 7: [0], 10: [0, 1, 2, 3], 15: [1, 2], 19: [0, 3]}
    start, state = [0, 0, 0, 0], network.initial_state(4, "cpu")
    _, state = network.prefill(observation[:, :prefix], state)
    for time in range(prefix, steps):
        mask = torch.tensor([row in resets.get(time, []) for row in range(4)])
        state = network.reset(state, mask)
        start = [time if mask[row] else start[row] for row in range(4)]
        output, state = network.step(observation[:, time], state)
        for row in range(4):
            expected = network(observation[row : row + 1, start[row] : time + 1])
            close(output["q"][row], expected["q"][0, -1])


@KINDS
def test_prompts_of_different_lengths(folders: dict[str, Path], kind: str) -> None:
    """Bug: a short prompt whose answer is read after the padding. Oracle: each row alone."""
    network, observation, length_E = models.network(folders[kind]), models.tokens(3, 8), torch.tensor([2, 6, 4])
    first, state = network.prefill_apart(observation[:, :6], length_E, network.initial_state(3, "cpu"))
    then, state = network.step(observation[:, 6], state)
    last, _ = network.step(observation[:, 7], state)
    for row, length in enumerate(length_E.tolist()):
        read = torch.cat([observation[row, :length], observation[row, 6:]])[None]
        expected = network(read)["q"][0, -3:]
        close(torch.stack([first["q"][row], then["q"][row], last["q"][row]]), expected)


@KINDS
def test_right_padding_changes_nothing(folders: dict[str, Path], kind: str) -> None:
    """Bug: padding that is read, or positions counted from the row's end. Llama's padding token is among the padding."""
    network, observation = models.network(folders[kind]), models.tokens(3, 8)
    lengths = [3, 8, 5]
    padded = observation.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = 0
    whole = network(padded)
    for row, length in enumerate(lengths):
        alone = network(observation[row : row + 1, :length])
        for name in models.OUTPUTS:
            close(whole[name][row, :length], alone[name][0])


@KINDS
def test_first_and_late_observations(folders: dict[str, Path], kind: str) -> None:
    """Bug: outputs of other times than asked for, or ones that see what comes later."""
    network, observation = models.network(folders[kind]), models.tokens(2, 8)
    expected = network(observation)["q"]
    close(network(observation, 3)["q"], expected[:, 3:])
    changed = observation.clone()
    changed[:, 5] = (changed[:, 5] + 1) % len(models.ALPHABET)
    close(network(changed)["q"][:, :5], expected[:, :5])
    assert (network(changed)["q"][:, 5] - expected[:, 5]).abs().max() > 1e-3


@KINDS
def test_too_many_observations(folders: dict[str, Path], kind: str) -> None:
    """Bug: a position beyond the table, which a CPU reports as an index error of another library."""
    network, observation = models.network(folders[kind]), models.tokens(2, models.CONTEXT + 2)
    with pytest.raises(UserError, match=r"network\.context"):
        network(observation)
    state = network.initial_state(2, "cpu")
    _, state = network.prefill(observation[:, :-1], state)
    with pytest.raises(UserError, match=r"network\.context"):
        network.step(observation[:, -1], state)
    with pytest.raises(UserError, match=r"network\.context=11"):
        models.body(folders[kind], context=12)


@KINDS
def test_lora_trains_adapters_and_outputs_only(folders: dict[str, Path], kind: str) -> None:
    """Bug: a base matrix that moves, or adapters that nothing reaches."""
    network = models.network(folders[kind], std=0, **lora(kind)).train()
    observation = models.tokens(4, 6)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    unadapted = models.network(folders[kind], std=0)
    close(network.eval()(observation)["policy"], unadapted(observation)["policy"])  # B starts at 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):  # A moves only when B is no longer 0, and the trunk only when the outputs are not
        optimizer.zero_grad()
        sum(raw.square().sum() + raw.sum() for raw in network(observation).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    moved = {name for name, p in network.named_parameters() if not p.equal(before[name])}
    learned = {name for name in before if "lora_" in name or name.startswith("projections.")}
    assert moved == learned - {"projections.policy.linear.weight"}  # the model's own output layer is no adapter
    assert any("lora_A" in name for name in moved) and any("lora_B" in name for name in moved)


@KINDS
def test_without_adapters_the_outputs_alone_learn(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Bug: rank 0 that trains the whole model, or a graph through a trunk that does not learn; a policy that moves; a checkpoint
    that holds the model, or one that goes on with another."""
    network = models.network(folders[kind], std=0, lora_rank=0).train()
    observation = models.tokens(4, 6)
    h_BSD = network.features(observation)
    assert not h_BSD.requires_grad and h_BSD.grad_fn is None
    assert [network.learns(name) for name in models.OUTPUTS] == [True, True, True, False]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    sum(raw.square().sum() + raw.sum() for raw in network(observation).values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    moved = {name for name, p in network.named_parameters() if not p.equal(before[name])}
    assert moved == {name for name in before if name.split(".")[:2] in (["projections", n] for n in ("q", "q2", "v"))}
    state = fixed_weights.changing_state(network)
    assert set(state) == {*moved, "encoder.model_id_A"}
    again = _again(network, folders[kind], lora_rank=0)
    fixed_weights.load_changing_state(again, state)
    for name, raw in again(observation).items():
        close(raw, network.eval()(observation)[name])
    own = models.network(folders[kind], std=0)
    close(own(observation)["policy"], again(observation)["policy"])
    assert all(own.learns(name) for name in models.OUTPUTS)
    learned = models.network(folders[kind], std=0, lora_rank=0, train_output_layer=True)
    assert learned.learns("policy") and not learned.features(observation).requires_grad
    other = models.write(tmp_path / "other", kind, alphabet=models.ALPHABET[::-1] + "h")
    with pytest.raises(UserError, match="not those that this run was trained on"):
        _again(network, other, lora_rank=0)


def test_a_target_of_the_heads_shares_the_trunk(folders: dict[str, Path]) -> None:
    """Bug: a second copy of a large trunk, or a target that moves with the online heads."""
    network = models.network(folders["gpt2"])
    target = polyak(network, polyak_rate=0.5, heads_only=True)
    assert target.network.body is network.body and target.network.encoder is network.encoder
    online, own = network.projections["q"].linear, target.network.projections["q"].linear  # type: ignore[union-attr]
    before = own.weight.clone()
    with torch.no_grad():
        online.weight += 1.0
    assert own.weight.equal(before)
    target.update(1)
    close(own.weight, before + 0.5)
    assert all(p.requires_grad for p in network.body.parameters())


def test_a_trunk_rebuilt_from_its_recipe_has_the_same_parts(folders: dict[str, Path], tmp_path: Path) -> None:
    """Bug: a run whose whole model learns, and that can be read only while the model's folder is there."""
    network = models.network(folders["gpt2"])
    rebuilt = _again(network, tmp_path / "gone")
    rebuilt.load_state_dict(network.state_dict())
    for name, raw in rebuilt(models.tokens(3, 6)).items():
        close(raw, network(models.tokens(3, 6))[name])


def _again(network: QNetwork, folder: Path, **settings: Any) -> QNetwork:
    """A network built from the recipe that a run of `network` keeps, with the model in `folder`."""
    again = models.body(folder, recipe=json.loads(json.dumps(network.body.recipe)), **settings)
    heads = again.make_outputs(models.OUTPUTS, 7, lambda name: models.Linear(16, 1 if name == "v" else 7, 1))
    return QNetwork(again.make_encoder(), again, heads).eval()


@KINDS
def test_adapters_are_kept_without_the_model_that_they_belong_to(tmp_path: Path, kind: str) -> None:
    """Bug: a checkpoint of the whole model; adapters on another model's weights; a target that copies what never changes."""
    folder = models.write(tmp_path / "model", kind)
    network = models.network(folder, std=0, **lora(kind))
    changing = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for parameter in changing.values():
        torch.nn.init.normal_(parameter, std=0.3)
    state = fixed_weights.changing_state(network)
    assert set(state) == {*changing, "encoder.model_id_A"}
    moved = folder.rename(tmp_path / "elsewhere")
    again = _again(network, moved, **lora(kind))
    fixed_weights.load_changing_state(again, state)
    for name, raw in again(models.tokens(3, 6)).items():
        close(raw, network(models.tokens(3, 6))[name])
    target = hard(network, period=1, heads_only=False)
    own, theirs = dict(target.network.named_parameters()), dict(network.named_parameters())
    assert {name for name in own if own[name] is theirs[name]} == {n for n, p in theirs.items() if not p.requires_grad}
    with pytest.raises(UserError, match=r"the model that they belong to .sha256 of its weights .* is not found.*--base"):
        _again(network, folder, **lora(kind))
    other = models.write(tmp_path / "other", kind, alphabet=models.ALPHABET[::-1] + "h")
    with pytest.raises(UserError, match="not those that this run was trained on"):
        _again(network, other, **lora(kind))


@KINDS
def test_bfloat16_and_checkpointing_compute_nearly_the_same(folders: dict[str, Path], kind: str) -> None:
    """Bug: features of one dtype against outputs of another; layers that are computed twice with other dropout."""
    observation = models.tokens(3, 6)
    plain = models.network(folders[kind], std=0, **lora(kind))
    half = models.network(folders[kind], std=0, dtype="bfloat16", **lora(kind))
    torch.testing.assert_close(half(observation)["policy"], plain(observation)["policy"], rtol=0.05, atol=0.05)
    state = half.initial_state(3, "cpu")
    _, state = half.prefill(observation[:, :3], state)
    output, state = half.step(observation[:, 3], state)
    torch.testing.assert_close(output["policy"], plain(observation)["policy"][:, 3], rtol=0.05, atol=0.05)
    plain, again = (
        models.network(folders[kind], std=0, dropout=0.0 if kind == "gpt2" else None, gradient_checkpointing=on, **lora(kind))
        for on in (False, True)
    )
    again.load_state_dict(plain.state_dict())
    again.train()
    for network in (plain.train(), again):
        network(observation)["policy"].square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        if one.requires_grad and "lora_B" in name:
            assert one.grad is not None and other.grad is not None and bool(one.grad.any())
            close(one.grad, other.grad)


@pytest.mark.parametrize(("dtype", "is_taken"), [("bfloat16", True), ("float32", False)])
def test_reading_token_by_token_may_differ_by_the_rounding_of_the_weights(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, dtype: str, is_taken: bool
) -> None:
    """Bug: a deep model in bfloat16 is refused, as features in float32 were compared as if its weights were so too. A
    difference of 2 % is rounding in bfloat16, and another computation in float32."""
    step = Pretrained.step

    def rounded(self: Pretrained, x_ED: Tensor, state: State) -> tuple[Tensor, State]:
        h_ED, state = step(self, x_ED, state)
        return h_ED * 1.02, state

    monkeypatch.setattr(Pretrained, "step", rounded)
    if is_taken:
        assert models.network(folders["llama"], std=0, dtype=dtype, **lora("llama"))(models.tokens(1, 2))
    else:
        with pytest.raises(UserError, match="rows give other features than read whole"):
            models.network(folders["llama"], std=0, dtype=dtype, **lora("llama"))


def test_characters_must_be_single_tokens(folders: dict[str, Path]) -> None:
    """Bug: a letter that becomes the unknown token without a word."""
    with pytest.raises(UserError, match="'!', 'z' are not"):
        models.body(folders["gpt2"], alphabet="!abz")
    with pytest.raises(UserError, match=r"data\.tokenizer=byte"):
        tokens = {"kind": "byte"}
        models.Pretrained(256, tokens, None, name_or_path=str(folders["gpt2"]), **models.SETTINGS)
    with pytest.raises(UserError, match="observations are none"):
        models.Pretrained(4, None, None, name_or_path=str(folders["gpt2"]), **models.SETTINGS)


def test_a_mapping_is_not_the_order_of_the_alphabet(tmp_path: Path) -> None:
    """Bug: ids taken for places in the alphabet. The model's order is the reverse; oracle: the model on its own ids."""
    folder = models.write(tmp_path / "reverse", alphabet=models.ALPHABET[::-1])
    network = models.network(folder)
    assert network.get_buffer("encoder.model_id_A").tolist() == [8, 7, 6, 5, 4, 3, 2]  # after <unk> and <end>
    observation = models.tokens(2, 5)
    h_BSD = network.body(8 - observation)
    close(network.features(observation), h_BSD)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"lacks model\.safetensors.*it holds config\.json"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), r"pytorch_model\.bin is not read"),
        (lambda f: (f / "config.json").unlink(), r"lacks config\.json"),
        (lambda f: shutil.rmtree(f), "there is no folder"),
        (lambda f: _edit(f, auto_map={"AutoConfig": "own.Config"}, model_type="own"), "code of its own"),
        (lambda f: _edit(f, model_type="nobody_knows_this"), "cannot be read"),
        (lambda f: _edit(f, n_layer=3), "weights lack"),
    ],
)
def test_folders_that_are_no_model(tmp_path: Path, spoil: Any, message: str) -> None:
    """Bug: a traceback of another library, code that is run, or missing weights that are random without a word."""
    folder = models.write(tmp_path / "model")
    spoil(folder)
    with pytest.raises(UserError, match=message):
        models.body(folder)


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"q_init": "logits"}, "q_temperature"),
        ({"q_temperature": 1.0}, "q_temperature"),
        ({"lora_alpha": 2.0}, "lora_rank"),
        ({"lora_rank": -1}, r"lora_rank is -1; the least is 0"),
        ({"lora_rank": 0, "lora_targets": ["c_attn"]}, r"belong to adapters, and network\.lora_rank=0 has none"),
        ({"lora_rank": 0, "gradient_checkpointing": True}, r"network\.lora_rank=0 has none: set it to false"),
        ({"dtype": "bfloat16", "lora_rank": 0, "train_output_layer": True}, "the model's output layer"),
        ({"lora_rank": 2, "lora_targets": ["nothing"]}, "lora_targets.*c_attn"),
        ({"dropout": 1.0}, r"network\.dropout"),
        ({"revision": "main"}, "revision"),
        ({"dtype": "bfloat16"}, r"dtype=bfloat16.*all of the model's weights"),
        ({"dtype": "bfloat16", "lora_rank": 2, "train_output_layer": True}, "the model's output layer"),
    ],
)
def test_settings_that_cannot_be(folders: dict[str, Path], settings: dict[str, Any], message: str) -> None:
    """Bug: a setting that is accepted and does nothing."""
    with pytest.raises(UserError, match=message):
        models.body(folders["gpt2"], **settings)


def test_dropout_reaches_the_model(folders: dict[str, Path]) -> None:
    """Bug: a share of dropout that the architecture calls otherwise."""
    observation = models.tokens(2, 5)
    for share, same in ((0.0, True), (0.5, False)):
        network = models.body(folders["gpt2"], dropout=share)
        assert network(observation).equal(network(observation)) == same  # as it is handed over: in training mode


def test_a_model_that_cannot_act_token_by_token(tmp_path: Path) -> None:
    """Bug: a recurrent or ALiBi model whose rows would be read at wrong positions."""
    from transformers import BloomConfig, BloomForCausalLM

    folder = tmp_path / "bloom"
    folder.mkdir()
    models.tiny_gpt2.write_tokenizer(folder, models.ALPHABET)
    BloomForCausalLM(BloomConfig(vocab_size=9, hidden_size=16, n_layer=1, n_head=2)).save_pretrained(folder)
    with pytest.raises(UserError, match="bloom token by token"):
        models.body(folder)


WALKS = [
    "+experiment=ilql", "device=cpu", "threads=1", "logger=none", "progress=false", "trainer.offline_rounds=6",
    "trainer.log_every=2", "evaluation.every=3", "checkpoint.every=2", "trainer.batch_size=8", "evaluation.samples=1",
]  # fmt: skip


def walks_settings(tmp_path: Path, *more: str, own_network: bool = False) -> dict[str, Any]:
    """The experiment on 40 walks of our own writing, and a tiny GPT-2."""
    from dqnlm.problems.random_walks import ALPHABET, logged_walks

    models.write(tmp_path / "model", alphabet=ALPHABET)
    log = tmp_path / "walks.jsonl"
    rows = [{"prompt": p, "completion": c, "reward": r} for p, c, r in logged_walks(1000, 40)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = [] if own_network else [f"network.name_or_path={tmp_path / 'model'}"]
    typed = [*WALKS, f"data.path={log}", *named, *more]
    composed, choices = composition.compose(typed)
    return validation.validate(composed, choices, typed)


def run_walks(folder: Path, settings: dict[str, Any]) -> Path:
    folder.mkdir()
    launch.start(settings, folder, choices={}, command_line=["dqnlm", "train"])
    return folder


@pytest.mark.parametrize("adapted", [False, True])
def test_killed_and_resumed_ends_as_if_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapted: bool
) -> None:
    """Bug: a trunk built anew on a resume, or one that needs the model's folder where it was, which is gone."""
    if adapted:
        pytest.importorskip("peft", reason="LoRA needs peft")
    noisy = ["target.heads_only=false", "network.dropout=null"]  # a second trunk, and the model's own dropout
    settings = walks_settings(tmp_path, *(["network.lora_rank=2"] if adapted else noisy))
    reference = run_walks(tmp_path / "whole", settings)
    with monkeypatch.context() as patched:
        tools.at_rollout(patched, 5, tools.kill)
        with pytest.raises(tools.Killed):
            run_walks(tmp_path / "killed", settings)
    if adapted:  # the run keeps its adapters alone, and the model may lie elsewhere
        (tmp_path / "model").rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=r"network\.name_or_path: .*model \(sha256 [0-9a-f]{12}\.\.\.\)"):
            launch.resume(tmp_path / "killed", [])
    else:
        shutil.rmtree(tmp_path / "model")
    launch.resume(tmp_path / "killed", [f"network.name_or_path={tmp_path / 'elsewhere'}"] if adapted else [])
    tools.assert_same_run(tmp_path / "killed", reference)
    base = str(tmp_path / "elsewhere") if adapted else None
    assert len(load_policy(tmp_path / "killed", base=base).generate("b", 8, policy="greedy")[0]) == 8


def test_the_experiment_runs_with_a_network_of_our_own(tmp_path: Path) -> None:
    """Bug: an experiment that holds for one network alone."""
    small = ["network=transformer", "network.layers=1", "network.width=16"]
    settings = walks_settings(tmp_path, *small, own_network=True)
    trainer = launch.build(settings, RunDirectory(tmp_path))
    trainer.train_round(trainer.phase)
    assert trainer.components.policy.network.body.recipe is None


def test_a_model_must_be_named(tmp_path: Path) -> None:
    """Bug: `null` handed to another library."""
    settings = walks_settings(tmp_path)
    settings["network"]["name_or_path"] = None
    with pytest.raises(UserError, match=r"network\.name_or_path=FOLDER"):
        launch.build(settings, RunDirectory(tmp_path))
