"""How the target network follows, and how the learning rate and the weight decay act."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dqnlm.agent import learner as learner_module
from dqnlm.agent import optimizer as optimizers
from dqnlm.agent import target
from dqnlm.errors import UserError
from dqnlm.networks.layers import make_norm
from tests.helpers import networks
from tests.helpers.batches import decisions, random_batch
from tests.helpers.learners import make_learner, make_network


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))


def move(online: nn.Module, by: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(by)


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_hard_copies_at_the_period_and_at_no_other_time() -> None:
    """Guards a copy one update early or late, and one at every update."""
    online = network()
    following = target.hard(online, period=3, heads_only=False)
    start = weights(online)
    assert same(weights(following.network), start)
    copied = []
    for updates_done in range(1, 10):
        move(online)
        before = weights(following.network)
        following.update(updates_done)
        after = weights(following.network)
        if not same(before, after):
            copied.append(updates_done)
            assert same(after, weights(online))
    assert copied == [3, 6, 9]


def test_polyak_by_hand() -> None:
    """Guards the rate taken for its complement. From w, online at w + 1 then w + 2, rate 1/4:
    w + 1/4, then w + 1/4 + (2 - 1/4) / 4 = w + 0.6875."""
    online = network()
    following = target.polyak(online, polyak_rate=0.25, heads_only=False)
    start = weights(online)
    for updates_done, expected in ((1, 0.25), (2, 0.6875)):
        move(online)
        following.update(updates_done)
        for w, found in zip(start, weights(following.network), strict=True):
            torch.testing.assert_close(found, w + expected)


@pytest.mark.parametrize("kind", ["hard", "polyak"])
def test_a_target_is_apart_from_the_online_network(kind: str) -> None:
    """Guards shared memory, gradients into a target, and dropout in it."""
    online = network().train()
    following = (
        target.hard(online, period=5, heads_only=False)
        if kind == "hard"
        else target.polyak(online, polyak_rate=0.5, heads_only=False)
    )
    before = weights(following.network)
    move(online)
    assert same(weights(following.network), before)
    assert not any(p.requires_grad for p in following.network.parameters())
    assert not following.network.training and online.training
    assert all(p.requires_grad for p in online.parameters())


def test_none_is_the_online_network() -> None:
    """Guards a silent copy, which would be a target network after all."""
    online = network()
    following = target.none(online)
    assert following.network is online and not following.copies
    following.update(1)
    following.copy_from_online()
    move(online)
    assert same(weights(following.network), weights(online))
    assert all(p.requires_grad for p in online.parameters())


@pytest.mark.fault("a restored target network overwritten at the first update")
@pytest.mark.parametrize("kind", ["hard", "polyak"])
def test_restored_target_is_not_overwritten_by_the_first_update(kind: str) -> None:
    """Guards a target made equal to the online network by a resume or by the update after it (Tianshou).

    Period 4, saved after 2 updates: the target stands at the start; resumed, it does so for one update more, and is
    copied at the fourth. The resumed learner must give what the one that went on gives, bit for bit.
    """
    follow: dict[str, Any] = (
        {"period": 4, "polyak_rate": None} if kind == "hard" else {"period": None, "polyak_rate": 0.1}
    )
    first, resumed = make_learner(**follow), make_learner(seed=1, **follow)
    batch = random_batch()
    for _ in range(2):
        first.update(batch)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    assert not same(weights(resumed.target.network), weights(resumed.network))
    saved = weights(resumed.target.network)
    for update in (3, 4, 5):
        first.update(batch)
        resumed.update(batch)
        assert same(weights(first.network), weights(resumed.network))
        assert same(weights(first.target.network), weights(resumed.target.network))
        if kind == "hard":
            assert same(weights(resumed.target.network), saved) == (update == 3)
    assert first.updates == resumed.updates == 5
    assert torch.equal(first.transitions, resumed.transitions)


@pytest.mark.parametrize(("name", "value"), [("period", 0), ("polyak_rate", 0.0), ("polyak_rate", 1.5)])
def test_target_user_errors(name: str, value: float) -> None:
    make: Any = target.hard if name == "period" else target.polyak
    with pytest.raises(UserError, match=f"target.{name}"):
        make(network(), heads_only=False, **{name: value})


ADAMW: dict[str, Any] = {
    "lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.5, "warmup_updates": 0, "schedule": "constant",
    "final_fraction": None,
}  # fmt: skip
COSINE = {"schedule": "cosine", "final_fraction": 0.1}


def test_rates_point_by_point() -> None:
    """Guards a first update at rate 0, a schedule that ends early or never, and one that starts again after its end.

    Cosine from 1 to 0.1 over 8 updates: 0.1 + 0.9 (1 + cos(pi u / 8)) / 2, so 1 at 0, 0.55 at 4, 0.1 at 8 and beyond.
    Warm-up over 4: factors 1/4, 2/4, 3/4, 1.
    """
    constant = optimizers.adamw(network(), 8, **ADAMW)
    assert [constant.rate(u) for u in (0, 4, 100)] == [0.1] * 3
    cosine = optimizers.adamw(network(), 8, **(ADAMW | COSINE))
    expected = [0.1, 0.1 * (0.1 + 0.45 * (1 + math.cos(math.pi / 4))), 0.055, 0.01, 0.01]
    assert [cosine.rate(u) for u in (0, 2, 4, 8, 20)] == pytest.approx(expected)
    warm = optimizers.adamw(network(), 8, **(ADAMW | {"warmup_updates": 4}))
    assert [warm.rate(u) for u in (0, 1, 2, 3, 4, 5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    both = optimizers.adamw(network(), 8, **(ADAMW | COSINE | {"warmup_updates": 4}))
    assert [both.rate(u) / cosine.rate(u) for u in (0, 1, 3, 6)] == pytest.approx([0.25, 0.5, 1, 1])


def test_the_rate_reaches_the_weights() -> None:
    """Guards a schedule that is computed but not used: Adam's first step is lr * g / (|g| + eps), so lr in size."""
    for warmup, expected in ((0, 0.1), (4, 0.025)):
        online = network()
        optimizer = optimizers.adamw(online, 8, **(ADAMW | {"weight_decay": 0.0, "warmup_updates": warmup}))
        before = weights(online)
        online(torch.ones(1, 3)).sum().backward()
        optimizer.step(0)
        for a, b, p in zip(before, weights(online), online.parameters(), strict=True):
            assert p.grad is not None
            torch.testing.assert_close(b, a - expected * p.grad.sign())


