"""Every body under every projection keeps the promises of `dqnlm.networks.base`."""

from __future__ import annotations

import pytest
import torch

from dqnlm.errors import UserError
from dqnlm.networks.base import Body, QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear, StateValue
from tests.helpers.networks import (
    ACTIONS,
    BODIES,
    CONTEXT,
    PARAMETERS,
    PROJECTIONS,
    VOCABULARY,
    close,
    encoder_for,
    make,
    tokens,
    transformer,
)

every_body = pytest.mark.parametrize("body", BODIES)
every_network = pytest.mark.parametrize(("body", "projection"), [(b, p) for b in BODIES for p in PROJECTIONS])


@every_network
def test_outputs_have_one_entry_for_each_action_and_parameter(body: str, projection: str) -> None:
    """Guards against raw outputs that mix up actions and parameters."""
    raw = make(body, projection)(tokens(4, 5))["q"]
    assert raw.shape == (4, 5, ACTIONS, PARAMETERS.get(projection, 1))


@every_network
def test_prefill_then_steps_equal_forward(body: str, projection: str) -> None:
    """Guards against a cache off by one, and rotary positions that differ between the two ways of reading."""
    network, observation = make(body, projection), tokens(4, CONTEXT + 1)
    expected = network(observation)["q"]
    for prefix in (0, 1, 5, CONTEXT + 1):
        state = network.initial_state(4, "cpu", torch.float64)
        outputs = []
        if prefix:
            read, state = network.prefill(observation[:, :prefix], state)
            outputs = list(read["q"].unbind(1))
        for time in range(prefix, CONTEXT + 1):
            output, state = network.step(observation[:, time], state)
            outputs.append(output["q"])
        close(torch.stack(outputs, 1), expected)


@every_network
def test_masked_resets_start_single_environments_anew(body: str, projection: str) -> None:
    """Guards against a reset that touches other environments, or leaves something of the old episode behind."""
    network, steps, prefix = make(body, projection), 20, 2
    observation = tokens(4, steps)
    resets = {4: [1], 6: [0, 3], 7: [0], 10: [0, 1, 2, 3], 15: [1, 2], 19: [0, 3]}
    start = [0, 0, 0, 0]
    state = network.initial_state(4, "cpu", torch.float64)
    _, state = network.prefill(observation[:, :prefix], state)
    for time in range(prefix, steps):
        mask = torch.tensor([row in resets.get(time, []) for row in range(4)])
        state = network.reset(state, mask)
        start = [time if mask[row] else start[row] for row in range(4)]
        if time - min(start) > CONTEXT:
            pytest.fail("the test's own episodes are too long")
        output, state = network.step(observation[:, time], state)
        for row in range(4):
            close(output["q"][row], network(observation[row : row + 1, start[row] : time + 1])["q"][0, -1])


@every_body
def test_prefill_after_all_were_reset(body: str) -> None:
    """Guards against a prefill that goes on from where the last episodes were."""
    network, observation = make(body), tokens(3, 6)
    state = network.initial_state(3, "cpu", torch.float64)
    _, state = network.prefill(tokens(3, 8).flip(1), state)
    state = network.reset(state, torch.ones(3, dtype=torch.bool))
    output, state = network.prefill(observation[:, :5], state)
    close(output["q"], network(observation[:, :5])["q"])
    close(network.step(observation[:, 5], state)[0]["q"], network(observation)["q"][:, -1])


@every_body
def test_body_prefill_equals_its_default_of_steps(body: str) -> None:
    """Guards against a body's own prefill leaving another state than step after step."""
    network = make(body)
    x = network.encoder(tokens(3, 5)).detach()
    h, state = network.body.prefill(x, network.initial_state(3, "cpu", torch.float64))
    expected, by_steps = Body.prefill(network.body, x, network.initial_state(3, "cpu", torch.float64))
    close(h, expected)
    for name, value in by_steps.items():
        close(state[name], value)


@every_network
def test_no_output_sees_a_later_observation(body: str, projection: str) -> None:
    """Guards against a missing causal mask, which would leak the answer into the Q-values."""
    network, observation = make(body, projection), tokens(4, 8)
    changed = observation.clone()
    changed[:, 5] = (changed[:, 5] + 1) % VOCABULARY
    before, after = network(observation)["q"], network(changed)["q"]
    close(after[:, :5], before[:, :5])
    assert (after[:, 5] - before[:, 5]).abs().amax() > 1e-3
    late, late_changed = network(observation, first=3)["q"], network(changed, first=3)["q"]
    close(late_changed[:, :2], late[:, :2])


