"""Weights sharded over the processes of a run by FSDP2 (Zhao et al. 2023; `torch.distributed.fsdp.fully_shard`).

Each rank holds a part of every weight of a sharded module, of its gradient and of the optimizer's moments: rows of its first
axis. A forward gathers the weights of one block at a time and frees them after it; the backward gathers them again, adds the
gradients up over the ranks and leaves each rank its part. All ranks must therefore make the same forwards and backwards.

Without sharded weights, which are `DTensor`s, the functions here do nothing. torch's part for them takes seconds to import, so
it is imported by `shard` alone, and where it is not, there are none.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_leaves, tree_map

from dqnlm.utils.ranks import Ranks

State = TypeVar("State")


def shard(root: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> None:
    """Leaves each rank its part of the weights, in place; needs `process_group.join`.

    Args:
        root: what is called; its weights outside the blocks are gathered together.
        blocks: parts of it that are gathered one at a time.
        device: of all weights, which are equal on all ranks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for module in (*blocks, root):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for part in _sharded_modules(root):
        # The sum over ranks instead of the mean: each loss has been divided by the count of the whole batch.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction
    # About in-place operations on the last features, of which there are none.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def is_sharded(tensor: Tensor | None) -> bool:
    """Whether this rank holds a part of it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def has_shards(module: nn.Module) -> bool:
    return any(is_sharded(parameter) for parameter in module.parameters())


def own_part(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, in the same memory; any other tensor itself."""
    sharded: Any = tensor
    return sharded.to_local() if is_sharded(tensor) else tensor  # type: ignore[no-any-return]


@contextlib.contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Within it each rank holds all weights and may make any number of forwards, without gradient.

    All ranks must enter it together.
    """
    parts = _sharded_modules(network)
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def whole(state: State, keep: bool) -> State:
    """Nested containers with whole tensors, on the host, in place of parts; all ranks must call it.

    keep: whether this rank wants them; else None stands in their place.
    """

    def one(value: Any) -> Any:
        if not is_sharded(value):
            return value
        tensor = value.detach().full_tensor()
        return tensor.cpu() if keep else None

    return tree_map(one, state) if any(is_sharded(value) for value in tree_leaves(state)) else state


def part_of(tensor: Tensor, like: Tensor | None) -> Tensor:
    """This rank's part of a whole tensor, laid out as `like`; the tensor itself where `like` is not sharded, or it is."""
    if not is_sharded(like) or is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[union-attr]
    return distribute_tensor(tensor.detach(), mesh, placements, src_data_rank=None)  # all ranks have read the same file


def parts_of(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The `state_dict` of a whole module as one that this rank's module can load."""
    if not has_shards(module):
        return state
    held = module.state_dict()
    return {name: part_of(tensor, held.get(name)) for name, tensor in state.items()}


def clip_gradients(parameters: list[nn.Parameter], largest: float, ranks: Ranks) -> Tensor:
    """Scales all gradients in place so that their global norm is at most `largest`; returns the norm before, a scalar."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    parts = [own_part(gradient) for gradient in gradients if is_sharded(gradient)]
    if not parts:
        return nn.utils.clip_grad_norm_(parameters, largest, foreach=True)
    replicated = [gradient for gradient in gradients if not is_sharded(gradient)]
    squares = ranks.total(nn.utils.get_total_norm(parts).square()) + nn.utils.get_total_norm(replicated).square()
    norm = squares.sqrt()
    torch._foreach_mul_([*parts, *replicated], (largest / (norm + 1e-6)).clamp(max=1.0))  # torch adds the same 1e-6
    return norm


def _sharded_modules(network: nn.Module) -> list[Any]:
    """Those that `shard` has made ready."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return [] if fsdp is None else [module for module in network.modules() if isinstance(module, fsdp.FSDPModule)]