def test_decay_is_for_matrices_only() -> None:
    """Guards decay of biases and gains. With gradient 0 a matrix shrinks by 1 - lr * decay = 0.95, vectors stay."""
    online = nn.Sequential(nn.Linear(3, 2), make_norm("rms", 2), nn.Embedding(4, 2))
    before = weights(online)
    optimizer = optimizers.adamw(online, 8, **ADAMW)
    for parameter in online.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0)
    factors = [float((b / a).mean()) for a, b in zip(before, weights(online), strict=True)]
    assert factors == pytest.approx([0.95, 1.0, 1.0, 0.95])
    covered = sum(len(g["params"]) for o in optimizer.optimizers for g in o.param_groups)
    assert covered == len(before)


def test_loading_keeps_the_settings_of_the_configuration() -> None:
    """Guards a weight decay that is changed on a resume, shown in config.yaml, and not used: torch puts the saved one back."""
    saved, changed = (optimizers.adamw(network(), 8, **(ADAMW | {"weight_decay": decay})) for decay in (0.5, 0.1))
    changed.load_state_dict(saved.state_dict())
    assert [group["weight_decay"] for group in changed.optimizers[0].param_groups] == [0.1, 0.0]


def test_adam_decays_nothing() -> None:
    settings = {k: v for k, v in ADAMW.items() if k != "weight_decay"}
    online = network()
    before = weights(online)
    optimizer = optimizers.adam(online, 8, **settings)
    for parameter in online.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0)
    assert same(before, weights(online))
    optimizer.zero_grad()
    assert all(p.grad is None for p in online.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.0}, "optimizer.lr"), ({"betas": [0.9]}, "optimizer.betas"), ({"betas": [0.9, 1.0]}, "optimizer.betas"),
        ({"warmup_updates": -1}, "optimizer.warmup_updates"), ({"final_fraction": 0.1}, "optimizer.final_fraction"),
        ({"schedule": "cosine"}, "optimizer.final_fraction"),
    ],
)  # fmt: skip
def test_optimizer_user_errors(change: dict[str, Any], words: str) -> None:
    """Guards settings that are taken and then ignored, such as a final fraction without a schedule."""
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        optimizers.adamw(network(), 8, **(ADAMW | change))