@every_network
def test_first_gives_the_same_as_slicing(body: str, projection: str) -> None:
    """Guards against a shortcut that drops keys, or the tokens that the first windows need."""
    network, observation = make(body, projection), tokens(4, 8)
    expected = network(observation)["q"]
    for first in range(8):
        close(network(observation, first)["q"], expected[:, first:])


@every_body
def test_features_then_project_equal_forward(body: str) -> None:
    """Bug: a shared trunk whose outputs are not those of the whole network, or not of the times asked for."""
    network, observation = make(body), tokens(4, 8)
    close(network.project(network.features(observation, 3))["q"], network(observation, 3)["q"])


@every_body
def test_rows_do_not_see_one_another(body: str) -> None:
    """Guards against axes mixed up between rows, heads and times."""
    network, observation = make(body), tokens(4, 8)
    close(network(observation)["q"][2:3], network(observation[2:3])["q"])


@every_network
@pytest.mark.parametrize("first", [0, 4])
def test_every_parameter_learns(body: str, projection: str, first: int) -> None:
    """Guards against a part cut off from the loss, and gradients that are not finite."""
    network = make(body, projection).train()
    raw = network(tokens(6, 8), first)["q"]
    raw.square().sum().backward()
    # Rows of padding lie before the first window when that starts late enough.
    idle = {"body.padding_D"} if first or body == "window_of_one" else set()
    for name, parameter in network.named_parameters():
        if name in idle:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


@every_body
def test_float32_agrees_between_forward_and_steps(body: str) -> None:
    """Guards against a path that loses precision in the type that training uses."""
    network, observation = make(body).float(), tokens(4, 8)
    state = network.initial_state(4, "cpu")
    for time in range(8):
        output, state = network.step(observation[:, time], state)
    torch.testing.assert_close(output["q"], network(observation)["q"][:, -1], rtol=1e-4, atol=1e-4)


@every_body
def test_bfloat16_runs(body: str) -> None:
    """Guards against complex rotation, which has no bfloat16, and a cache of another type than the features."""
    network, observation = make(body).bfloat16(), tokens(4, 6)
    state = network.initial_state(4, "cpu", torch.bfloat16)
    _, state = network.prefill(observation[:, :5], state)
    output, state = network.step(observation[:, 5], state)
    assert output["q"].dtype == network(observation)["q"].dtype == torch.bfloat16
    assert all(value.dtype in {torch.bfloat16, torch.int64} for value in state.values())


@every_body
def test_acting_waits_for_no_device(body: str) -> None:
    """Guards against .item(), bool(tensor) or nonzero while acting: none of them works on tensors without data."""
    network = make(body).to("meta")
    state = network.initial_state(4, "meta", torch.float64)
    _, state = network.prefill(torch.empty(4, 3, dtype=torch.int64, device="meta"), state)
    state = network.reset(state, torch.empty(4, dtype=torch.bool, device="meta"))
    output, state = network.step(torch.empty(4, dtype=torch.int64, device="meta"), state)
    assert output["q"].shape == (4, ACTIONS, 1)


@every_body
def test_acting_keeps_no_graph(body: str) -> None:
    """Guards against memory that grows with every step of a rollout."""
    network = make(body)
    state = network.initial_state(2, "cpu", torch.float64)
    _, state = network.prefill(tokens(2, 3), state)
    output, state = network.step(tokens(2, 1)[:, 0], state)
    assert not output["q"].requires_grad
    assert not any(value.requires_grad for value in state.values())


@every_body
def test_first_outputs_are_small(body: str) -> None:
    """Guards against first Q-values that saturate a logistic head, and against outputs that are all the same."""
    torch.manual_seed(0)
    built = BODIES[body]()
    raw = QNetwork(encoder_for(built), built, {"q": Linear(built.features, 7, 1)})
    values = raw(tokens(8, 9))["q"]
    assert values.abs().max() < 1.0
    assert values.std() > 1e-3


def test_several_named_outputs() -> None:
    """Guards against outputs that share a projection, or lose their names."""
    body = transformer()
    network = QNetwork(TokenEncoder(VOCABULARY, 8, 0.02), body, {"q": Linear(8, 7, 1), "v": Linear(8, 1, 1)})
    outputs = network(tokens(2, 3))
    assert {name: tuple(raw.shape) for name, raw in outputs.items()} == {"q": (2, 3, 7, 1), "v": (2, 3, 1, 1)}


def test_a_value_of_the_state_alone_ranks_no_actions() -> None:
    """Bug: a run whose Q-values are equal in every state, and which nothing refuses."""
    with pytest.raises(UserError, match=r"projection=state_value.*network\.q_init=logits"):
        transformer().make_outputs(("q",), ACTIONS, lambda name: StateValue(8, ACTIONS, 1))
