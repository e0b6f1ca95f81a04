"""Recording work on a CUDA device as a graph, which launches all its kernels at once.

Where the kernels are small, launching them one by one from Python takes longer than they run. A recording repeats the same
kernels on the same memory: work that waits for the device, or whose kernels depend on values, cannot be recorded.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def can_record(device: torch.device | str) -> bool:
    """Whether work on this device can be recorded."""
    return torch.device(device).type == "cuda"


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Runs work on a stream beside the current one, as what is recorded later must have run before, in order with both."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)


def record(work: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
    """The graph of `work`, and its result, whose tensors every replay writes anew. Nothing is computed yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()
    return graph, result


@contextlib.contextmanager
def noting_waits(describe: Callable[[], str] = lambda: "") -> Iterator[list[str]]:
    """Collects `describe()` at each wait of the host for the device that torch warns of."""
    waits: list[str] = []

    def note(message: Warning | str, *rest: Any, **more: Any) -> None:
        if "called a synchronizing CUDA operation" in str(message):
            waits.append(describe())

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
