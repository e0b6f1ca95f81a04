"""Weights of a pretrained model that never change: shared by all copies of a network, and left out of its checkpoints."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_MARK = "_dqnlm_is_fixed"


def fix(module: nn.Module) -> None:
    """Marks all parameters that are not learned; they must never be written to again, but by a move to another device."""
    for parameter in module.parameters():
        if not parameter.requires_grad:
            setattr(parameter, _MARK, True)


def fixed(weight: Tensor) -> nn.Parameter:
    """A parameter of the same memory that is not learned, marked."""
    parameter = nn.Parameter(weight.detach(), requires_grad=False)
    setattr(parameter, _MARK, True)
    return parameter


def fix_one(parameter: nn.Parameter) -> nn.Parameter:
    """Marks this parameter, and stops its learning."""
    setattr(parameter.requires_grad_(False), _MARK, True)
    return parameter


def is_fixed(tensor: Tensor) -> bool:
    """Whether it was marked."""
    return bool(getattr(tensor, _MARK, False))


def shared(module: nn.Module) -> dict[int, Any]:
    """The memo for `copy.deepcopy(module, memo)` with which copies share the fixed weights."""
    return {id(parameter): parameter for parameter in module.parameters() if is_fixed(parameter)}


def changing_state(module: nn.Module) -> dict[str, Tensor]:
    """`module.state_dict()` without the fixed weights."""
    state = module.state_dict(keep_vars=True)
    return {name: tensor.detach() for name, tensor in state.items() if not is_fixed(tensor)}


def load_changing_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads what `changing_state` gave; fixed weights that an older checkpoint has as well are not read.

    Raises:
        RuntimeError: names or shapes differ.
    """
    own = module.state_dict(keep_vars=True)
    wanted = {name: tensor for name, tensor in state.items() if name not in own or not is_fixed(own[name])}
    missing = [name for name, tensor in own.items() if name not in wanted and not is_fixed(tensor)]
    result = module.load_state_dict(wanted, strict=False)
    if missing or result.unexpected_keys:
        lacks, has = (", ".join(names[:3]) or "nothing" for names in (missing, result.unexpected_keys))
        raise RuntimeError(f"the saved weights lack {lacks} and have {has} that the network has not")
