"""What is particular to one body or projection, tied weights, and the configuration of networks."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from dqnlm.errors import UserError
from dqnlm.networks.base import QNetwork, TokenEncoder, VectorEncoder
from dqnlm.networks.layers import MOST_LAYERS, Attention, require_sizes, rotary_table, rotate
from dqnlm.networks.noisy import Noisy, NoisyDueling
from dqnlm.networks.projections import Dueling, Linear
from dqnlm.networks.recurrent import GRU
from dqnlm.networks.table import Table
from dqnlm.networks.transformer import Transformer
from dqnlm.networks.window_mlp import WindowMLP
from tests.helpers.networks import ACTIONS, CONTEXT, VOCABULARY, WINDOW, close, make, tokens, transformer, window_mlp
from tests.helpers.paths import CONFIGS

# Window


def test_window_reaches_exactly_its_length() -> None:
    """Guards against a window one token too long or too short."""
    network, observation = make("window_mlp"), tokens(1, 9)
    before = network(observation)["q"]
    for distance in range(6):
        changed = observation.clone()
        changed[0, 8 - distance] = (changed[0, 8 - distance] + 1) % VOCABULARY
        moved = (network(changed)["q"][0, 8] - before[0, 8]).abs().max()
        assert (moved > 1e-3) == (distance < WINDOW), distance


def test_window_before_the_start_is_the_padding_vector() -> None:
    """Guards against zeros, or the first token, standing where the row has no token yet."""
    network, observation = make("window_mlp"), tokens(2, 1)
    body = network.body
    assert isinstance(body, WindowMLP)
    flat = torch.cat([body.padding_D.expand(2, WINDOW - 1, -1).flatten(1), network.encoder(observation[:, 0])], 1)
    close(body(network.encoder(observation))[:, 0], body.mlp(flat))


@pytest.mark.parametrize("body", ["window_mlp", "gru"])
def test_bodies_without_a_limit_read_on(body: str) -> None:
    """Guards against a limit where none was declared."""
    network = make(body)
    assert network.max_observations is None
    assert network(tokens(2, 5 * CONTEXT))["q"].shape[1] == 5 * CONTEXT


def test_window_normalises_before_each_relu() -> None:
    """Bug: a norm after the ReLU, or in front of some layers only, and a first layer whose scale still shows."""
    body = window_mlp(WINDOW, layers=2, norm="layer")
    kinds = [type(module) for module in body.mlp]
    assert kinds == 2 * [nn.Linear, nn.LayerNorm, nn.ReLU]
    assert [type(module) for module in window_mlp(WINDOW, layers=2).mlp] == 2 * [nn.Linear, nn.ReLU]
    x = torch.randn(2, 5, 6)
    first = body(x)
    with torch.no_grad():
        body.mlp[0].weight.mul_(1000.0)  # type: ignore[operator]
        body.mlp[0].bias.mul_(1000.0)  # type: ignore[operator]
    torch.testing.assert_close(body(x), first, rtol=1e-3, atol=1e-3)


# Table


def test_table_is_exactly_a_table() -> None:
    """Bug: an update of one pair of observation and action that moves another, or a row chosen by anything but the token.

    A gradient step of size 1 on Q(o=4, a=2), whatever came before token 4, must add 1 to that entry and nothing elsewhere.
    """
    network = make("table")
    projection = network.projections["q"]
    assert isinstance(projection, Linear)
    every = torch.arange(VOCABULARY)[None]
    before_OA = network(every)["q"][0, :, :, 0].detach()
    close(before_OA, projection.linear.weight.T)
    assert sum(p.numel() for p in network.parameters()) == VOCABULARY * ACTIONS
    close(network(tokens(3, 6))["q"][..., 0], before_OA[tokens(3, 6)])
    close(network(tokens(3, 6).int())["q"][..., 0], before_OA[tokens(3, 6)])
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    (-network(torch.tensor([[7, 1, 4]]))["q"][0, -1, 2, 0]).backward()
    optimizer.step()
    moved_OA = network(every)["q"][0, :, :, 0] - before_OA
    expected_OA = torch.zeros(VOCABULARY, ACTIONS).double()
    expected_OA[4, 2] = 1.0
    close(moved_OA, expected_OA)


# Vectors


def test_vector_observations() -> None:
    """Bug: vectors read as tokens, axes mixed, or an input type other than the weights' refused.

    W = (1 -1), b = 1/2: the vectors (2, 1) and (0, 3) give relu(3/2) = 3/2 and relu(-5/2) = 0.
    """
    encoder = VectorEncoder(2, 1)
    encoder.linear.weight.data, encoder.linear.bias.data = torch.tensor([[1.0, -1.0]]), torch.tensor([0.5])
    assert encoder(torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)).tolist() == [[1.5], [0.0]]
    torch.manual_seed(0)
    body = window_mlp(WINDOW, layers=1)
    network = QNetwork(VectorEncoder(4, body.width), body, {"q": Linear(body.features, 3, 1)})
    observation_BSF = torch.randn(2, 7, 4)
    expected = network(observation_BSF)["q"]
    assert expected.shape == (2, 7, 3, 1)
    state = network.initial_state(2, "cpu")
    for time in range(7):
        output, state = network.step(observation_BSF[:, time], state)
        torch.testing.assert_close(output["q"], expected[:, time])


# Transformer


def test_transformer_refuses_more_than_it_can_read() -> None:
    """Guards against silent wrap-around or truncation; context + 1 observations are the most."""
    network = make("transformer")
    assert network.max_observations == CONTEXT + 1
    assert network(tokens(2, CONTEXT + 1))["q"].shape[1] == CONTEXT + 1
    with pytest.raises(UserError, match=r"network\.context"):
        network(tokens(2, CONTEXT + 2))
    with pytest.raises(UserError, match=r"network\.context"):
        network.prefill(tokens(2, CONTEXT + 2), network.initial_state(2, "cpu", torch.float64))


def test_transformer_refuses_a_step_into_a_full_cache() -> None:
    """Guards against overwriting the cache; one environment that was reset does not make room for the other."""
    network = make("transformer")
    state = network.initial_state(2, "cpu", torch.float64)
    _, state = network.prefill(tokens(2, CONTEXT + 1), state)
    state = network.reset(state, torch.tensor([True, False]))
    with pytest.raises(UserError, match=r"network\.context"):
        network.step(tokens(2, 1)[:, 0], state)
    state = network.reset(state, torch.tensor([False, True]))
    network.step(tokens(2, 1)[:, 0], state)


def test_prefill_is_refused_in_mid_episode() -> None:
    """Guards against observations written over those already read, with the positions of a first observation."""
    network = make("transformer")
    _, state = network.prefill(tokens(2, 3), network.initial_state(2, "cpu", torch.float64))
    state = network.reset(state, torch.tensor([True, False]))
    with pytest.raises(ValueError, match="reset"):
        network.prefill(tokens(2, 3), state)


def test_cache_is_allocated_once() -> None:
    """Guards against a cache that is copied or grows with every step."""
    network = make("transformer")
    state = network.initial_state(2, "cpu", torch.float64)
    addresses = {name: value.data_ptr() for name, value in state.items()}
    assert state["cache"].shape == (3, 2, 2, 2, CONTEXT + 1, 4)
    _, state = network.prefill(tokens(2, 4), state)
    for _ in range(3):
        _, state = network.step(tokens(2, 1)[:, 0], state)
    state = network.reset(state, torch.tensor([True, False]))
    assert {name: value.data_ptr() for name, value in state.items()} == addresses
    assert state["position"].tolist() == [0, 7]


def test_dropout_acts_in_training_only() -> None:
    """Guards against random Q-values in evaluation, and a dropout key that nothing reads."""
    network, observation = make(transformer(dropout=0.5)), tokens(3, 8)
    close(network(observation)["q"], network(observation)["q"])
    network.train()
    assert (network(observation)["q"] - network(observation)["q"]).abs().max() > 1e-3


def test_attention_drops_its_weights_in_training() -> None:
    """Guards against dropout that reaches the residual updates but not the attention weights."""
    attention = transformer(dropout=0.5).blocks[0].attention.train()  # type: ignore[union-attr]
    x, table = torch.randn(2, 6, 8), rotary_table(6, 4)
    assert (attention(x, table, 0)[0] - attention(x, table, 0)[0]).abs().max() > 1e-4  # type: ignore[operator]


def test_rotation_by_hand() -> None:
    """(1, 0) at position 1 is turned by 1 rad in the first pair, by 10,000^(-1/2) = 0.01 rad in the second of two."""
    turned = rotate(torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 1, 4), rotary_table(2, 4)[1:])
    expected = torch.tensor([0.540302306, 0.841470985, 0.999950000, 0.009999833])  # cos 1, sin 1, cos .01, sin .01
    torch.testing.assert_close(turned.flatten(), expected)


def test_rotation_knows_distances_only() -> None:
    """Guards against absolute positions: a score may depend on how far key and query lie apart, on nothing else."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).unbind(0)
    table = rotary_table(40, 8).double()

    def score(query_position: int, key_position: int) -> Tensor:
        turned = rotate(query, table[query_position, None]), rotate(key, table[key_position, None])
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7, 3), score(37, 33), rtol=1e-5, atol=1e-5)
    assert (score(7, 3) - score(7, 4)).abs() > 1e-3
    torch.testing.assert_close(rotate(query, table[0, None]), query)