MUON = ADAMW | {"momentum": 0.5, "weight_decay": 0.0}


def steps_taken(
    optimizer: optimizers.OptimizerWithSchedule, online: nn.Module, gradients: list[Tensor], step: int
) -> list[Tensor]:
    """What one step moves each parameter by, given its gradient."""
    before = weights(online)
    for parameter, gradient in zip(online.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step(step)
    return [a - b for a, b in zip(before, weights(online), strict=True)]


def test_muon_turns_the_steps_of_hidden_matrices_alone() -> None:
    """Guards momentum left out, a step as long as the gradient, and embeddings or outputs among the turned ones.

    A step of a hidden m x n matrix is lr 0.2 sqrt(max(m, n)) times the semi-orthogonal factor U V' of Nesterov's average.
    Five Newton-Schulz steps in bfloat16 leave singular values in [0.65, 1.25] of that (Jordan et al. 2024), and the
    singular vectors of the average, here found by SVD. The other parameters take Adam's first step, lr sign(gradient).
    """
    online = make_network()
    optimizer = optimizers.muon(online, 8, **MUON)
    first, second = ([torch.randn_like(p) for p in online.parameters()] for _ in range(2))
    moved = steps_taken(optimizer, online, first, 0)
    again = steps_taken(optimizer, online, second, 1)
    hidden = {id(p) for p in online.body.parameters() if p.dim() == 2}
    assert len(hidden) == 2  # the GRU's two matrices
    for parameter, step, later, g_1, g_2 in zip(online.parameters(), moved, again, first, second, strict=True):
        if id(parameter) not in hidden:
            torch.testing.assert_close(step, 0.1 * g_1.sign(), rtol=1e-3, atol=1e-5)
            continue
        # Momentum .5: average_1 = .5 g_1 and average_2 = .25 g_1 + .5 g_2; Nesterov steps along .5 g + .5 average.
        for found, average in ((step, g_1), (later, 0.5 * g_2 + 0.5 * (0.25 * g_1 + 0.5 * g_2))):
            u, _, v = torch.linalg.svd(average, full_matrices=False)
            unit = 0.1 * 0.2 * max(parameter.shape) ** 0.5
            factor = u.T @ found @ v.T / unit
            size = factor.diagonal()
            assert ((size > 0.65) & (size < 1.25)).all()
            assert (factor - torch.diag(size)).abs().max() < 0.05


def test_muon_turns_no_embedding_and_no_bias() -> None:
    """Guards tables inside a body, their LoRA, and biases of two axes, orthogonalised as if they mixed features."""
    body = nn.ModuleDict(
        {"table": nn.Embedding(6, 4), "inner": nn.Linear(4, 4), "lora_embedding_a": nn.Linear(4, 2, bias=False)}
    )
    body["experts"] = nn.ParameterDict(
        {"up": nn.Parameter(torch.randn(3, 4, 4)), "up_bias": nn.Parameter(torch.randn(3, 4))}
    )
    network = nn.Module()
    network.body, network.output = body, nn.Linear(4, 5)
    optimizer = optimizers.muon(network, 8, **MUON)  # type: ignore[arg-type]
    turned = [p for group in optimizer.optimizers[0].param_groups for p in group["params"]]
    assert len(turned) == 1 and turned[0] is body["inner"].weight


def test_muon_decays_hidden_matrices_and_the_other_matrices_alike() -> None:
    """With gradient 0 a matrix shrinks by 1 - lr * decay = 0.95, vectors stay."""
    online = make_network()
    optimizer = optimizers.muon(online, 8, **(MUON | {"weight_decay": 0.5}))
    before = weights(online)
    zero = [torch.zeros_like(p) for p in online.parameters()]
    for w, moved in zip(before, steps_taken(optimizer, online, zero, 0), strict=True):
        torch.testing.assert_close(moved, 0.05 * w if w.dim() >= 2 else torch.zeros_like(w))


def test_a_state_that_was_saved_of_one_optimizer_by_itself_is_read() -> None:
    """Guards runs that were saved before there could be two: their moments must come back."""
    saved, fresh = (optimizers.adamw(network(), 8, **ADAMW) for _ in range(2))
    for parameter in (p for group in saved.optimizers[0].param_groups for p in group["params"]):
        parameter.grad = torch.ones_like(parameter)
    saved.step(0)
    fresh.load_state_dict(saved.optimizers[0].state_dict())
    moments = [state["exp_avg"] for state in fresh.optimizers[0].state.values()]
    assert len(moments) == 2 and all((m > 0).all() for m in moments)


def test_moments_saved_in_other_groups_are_read() -> None:
    """Bug: a run of several processes that goes on in one, whose moments belong to other weights (parts of sharded weights
    stand in groups of their own), or whose rate is lost."""

    def made(seed: int) -> tuple[nn.Module, optimizers.OptimizerWithSchedule]:
        online = network(seed)
        settings: dict[str, Any] = {"betas": [0.9, 0.99], "eps": 1e-8, "warmup_updates": 0, "final_fraction": None}
        return online, optimizers.adamw(online, 9, lr=0.1, weight_decay=0.1, schedule="constant", **settings)

    online, before = made(0)
    for parameter in online.parameters():
        parameter.grad = torch.arange(1.0, parameter.numel() + 1).view_as(parameter)
    before.step(0)
    (saved,) = before.state_dict()
    matrices, others = saved["param_groups"]
    assert matrices["params"] == [0] and others["params"] == [1]
    apart = [matrices | {"lr": 0.02}, others | {"params": [], "lr": 0.02}, others | {"lr": 0.02}]
    _, after = made(1)
    after.load_state_dict([saved | {"param_groups": apart}])
    (found,) = after.state_dict()
    for number, moments in saved["state"].items():
        assert all(torch.equal(found["state"][number][name], value) for name, value in moments.items())
    assert [group["params"] for group in found["param_groups"]] == [[0], [1]]
    assert [(group["lr"], group["weight_decay"]) for group in found["param_groups"]] == [(0.02, 0.1), (0.02, 0.0)]
    fewer = saved | {"param_groups": [matrices]}
    with pytest.raises(ValueError, match="another number of parameters than 2"):
        after.load_state_dict([fewer])


def test_muon_reaches_every_parameter_once_and_refuses_what_cannot_be() -> None:
    online = make_network()
    optimizer = optimizers.muon(online, 8, **MUON)
    covered = [id(p) for o in optimizer.optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(covered) == sorted(id(p) for p in online.parameters())
    with pytest.raises(UserError, match=r"optimizer\.momentum"):
        optimizers.muon(online, 8, **(MUON | {"momentum": 1.0}))
    online.body.requires_grad_(False)
    with pytest.raises(UserError, match="optimizer=adamw"):
        optimizers.muon(online, 8, **MUON)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.2}, {"momentum": 0.9}, {"betas": [0.5, 0.99]}, {"betas": [0.9, 0.5]}, {"eps": 1.0}, {"weight_decay": 0.5},
        {"warmup_updates": 4}, COSINE, COSINE | {"final_fraction": 0.9},
    ],
)  # fmt: skip
def test_each_setting_of_muon_changes_what_is_learned(change: dict[str, Any]) -> None:
    """Guards an option that nothing reads: three steps with the same gradients end at other weights."""
    ends = []
    for settings in (MUON | (COSINE if "final_fraction" in change and change != COSINE else {}), MUON | change):
        online, source = make_network(), torch.Generator().manual_seed(3)
        optimizer = optimizers.muon(online, 4, **settings)
        for step in range(3):
            steps_taken(optimizer, online, [torch.randn(p.shape, generator=source) for p in online.parameters()], step)
        ends.append(weights(online))
    assert not same(*ends)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_sizes_of_noise_and_tables_of_values_do_not_decay(kind: str) -> None:
    """Bug: decay turns exploration by noise off, whatever is learned, and draws the values of a table towards 0."""
    noisy, table = networks.make("gru", "noisy_dueling").float(), networks.make("table").float()
    noisy_before, table_before = dict(named_weights(noisy)), dict(named_weights(table))
    for each in (noisy, table) if kind == "adamw" else (noisy,):
        make = optimizers.muon if kind == "muon" else optimizers.adamw
        optimization = make(each, 10, **ADAMW | ({"momentum": 0.9} if kind == "muon" else {}))
        for parameter in each.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimization.step(0)
    sigmas = [name for name in noisy_before if name.endswith("sigma")]
    assert len(sigmas) == 8
    after = dict(named_weights(noisy))
    assert all(torch.equal(after[name], noisy_before[name]) for name in sigmas)
    matrices = [name for name, value in noisy_before.items() if value.dim() == 2 and name not in sigmas]
    assert all(not torch.equal(after[name], noisy_before[name]) for name in matrices), "all else decays"
    assert all(torch.equal(value, table_before[name]) for name, value in named_weights(table))


