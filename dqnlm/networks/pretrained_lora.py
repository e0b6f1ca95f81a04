"""Low-rank adapters by `peft`: h = W x + (alpha / rank) B A x, with A and B learned and W fixed (Hu et al. 2021)."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from torch import nn

from dqnlm.errors import UserError
from dqnlm.networks.layers import require_at_least


def add_lora(model: nn.Module, rank: int, alpha: float | None, targets: list[str] | None) -> nn.Module:
    """Adds adapters, the only trainable weights; B starts at 0, so the outputs do not change at first.

    Args:
        model: a trunk of transformers, changed in place.
        rank: of the adapters.
        alpha: None: 2 * rank.
        targets: names of layers; None: all linear ones.

    Raises:
        UserError: a value that cannot be, no layer of that name, or `peft` is not installed.
    """
    require_at_least("network.lora_rank", rank, 1)
    if alpha is not None and alpha <= 0:
        raise UserError(f"network.lora_alpha must be above 0, not {alpha}")
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise UserError(
            f"network.lora_rank needs the package {error.name}, which is not installed: pip install peft (or set "
            "network.lora_rank=null)"
        ) from error
    scale: Any = 2 * rank if alpha is None else alpha  # declared as an integer there; any number will do
    settings = LoraConfig(r=rank, lora_alpha=scale, target_modules=targets or "all-linear", lora_dropout=0.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it corrects `fan_in_fan_out` for GPT-2 by itself, and says so
            adapted: nn.Module = get_peft_model(model, settings)  # type: ignore[arg-type]
    except ValueError as error:
        names = sorted({name.split(".")[-1] for name, m in model.named_modules() if not list(m.children())})
        raise UserError(
            f"network.lora_targets={targets}: {str(error).splitlines()[0][:120]}; layers here: {', '.join(names)}"
        ) from error
    return adapted


def merged(model: nn.Module) -> nn.Module:
    """A copy of the trunk with its adapters merged into the matrices; without adapters a plain copy."""
    model = copy.deepcopy(model).float()  # in bfloat16 the sum of a matrix and its adapter would be rounded
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model  # type: ignore[operator,no-any-return]
