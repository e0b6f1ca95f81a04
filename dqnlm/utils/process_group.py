"""Several processes of one run, joined by torch.distributed: gloo on the CPU, NCCL on CUDA devices."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.utils._pytree import tree_map

from dqnlm.errors import UserError
from dqnlm.utils.ranks import Ranks

Value = TypeVar("Value")
# Longest wait for another rank, in seconds; the first one may be evaluating. One that has died is noticed at once.
TIMEOUT_S = float(os.environ.get("DQNLM_RANK_TIMEOUT_S", "1800"))


def join(rank: int, world: int, local_rank: int) -> Group:
    """Waits for all processes of the run.

    Raises:
        UserError: they did not all come.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=TIMEOUT_S))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {world} processes of the run could not find one another: {error}") from error
    return Group(rank, world, local_rank)


class Group(Ranks):
    """This process among several.

    Args:
        rank, world, local_rank: of this process, all processes, and this one among those of its machine.
    """

    def __init__(self, rank: int, world: int, local_rank: int) -> None:
        self.rank, self.world, self.local_rank = rank, world, local_rank

    def device(self, device: torch.device) -> torch.device:
        if device.type != "cuda" or device.index is not None:
            return device
        own = torch.device("cuda", self.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)
        return own

    def total(self, value: Tensor) -> Tensor:
        value = value.clone()
        with self._communicating():
            distributed.all_reduce(value)
        return value

    def sum(self, number: int) -> int:
        return int(self.total(torch.tensor(number)))

    def add_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """One sum for all gradients together. (DistributedDataParallel expects one forward a step; here are several.)"""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat_N = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with self._communicating():
            distributed.all_reduce(flat_N)
        parts = flat_N.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(own) for part, own in zip(parts, gradients, strict=True)])

    def least_mass(self, least: Tensor, total: Tensor) -> Tensor:
        probability = least / total
        with self._communicating():
            distributed.all_reduce(probability, op=distributed.ReduceOp.MIN)
        return torch.where(total > 0, probability * total, least)  # an empty buffer has no probabilities

    def most(self, *values: int) -> list[int]:
        found = torch.tensor(values)
        with self._communicating():
            distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return [int(value) for value in found]

    def share(self, make: Callable[[], Value]) -> Value:
        held: list[Any] = [make() if self.is_first else None]
        with self._communicating():
            distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]  # type: ignore[no-any-return]

    def gather(self, value: Value) -> list[Value]:
        found: list[Any] | None = [None] * self.world if self.is_first else None
        # A tensor of another rank's GPU would be unpickled onto that GPU, by a process that has its own.
        on_host = tree_map(lambda x: x.cpu() if isinstance(x, Tensor) else x, value)
        with self._communicating():
            distributed.gather_object(on_host, found)
        return [] if found is None else found[1:]

    def leave(self, code: int) -> None:
        """Waits for the others after a success. After a failure it ends at once: they may be gone, and gloo aborts then."""
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            os._exit(code)
        with self._communicating():
            distributed.barrier()
        distributed.destroy_process_group()

    @contextlib.contextmanager
    def explaining_losses(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo's have no class of their own
            if isinstance(error, distributed.DistError) or "gloo" in str(error):
                raise self._lost_another(error) from error
            raise

    @contextlib.contextmanager
    def _communicating(self) -> Iterator[None]:
        """Counts the seconds.

        Raises:
            UserError: another process is gone, or did not answer in time.
        """
        started = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            raise self._lost_another(error) from error
        finally:
            self.seconds += time.perf_counter() - started

    def _lost_another(self, error: RuntimeError) -> UserError:
        reason = str(error).splitlines()[0]
        return UserError(
            f"process {self.rank} of {self.world} has lost another one ({reason}); the run cannot go on without it"
        )
