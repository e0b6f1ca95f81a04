"""A step of acting recorded as a CUDA graph.

A step for a few rows is some hundred kernels of a few microseconds each, and launching them from Python takes longer than they
run. A recording reads and writes fixed memory, therefore the state that it works on is lent, and is free for the next
borrower when the last one has dropped it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dqnlm.utils import cuda_graphs

Outputs = dict[str, Tensor]
State = dict[str, Tensor]
Step = Callable[[Tensor, State], tuple[Outputs, State]]
MOST = 2  # recordings that one network keeps, each with a state (a cache) of its own: of rollouts, and of evaluations
WARM_UPS = 2  # steps before a recording: libraries choose their kernels and allocate their workspaces in them


class Recording:
    """One recorded step: its state's memory, the observation that it reads, the outputs that it writes."""

    def __init__(self, key: tuple[Any, ...], memory: State) -> None:
        self.key, self.memory = key, memory
        self._lent: dict[str, weakref.ref[Tensor]] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._observation_E: Tensor | None = None
        self._outputs: Outputs = {}
        self._addresses: list[int] = []
        self._waits = False  # the step waits for the device, so that it cannot be recorded

    @property
    def is_free(self) -> bool:
        """Whether nobody holds the state any more."""
        return all(reference() is None for reference in self._lent.values())

    def lend(self) -> State:
        """The state, all zeros, as new tensors on the same memory."""
        views = {}
        for name, tensor in self.memory.items():
            tensor.zero_()
            views[name] = tensor.view_as(tensor)
        self._lent = {name: weakref.ref(view) for name, view in views.items()}
        return views

    def owns(self, state: State) -> bool:
        """Whether `state` is the one that was lent, unchanged but for its contents."""
        return state.keys() == self._lent.keys() and all(self._lent[name]() is value for name, value in state.items())

    def run(self, step: Step, network: nn.Module, observation_E: Tensor) -> Outputs:
        """One step of the lent state; the outputs are copies, which later steps leave alone."""
        if self._graph is None and not self._waits:
            self._record(step, network, observation_E)
        if self._graph is None or self._observation_E is None:
            return step(observation_E, self.memory)[0]
        self._observation_E.copy_(observation_E)
        self._graph.replay()
        return {name: raw.clone() for name, raw in self._outputs.items()}

    def drop_if_moved(self, network: nn.Module) -> None:
        """Forgets the graph where the network's weights no longer lie where it reads them."""
        if self._graph is not None and self._addresses != _addresses(network):
            self._graph = None

    def _record(self, step: Step, network: nn.Module, observation_E: Tensor) -> None:
        observation_E = self._observation_E = observation_E.clone()
        kept = {name: value.clone() for name, value in self.memory.items() if value.dim() == 1}  # positions
        for _ in range(WARM_UPS):  # they write the slot that the step will write in any case
            with cuda_graphs.aside(), cuda_graphs.noting_waits() as waits:
                step(observation_E, self.memory)
                for name, value in kept.items():
                    self.memory[name].copy_(value)
        self._waits = bool(waits)  # of the last one: the first may load a library
        if self._waits:
            return
        self._graph, self._outputs = cuda_graphs.record(lambda: step(observation_E, self.memory)[0])
        self._addresses = _addresses(network)


class Recordings:
    """The recorded steps of one network."""

    def __init__(self) -> None:
        self._kept: list[Recording] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Recordings:
        return Recordings()  # a copy of a network has its weights elsewhere

    def lend(self, network: nn.Module, key: tuple[Any, ...], make: Callable[[], State]) -> State:
        """A state of zeros for `key` (sizes, dtype, device); `make` allocates one where none is free."""
        recording = next((r for r in self._kept if r.key == key and r.is_free), None)
        if recording is None:
            if len(self._kept) >= MOST:
                unused = next((r for r in self._kept if r.is_free), None)
                if unused is None:
                    return make()  # all are in use: this state's steps are not recorded
                self._kept.remove(unused)
            recording = Recording(key, make())
        else:
            self._kept.remove(recording)
            recording.drop_if_moved(network)
        self._kept.append(recording)  # the last one used goes last, so that the first free one is the oldest
        return recording.lend()

    def find(self, state: State) -> Recording | None:
        """The recording of this state; None where it is not a lent one."""
        return next((recording for recording in self._kept if recording.owns(state)), None)


def _addresses(network: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())]