def named_weights(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p.detach().clone()) for name, p in module.named_parameters()]


@pytest.mark.parametrize("many_actions", [False, True])
def test_there_is_no_dropout_in_a_target_of_the_online_network_itself(many_actions: bool, monkeypatch: Any) -> None:
    """Bug: with target=none the future is valued in training mode: two targets of the same batch differ."""
    if many_actions:
        monkeypatch.setattr(learner_module, "MANY_ACTIONS", 1)
    learner = make_learner(target_of=target.none)
    learner.network.body = networks.WithDropout(learner.network.body)
    batch = decisions(random_batch())
    learner.network.train()
    found = [learner.forwards(batch) for _ in range(2)]
    assert not torch.equal(found[0].online["q"], found[1].online["q"]), "the online network has dropout"
    assert found[0].target is not None and found[1].target is not None
    assert torch.equal(found[0].target["q"], found[1].target["q"])
    assert learner.network.training and (many_actions or not found[0].target["q"].requires_grad)


def test_moments_of_a_noisy_network_saved_when_its_sizes_decayed_are_read() -> None:
    """Bug: the moments of one parameter given to another, as those without decay have other numbers now."""
    network = networks.make("gru", "noisy_dueling").float()
    old = optimizers._adam(list(network.parameters()), set(), True, 0.1, [0.9, 0.99], 1e-8, 0.5)
    for number, parameter in enumerate(network.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    old.step()
    new = optimizers.adamw(network, 8, **ADAMW)
    new.load_state_dict([old.state_dict()])
    [optimizer] = new.optimizers
    for number, parameter in enumerate(network.parameters()):
        found = optimizer.state[parameter]["exp_avg"]
        assert found.shape == parameter.shape
        torch.testing.assert_close(found, torch.full_like(parameter, 0.1 * (number + 1)))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    again = optimizers.adamw(network, 8, **ADAMW)
    again.load_state_dict(new.state_dict())
    for parameter in network.parameters():
        assert torch.equal(again.optimizers[0].state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"])
