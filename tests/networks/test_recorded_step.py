"""Recorded steps of acting: who may use a recording's state, and (on a CUDA device) the same outputs as without one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from dqnlm.agent.generation import generate
from dqnlm.networks.base import QNetwork, TokenEncoder
from dqnlm.networks.projections import Linear
from dqnlm.networks.recorded_step import MOST, Recordings
from dqnlm.networks.transformer import Transformer

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def made() -> dict[str, Tensor]:
    return {"cache": torch.zeros(2, 3), "position": torch.zeros(2, dtype=torch.int64)}


def test_a_state_is_lent_to_one_at_a_time() -> None:
    """Bug: two texts that are written at the same time share one cache."""
    recordings, network = Recordings(), torch.nn.Linear(1, 1)
    first = recordings.lend(network, (2,), made)
    second = recordings.lend(network, (2,), made)
    assert recordings.find(first) is not recordings.find(second)
    first["cache"] += 1
    assert second["cache"].sum() == 0


def test_a_state_that_was_dropped_is_lent_again_as_zeros() -> None:
    """Bug: each rollout records anew; an episode begins with what the last one left."""
    recordings, network = Recordings(), torch.nn.Linear(1, 1)
    state = recordings.lend(network, (2,), made)
    recording = recordings.find(state)
    state["cache"] += 1
    del state
    state = recordings.lend(network, (2,), made)
    assert recordings.find(state) is recording and state["cache"].sum() == 0
    assert recordings.find(recordings.lend(network, (3,), made)) is not recording


def test_a_state_with_another_tensor_is_not_the_recorded_one() -> None:
    """Bug: a caller exchanges a tensor of the state, and the recording goes on with the old one."""
    recordings = Recordings()
    state = recordings.lend(torch.nn.Linear(1, 1), (2,), made)
    assert recordings.find(state | {"position": state["position"].clone()}) is None
    assert recordings.find(dict(state)) is not None


def test_no_more_states_are_kept_than_allowed() -> None:
    """Bug: each number of environments keeps memory for ever; or more borrowers than states end in an error."""
    recordings, network = Recordings(), torch.nn.Linear(1, 1)
    held = [recordings.lend(network, (size,), made) for size in range(MOST)]
    further = recordings.lend(network, (99,), made)
    assert recordings.find(further) is None and len(held) == len(recordings._kept) == MOST
    del held[1]
    assert recordings.find(recordings.lend(network, (99,), made)) is not None and len(recordings._kept) == MOST


def transformer() -> QNetwork:
    torch.manual_seed(0)
    body = Transformer(layers=2, heads=2, width=32, context=16, norm="layer", dropout=0.1, tie_weights=False)
    return QNetwork(TokenEncoder(11, 32, 0.02), body, {"q": Linear(32, 11, 1)})


@needs_cuda
def test_recorded_outputs_are_those_of_whole_rows() -> None:
    """Bug: the recording writes elsewhere than the prompt's cache, or an output is overwritten by the next step."""
    network = transformer().cuda().eval()
    row_ES = torch.randint(11, (3, 15), device="cuda")
    for _ in range(2):  # recorded, then lent again
        state = network.initial_state(3, "cuda")
        output, state = network.prefill(row_ES[:, :4], state)
        steps = [output["q"][:, -1]]
        for observation_E in row_ES[:, 4:].unbind(1):
            output, state = network.step(observation_E, state)
            steps.append(output["q"])
        torch.testing.assert_close(torch.stack(steps, 1), network(row_ES, 3)["q"], atol=1e-4, rtol=1e-4)
        del state
    assert len(network._recordings._kept) == 1


@needs_cuda
def test_new_weights_are_used_wherever_they_lie() -> None:
    """Bug: a recording goes on with the weights of the time when it was made."""
    network, start_ES = transformer().cuda().eval(), torch.zeros(2, 3, dtype=torch.int64, device="cuda")

    def tokens(net: QNetwork) -> Tensor:
        return torch.stack(list(generate(net, start_ES, lambda output: output["q"][..., 0].argmax(-1), 12)), 1)

    tokens(network)
    with torch.no_grad():  # in place, as an optimizer does
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    plain = copy.deepcopy(network)
    plain._records = False
    assert torch.equal(tokens(network), tokens(plain))
    for parameter in network.parameters():  # elsewhere
        parameter.data = torch.randn_like(parameter)
    plain = copy.deepcopy(network)
    plain._records = False
    assert torch.equal(tokens(network), tokens(plain))
