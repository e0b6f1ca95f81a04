"""Metrics: summed on the device while training, read once per log interval, written as JSON lines and to TensorBoard."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

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
        """Opens for appending. `size`: bytes to keep (recorded in a checkpoint); later content is cut off."""
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


class Logger(Protocol):
    """Destination of metrics besides `metrics.jsonl`."""

    def write(self, step: int, metrics: Metrics) -> None: ...

    def write_sample(self, step: int, number: int, prompt: str, text: str) -> None: ...

    def write_settings(self, settings: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files below RUN/tensorboard; on a resume, entries after the checkpoint are purged."""

    def __init__(self, folder: Path, purge_step: int | None, *, flush_seconds: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            from dqnlm.errors import UserError

            raise UserError(
                "logger=tensorboard needs the package tensorboard: pip install 'dqnlm[tensorboard]', or set logger=none"
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=flush_seconds)  # type: ignore[no-untyped-call]

    def write(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]

    def write_sample(self, step: int, number: int, prompt: str, text: str) -> None:
        """As text that is shown as it is: Markdown's block of code, which an indent makes."""
        shown = "\n".join(f"    {line}" for line in (prompt + text).split("\n"))
        self._writer.add_text(f"sample/{number}", shown, step)  # type: ignore[no-untyped-call]

    def write_settings(self, settings: dict[str, Any]) -> None:
        """As a table of all settings by dotted key."""
        rows = [f"| {key} | {str(value).replace('|', ' ')} |" for key, value in _dotted(settings)]
        table = "\n".join(["| setting | value |", "| --- | --- |", *rows])
        self._writer.add_text("settings", table, 0)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


def _dotted(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class NoLogger:
    """No destination besides metrics.jsonl."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        del folder, purge_step

    def write(self, step: int, metrics: Metrics) -> None:
        """Does nothing."""

    def write_sample(self, step: int, number: int, prompt: str, text: str) -> None:
        """Does nothing."""

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""
