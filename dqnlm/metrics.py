"""Metrics: summed on the device while training, read once per log interval, written as JSON lines and to TensorBoard."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dqnlm.utils.files import require_regular
from dqnlm.utils.ranks import ALONE, Ranks

Metrics = dict[str, float]


class Metric(NamedTuple):
    """An evaluator's declaration of one of its metrics; read by tables, reports, `best_metric` and early stopping.

    Attributes:
        name: `eval/...`.
        label: short, for tables.
        title: for charts, a phrase.
        unit: of the values.
        higher_is_better: None where neither is; such a metric cannot choose the best policy.
    """

    name: str
    label: str
    title: str
    unit: str
    higher_is_better: bool | None = None


class Accumulator:
    """Running means of metrics on the device: adding never syncs with the device; reading does, once for all."""

    def __init__(self, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.device, self.ranks = device, ranks
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, name: str, total: Tensor | float, count: Tensor | float = 1.0) -> None:
        """Adds `count` observations whose sum is `total` (both scalars; tensors stay on the device)."""
        if name not in self._sums:
            self._sums[name] = torch.zeros(2, device=self.device)
        self._sums[name] += torch.stack([self._scalar(total), self._scalar(count)])

    @torch.no_grad()
    def add_means(self, values: dict[str, Tensor], mask: Tensor) -> None:
        """Adds, for each tensor of the mask's shape, its elements where the mask is 1, in few operations."""
        if not values:
            return
        for name in values:
            if name not in self._sums:
                self._sums[name] = torch.zeros(2, device=self.device)
        masked = [value.float() * mask for value in values.values()]
        totals = torch.stack(masked).flatten(1).sum(1)
        pairs = torch.stack([totals, mask.sum().float().expand_as(totals)], 1)
        torch._foreach_add_([self._sums[name] for name in values], list(pairs.unbind()))

    def _scalar(self, value: Tensor | float) -> Tensor:
        """Turns a float into a fill on the device, which needs no sync, rather than a copy."""
        if isinstance(value, Tensor):
            return value.float()
        return torch.full((), value, device=self.device)

    def pop_means(self) -> Metrics:
        """Means over all ranks since the last call, by name; metrics without an observation are left out. One
        synchronisation."""
        if not self._sums:
            return {}
        names = self._names_of_all_ranks()
        table = self.ranks.total(torch.stack([self._sums[name] for name in names])).tolist()
        torch._foreach_zero_(list(self._sums.values()))  # the same tensors go on: a recorded update adds to them
        return {name: total / count for name, (total, count) in zip(names, table, strict=True) if count > 0}

    def pop_sums(self) -> dict[str, Tensor]:
        """(total, count) since the last call, by name; for `add_sums` elsewhere."""
        sums, self._sums = self._sums, {}
        return sums

    @torch.no_grad()
    def add_sums(self, sums: dict[str, Tensor]) -> None:
        """Adds what `pop_sums` gave elsewhere."""
        for name, pair in sums.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros(2, device=self.device)
            self._sums[name] += pair.to(self.device)

    def _names_of_all_ranks(self) -> list[str]:
        """All names in one order; those that only other ranks have are added here, without an observation."""
        others = self.ranks.gather(list(self._sums))
        names = self.ranks.share(lambda: list(dict.fromkeys([*self._sums, *itertools.chain(*others)])))
        for name in names:
            if name not in self._sums:
                self._sums[name] = torch.zeros(2, device=self.device)
        return names

    def state_dict(self) -> dict[str, Tensor]:
        return {name: pair.clone() for name, pair in self._sums.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._sums = {name: pair.to(self.device).clone() for name, pair in state.items()}


class JsonLines:
    """A file with one JSON object per line, flushed after each; a resume truncates it to the recorded `size`.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Opens for appending. `size`: bytes to keep (recorded in a checkpoint); later content is cut off.

        Raises:
            UserError: a pipe or a device lies there.
        """
        require_regular(path)
        if size is not None and path.exists():
            os.truncate(path, min(size, path.stat().st_size))
        self._stream = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._stream.flush()

    @property
    def size(self) -> int:
        """Bytes written so far, safely on disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        self._stream.close()


class NoLines:
    """In place of `JsonLines` where another process writes the file."""

    size = 0

    def write(self, record: dict[str, Any]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


Samples = list[tuple[str, str]]  # (prompt, text) of an evaluation


class Logger(Protocol):
    """Destination of metrics, samples and settings besides the run's own files.

    Built with the run's folder, the first step that is not in its checkpoint (None for a new run), and its settings; nothing is
    begun before `open`, so that a run can be put together without one.
    """

    def open(self) -> list[str]:
        """Begins; returns what the user is told."""
        ...

    def write(self, step: int, metrics: Metrics) -> None: ...

    def write_samples(self, step: int, samples: Samples) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard; on a resume, entries after the checkpoint are purged."""

    def __init__(
        self, folder: Path, purge_step: int | None, settings: Mapping[str, Any], *, flush_seconds: int
    ) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            from dqnlm.errors import UserError

            raise UserError(
                "logger=tensorboard needs the package tensorboard: pip install 'dqnlm[tensorboard]', or set logger=none"
            ) from None
        self._folder, self._purge_step, self._settings = folder / "tensorboard", purge_step, settings
        self._flush_seconds, self._make = flush_seconds, SummaryWriter
        self._writer: Any = None

    def open(self) -> list[str]:
        self._writer = self._make(str(self._folder), purge_step=self._purge_step, flush_secs=self._flush_seconds)  # type: ignore[no-untyped-call]
        if self._purge_step is None:
            rows = "\n".join(f"    {line}" for line in json.dumps(self._settings, indent=1, default=str).splitlines())
            self._writer.add_text("settings", rows, 0)
        return []

    def write(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def write_samples(self, step: int, samples: Samples) -> None:
        """As code (four spaces), so that line breaks stay."""
        texts = ["\n".join(f"    {line}" for line in (prompt + text).splitlines()) for prompt, text in samples]
        if texts:
            self._writer.add_text("samples", "\n\n---\n\n".join(texts), step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class NoLogger:
    """No destination besides metrics.jsonl."""

    def __init__(self, folder: Path, purge_step: int | None, settings: Mapping[str, Any]) -> None:
        del folder, purge_step, settings

    def open(self) -> list[str]:
        return []

    def write(self, step: int, metrics: Metrics) -> None:
        """Does nothing."""

    def write_samples(self, step: int, samples: Samples) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
