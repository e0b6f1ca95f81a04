"""replay: one draw of 64 from rings of 10^4 to 10^7 transitions, uniform and prioritised, rows and single transitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch

from dqnlm.benchmarks.timing import Row, alternate
from dqnlm.buffers.base import Buffer, Setup
from dqnlm.buffers.prioritized import PrioritizedBuffer
from dqnlm.buffers.uniform import UniformBuffer
from dqnlm.types import DECISION, Rows, TaskSpec

SIZES = (10**4, 10**5, 10**6, 10**7)
BATCH, TOKENS, AT_ONCE = 64, 50, 100_000
Mode = Literal["rows", "transitions"]
KINDS: tuple[tuple[str, Mode, int, bool], ...] = (
    ("uniform, single transitions", "transitions", 1, False),
    ("uniform, rows of 64", "rows", 64, False),
    ("prioritised, single transitions", "transitions", 1, True),
    ("prioritised, rows of 64", "rows", 64, True),
)


def rows(rounds: int, device: str, sizes: Sequence[int] = SIZES) -> Iterator[Row]:
    """The slowest over the quickest size of each kind; a prioritised draw comes with its update of the priorities."""
    for name, mode, length, prioritised in KINDS:
        rings = [_filled(size, mode, length, prioritised, torch.device(device)) for size in sizes]
        works = {str(size): _draw(ring, prioritised) for size, ring in zip(sizes, rings, strict=True)}
        medians = {size: sorted(times)[len(times) // 2] * 1e3 for size, times in alternate(works, rounds).items()}
        slow, quick = max(medians.values()), min(medians.values())
        note = ", ".join(f"{int(size):,}: {ms:.2f}" for size, ms in medians.items())
        yield Row("replay", f"{name}, {BATCH} drawn: slowest / quickest size", slow, quick, "ms", slow / quick, "<= 2", note)


def _draw(ring: Buffer, prioritised: bool) -> Callable[[], object]:
    def work() -> None:
        batch = ring.sample(BATCH)
        if prioritised:
            ring.update_priorities(batch, torch.rand(BATCH, batch.mask_BT.shape[1], device=ring.device))

    return work


def _filled(size: int, mode: Mode, length: int, prioritised: bool, device: torch.device) -> Buffer:
    spec = TaskSpec(
        num_actions=TOKENS, num_tokens=TOKENS, row_transitions=length, episode_steps=length, stores_actions=False
    )
    setup = Setup(spec, 0.9, 1, 1, 0, device, torch.Generator(device).manual_seed(0))
    ring: Buffer
    if prioritised:
        ring = PrioritizedBuffer(
            setup, capacity=size, sample=mode, alpha=0.6, beta_start=0.4, eta=0.9, epsilon=1e-6, place="device"
        )
    else:
        ring = UniformBuffer(setup, capacity=size, sample=mode, place="device")
    for start in range(0, ring.rows, AT_ONCE):
        ring.add(_random_rows(min(AT_ONCE, ring.rows - start), length, device))
    return ring


def _random_rows(count: int, length: int, device: torch.device) -> Rows:
    return Rows(
        torch.randint(TOKENS, (count, length + 1), device=device),
        torch.randint(TOKENS, (count, length), device=device),
        torch.rand(count, length, device=device),
        torch.full((count, length), DECISION, dtype=torch.uint8, device=device),
        torch.full((count,), length, device=device),
    )