def test_attention_knows_distances_only() -> None:
    """Guards keys or queries that are not turned: the same tokens four places later attend to one another as before."""
    torch.manual_seed(0)
    attention, x_BSD, table = Attention(8, 2, 0.0).double(), torch.randn(2, 6, 8).double(), rotary_table(20, 4).double()
    nn.init.normal_(attention.qkv.weight)
    here, later = attention(x_BSD, table[:6], 0)[0], attention(x_BSD, table[4:10], 0)[0]
    torch.testing.assert_close(here, later, rtol=1e-5, atol=1e-6)
    assert (here - attention(x_BSD, table[0].expand(6, -1, -1), 0)[0]).abs().max() > 1e-2, "and distances matter"


def test_transformer_scales_what_writes_to_the_residual() -> None:
    """GPT-2's start: 0.02, and 0.02 / sqrt(2 * 8 layers) = 0.005 for the layers that write to the residual stream."""
    torch.manual_seed(0)
    body = Transformer(layers=8, heads=2, width=64, context=4, norm="rms", dropout=0.0, tie_weights=False)
    for name, parameter in body.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            assert parameter.std().item() == pytest.approx(0.005, rel=0.1), name
        elif name.endswith(("qkv.weight", "up.weight")):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name


# Tied weights


def test_tied_weights_are_one_parameter() -> None:
    """Guards against a copy: the two would part at the first update, at a deep copy, or when loaded."""
    torch.manual_seed(0)
    network = QNetwork(TokenEncoder(7, 8, 0.02), transformer(tie_weights=True), {"q": Linear(8, 7, 1)})
    untied = QNetwork(TokenEncoder(7, 8, 0.02), transformer(), {"q": Linear(8, 7, 1)})
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in network.parameters()) == 7 * 8
    assert isinstance(network.encoder, TokenEncoder)
    before = network.encoder.weight.clone()
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    network(torch.tensor([[1, 2, 3]]))["q"][..., 5, 0].sum().backward()
    optimizer.step()
    assert (network.encoder.weight[5] - before[5]).abs().max() > 1e-4, "token 5 was never read, only scored"
    restored = QNetwork(TokenEncoder(7, 8, 0.02), transformer(tie_weights=True), {"q": Linear(8, 7, 1)})
    restored.load_state_dict(network.state_dict())
    for one in (network, copy.deepcopy(network), restored):
        projection = one.projections["q"]
        assert isinstance(projection, Linear) and isinstance(one.encoder, TokenEncoder)
        assert projection.linear.weight is one.encoder.weight
        close(one.encoder.weight, network.encoder.weight)


