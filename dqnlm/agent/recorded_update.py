"""Updates recorded as one CUDA graph.

An update of a small network is some hundred short kernels; replayed as a graph, nothing but the device's own time is left.
The first updates run as they are: they make the optimizer's moments, compile, and show whether anything in them waits for
the device, which a recording cannot. What has the same shapes is replayed from then on, on copies of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.types import Batch
from dqnlm.utils import cuda_graphs

PLAIN = 4  # updates of the same shapes before they are recorded
Work = Callable[[Batch], Tensor | None]


class RecordedUpdate:
    """`recorded(batch)` does what `work(batch)` does, replayed where it can be.

    Args:
        work: changes tensors in place and returns one; it must do the same for every batch of the same shapes.

    Raises (when called):
        UserError: something in it cannot be recorded.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.waits: list[str] = []  # why nothing is recorded
        self.forget()

    def forget(self) -> None:
        """Begins anew, where tensors that the recording reads have been replaced."""
        self._form: tuple[Any, ...] = ()
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self._result: Tensor | None = None

    @property
    def is_recorded(self) -> bool:
        return self._graph is not None

    def __call__(self, batch: Batch) -> Tensor | None:
        if _form(batch) != self._form:
            self.forget()
            self._form = _form(batch)
        if self._graph is not None:
            return self._replay(batch)
        if self.waits:
            return self.work(batch)
        self._seen += 1
        if self._seen <= PLAIN:
            return self._plain(batch)
        self._record(batch)
        return self._replay(batch)

    def _record(self, batch: Batch) -> None:
        copies: dict[str, Any] = {name: x.clone() for name, x in vars(batch).items() if isinstance(x, Tensor)}
        kept = self._batch = replace(batch, **copies)
        try:
            self._graph, self._result = cuda_graphs.record(lambda: self.work(kept))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"this run's updates cannot be recorded as a CUDA graph ({reason}); set learner.record=false"
            ) from error

    def _plain(self, batch: Batch) -> Tensor | None:
        if self._seen < PLAIN:
            with cuda_graphs.aside():
                return self.work(batch)
        with cuda_graphs.aside(), cuda_graphs.noting_waits(lambda: "a value is read on the host") as waits:
            result = self.work(batch)
        self.waits = waits
        return result

    def _replay(self, batch: Batch) -> Tensor | None:
        assert self._graph is not None and self._batch is not None
        for name, value in vars(batch).items():
            if isinstance(value, Tensor):
                getattr(self._batch, name).copy_(value)
        self._graph.replay()
        return self._result


def _form(batch: Batch) -> tuple[Any, ...]:
    """Shapes and types of a batch's tensors, and its other values."""
    return tuple((tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x for x in vars(batch).values())
