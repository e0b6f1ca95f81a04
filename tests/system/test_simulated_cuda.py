"""Every family of runs on tensors that claim to be on a GPU: no mixed devices, no wait for the host where no part is on it.

What a real device adds to this (kernels, streams, memory) is in test_cuda.py, which needs one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from tests.golden import driver
from tests.golden.runs import RUNS, Run
from tests.helpers.device_runs import ALLOWED, built, files, finish, prepared, typed_for_device, watched
from tests.helpers.simulated_cuda import CUDA, MixedDevicesError, OnCuda, SimulatedCuda
from tests.helpers.slow import mostly_slow

SLOW = ("wordle", "dialogue_online", "recorded_dialogue", "free_mixture")


WHOLE = [run for run in RUNS if run.killed_at is None]


@pytest.mark.parametrize("run", mostly_slow(WHOLE, lambda _, run: run.name not in SLOW), ids=lambda run: run.name)
def test_a_run_on_the_device(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a tensor or a random generator made on the CPU, which a CPU run cannot notice; a wait in the loop."""
    prepared(run, tmp_path / "place", monkeypatch)
    with SimulatedCuda() as cuda:
        trainer = built(run, tmp_path / "place")
        assert {p.device for p in trainer.components.policy.network.parameters()} == {CUDA}
        waits = watched(cuda.recording, trainer)
        finish(trainer)
    places = files(waits)
    assert places <= ALLOWED.get(run.name, set()), waits
    assert places == ALLOWED.get(run.name, set()), "a wait that is allowed and is no more: take it from the list"


@pytest.mark.parametrize("name", ["teacher", "iqn_prioritized_transitions", "gru_burn_in", "cloning"])
def test_saved_and_resumed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a state that is restored to the CPU, or one of its tensors or generators."""
    run = next(run for run in RUNS if run.name == name)
    driver.prepare(run, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    shorter = [word for word in typed_for_device(run) if not word.startswith("trainer.rollouts=")] + ["trainer.rollouts=6"]
    composed, choices = composition.compose(shorter)
    with SimulatedCuda():
        checked = validation.validate(composed, choices, shorter)
        Path("run").mkdir()
        assert launch.start(checked, Path("run"), choices=choices, command_line=shorter)["status"] == "finished"
        assert launch.resume(Path("run"), ["trainer.rollouts=9"])["status"] == "finished"
    saved = torch.load(sorted(Path("run/checkpoints").glob("step-*"))[-1] / "policy.pt", weights_only=True)
    assert all(type(value) is torch.Tensor and value.isfinite().all() for value in saved["network"].values())


@pytest.mark.parametrize("name", ["teacher", "iqn_prioritized_transitions"])
def test_replay_on_the_host(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: rows are added to the host's ring from the device, or a batch is learned from where it was drawn."""
    run = next(run for run in RUNS if run.name == name)
    driver.prepare(run, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    with SimulatedCuda() as cuda:
        trainer = built(run, tmp_path / "place", "buffer.place=host")
        assert trainer.components.buffer.device.type == "cpu"
        waits = watched(cuda.recording, trainer)
        finish(trainer)
    # Rows come to the host, batches go to the device (out of pinned memory), and errors come back where they rank.
    ranked = {"buffers/prioritized.py", "training/phases.py"} if trainer.components.buffer.needs_errors else set()
    assert files(waits) == {"buffers/storage.py", "types.py"} | ranked, waits


def test_autocast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a forward under bfloat16 that mixes devices."""
    run = next(run for run in RUNS if run.name == "teacher")
    driver.prepare(run, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    with SimulatedCuda() as cuda:
        assert watched(cuda.recording, built(run, tmp_path / "place", "learner.precision=bfloat16")) == {}


# The simulation itself


def test_mixed_devices_are_refused() -> None:
    """Bug: the simulation lets pass what a GPU refuses."""
    with SimulatedCuda():
        there, here = torch.ones(3, device="cuda:0"), torch.ones(3)
        assert isinstance(there, OnCuda) and there.device == CUDA and not isinstance(here, OnCuda)
        for mixing in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there[torch.tensor([0])].add_(here[:1])):
            with pytest.raises(MixedDevicesError):
                mixing()
        assert (there + torch.tensor(2.0)).tolist() == [3.0] * 3  # a single number of the host may take part
        with pytest.raises(MixedDevicesError, match="generator"):
            torch.rand(3, device="cuda:0", generator=torch.Generator())
        assert torch.rand(3, device="cuda:0", generator=torch.Generator("cuda:0")).device == CUDA
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_waits_are_seen() -> None:
    """Bug: a wait that the simulation does not count, or one that it makes up."""
    with SimulatedCuda() as cuda:
        value = torch.arange(4.0, device="cuda:0")
        for waiting in (
            lambda: value.sum().item(), lambda: value[value > 1], lambda: value.nonzero(), lambda: value.cpu(),
            lambda: bool(value[0]), lambda: torch.ones(2).to("cuda:0"), value.tolist, lambda: torch.tensor([1], device="cuda:0"),
        ):  # fmt: skip
            with cuda.recording() as waits:
                waiting()
            assert sum(waits.values()) >= 1, waiting
        with cuda.recording() as waits:
            ((value * 2).cumsum(0)[:2] + torch.zeros(2, device="cuda:0")).masked_fill(value[:2] > 0, 1.0).max()
        assert not waits


def test_gradients_are_those_of_the_cpu() -> None:
    """Bug: the simulation computes something else, so that what it shows says nothing of the code under test."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(3, 2), torch.randn(5, 3)
    layer(x).square().sum().backward()
    with SimulatedCuda():
        other = torch.nn.Linear(3, 2)
        other.load_state_dict(layer.state_dict())
        other.to("cuda:0")
        other(x.to("cuda:0")).square().sum().backward()
        assert layer.weight.grad is not None and other.weight.grad is not None
        assert torch.equal(other.weight.grad.cpu(), layer.weight.grad)