@pytest.mark.parametrize(
    ("encoder", "projection", "message"),
    [
        (TokenEncoder(7, 8, 0.02), Dueling(8, 7, 1, hidden=0), "projection=linear"),
        (TokenEncoder(7, 8, 0.02), Linear(8, 7, 51), "head=scalar"),
        (TokenEncoder(9, 8, 0.02), Linear(8, 7, 1), "7 actions and 9 observed tokens"),
        (TokenEncoder(7, 6, 0.02), Linear(8, 7, 1), "8 features and the embedding has 6"),
        (nn.Linear(3, 8), Linear(8, 7, 1), "no matrix of tokens"),
    ],
)
def test_tied_weights_are_refused_where_they_cannot_be(encoder: nn.Module, projection: nn.Module, message: str) -> None:
    """Guards against a key that is silently without effect."""
    with pytest.raises(UserError, match=message):
        QNetwork(encoder, transformer(tie_weights=True), {"q": projection})


# Projections


def test_dueling_by_hand() -> None:
    """V = 2 h, A = (1, 3, 8) h: mean A = 4 h, so at h = 1 Q = 2 + (1, 3, 8) - 4 = (-1, 1, 6)."""
    dueling = Dueling(1, 3, 1, hidden=0)
    assert isinstance(dueling.value, nn.Linear) and isinstance(dueling.advantage, nn.Linear)
    dueling.value.weight.data = torch.tensor([[2.0]])
    dueling.advantage.weight.data = torch.tensor([[1.0], [3.0], [8.0]])
    close(dueling(torch.ones(1, 1))[0, :, 0], torch.tensor([-1.0, 1.0, 6.0]))


