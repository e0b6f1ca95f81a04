"""update: one DQN update (online, target, backward, clip, step) against a cross-entropy step of the same network and batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from dqnlm.agent.recorded_update import PLAIN, RecordedUpdate
from dqnlm.benchmarks.runs import SMALL, TEXT, built
from dqnlm.benchmarks.timing import Row, alternate, compared
from dqnlm.training.trainer import Trainer
from dqnlm.types import Batch

BATCH = 16
COSTS = 5  # operators that `--profile` names


def rows(rounds: int, device: str) -> Iterator[Row]:
    """The ratio, and the bytes of a stored transition. A DQN update has two forwards and a backward (twice a forward).

    The floor of the ratio is therefore 4 / 3.
    """
    settings = (*TEXT, SMALL, f"device={device}", f"trainer.batch_size={BATCH}")
    with built(*settings, "gamma=0.5") as ours, built(*settings, "algorithm=behaviour_cloning") as twin:
        ours.train_round(ours.phase)
        recorded, ours.components.learner.recorded = ours.components.learner.recorded, None
        times = alternate({"dqn": _update(ours), "supervised": _supervised(ours, twin)}, rounds)
        yield compared("update", "DQN update / cross-entropy step, 16 x 64 tokens", times, "<= 1.40 (floor 1.33)")
        if recorded is not None:
            ours.components.learner.recorded = recorded
            works = {"dqn": _update(ours), "supervised": _supervised(ours, twin, recorded=True)}
            times = alternate(works, rounds + PLAIN)
            later = {name: seconds[PLAIN:] for name, seconds in times.items()}
            yield compared("update", "the same, both replayed as CUDA graphs", later, "<= 1.40 (floor 1.33)")
        held = ours.components.buffer.bytes_per_transition
        yield Row("memory", "replay buffer, a transition", float(held), None, "bytes", None, "<= 2 x token bytes + 5")


def profiled(device: str) -> Iterator[Row]:
    """The five operators that take most of an update, as shares of its time."""
    settings = (*TEXT, SMALL, f"device={device}", f"trainer.batch_size={BATCH}", "gamma=0.5")
    with built(*settings) as ours:
        ours.train_round(ours.phase)
        update = _update(ours)
        for _ in range(PLAIN + 2):
            update()
        on_cuda = torch.device(ours.components.accumulator.device).type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
        with profile(activities=activities) as found:
            for _ in range(10):
                update()
    kind = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    costs = {event.key: getattr(event, kind) for event in found.key_averages()}
    total = sum(costs.values())
    for name, time_us in sorted(costs.items(), key=lambda item: -item[1])[:COSTS]:
        yield Row("profile", f"update: {name}", 100 * time_us / total, None, "% of the time")


def _update(trainer: Trainer) -> Callable[[], object]:
    parts = trainer.components
    return lambda: parts.learner.update(parts.buffer.sample(BATCH))


def _supervised(ours: Trainer, twin: Trainer, recorded: bool = False) -> Callable[[], object]:
    """Reads the same buffer; next-token cross-entropy with the same optimizer and clipping."""
    network, optimization = twin.components.policy.network, twin.components.learner.optimization

    def step(batch: Batch) -> None:
        raw_BTA = network(batch.observation_BS[:, :-1])["q"].squeeze(-1)
        loss = functional.cross_entropy(raw_BTA.flatten(0, 1), batch.observation_BS[:, 1:].flatten())
        optimization.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0, foreach=True)
        optimization.apply()

    work = RecordedUpdate(step) if recorded else step
    return lambda: work(ours.components.buffer.sample(BATCH))