def test_dueling_averages_over_actions_within_a_parameter() -> None:
    """Guards against a mean over atoms, or over both: for each atom, the mean over actions must be that atom's V."""
    torch.manual_seed(0)
    dueling, h = Dueling(4, 5, 3, hidden=6), torch.randn(2, 7, 4)
    torch.testing.assert_close(dueling(h).mean(-2), dueling.value(h))


# Configuration


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (
            lambda: Transformer(layers=0, heads=2, width=8, context=4, norm="layer", dropout=0.0, tie_weights=False),
            "network.layers=1",
        ),
        (
            lambda: Transformer(layers=1, heads=2, width=8, context=0, norm="layer", dropout=0.0, tie_weights=False),
            "network.context=1",
        ),
        (
            lambda: Transformer(layers=1, heads=3, width=20, context=4, norm="layer", dropout=0.0, tie_weights=False),
            "network.width=18",
        ),
        (
            lambda: Transformer(layers=1, heads=2, width=8, context=4, norm="rms", dropout=1.0, tie_weights=False),
            "network.dropout",
        ),
        (lambda: GRU(layers=1, width=0, context=4), "network.width=1"),
        (lambda: window_mlp(0, layers=1), "network.window=1"),
        (lambda: Table(4, context=0), "network.context=1"),
        (lambda: Noisy(4, 3, 1, sigma=-0.1), "projection.sigma=0.5"),
        (lambda: NoisyDueling(4, 3, 1, hidden=-1, sigma=0.5), "projection.hidden=0"),
        (lambda: Dueling(4, 3, 1, hidden=-1), "projection.hidden=0"),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], nn.Module], key: str) -> None:
    """Guards against an error without the key's name and a value that works."""
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        build()


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.glob("network/*.yaml"), *CONFIGS.glob("projection/*.yaml")]), ids=lambda path: path.stem
)
def test_configuration_and_constructor_have_the_same_keys(path: Path) -> None:
    """Guards against a key that nothing reads, and a default that stands in two places."""
    assert path.read_text().startswith(f"# {path.stem}: ")
    values = yaml.safe_load(path.read_text())
    module, name = values.pop("_target_").rsplit(".", 1)
    target = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(target).parameters.values()
    keys = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keys == set(values)
    assert all(p.default is p.empty for p in parameters)
    if path.stem == "pretrained":
        return  # it needs a model on disk: test_pretrained.py
    pool = {"num_tokens": 5, "features": 4, "num_actions": 3, "num_parameters": 1}
    positional = [pool[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert isinstance(target(*positional, **values), nn.Module)


@pytest.mark.parametrize("layers", [0, MOST_LAYERS + 1, 2**62])
def test_the_number_of_layers_has_bounds(layers: int) -> None:
    """Bug: nothing ends a network of 2^62 layers, which are built one by one, but the memory of the machine."""
    with pytest.raises(UserError, match=r"network\.layers is"):
        require_sizes(layers=layers, width=8, context=8)
    require_sizes(layers=MOST_LAYERS, width=8, context=8)
