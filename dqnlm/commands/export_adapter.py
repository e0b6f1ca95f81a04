"""Writes a run's adapters, and what Q adds to the output layer, as one adapter of `peft` for the model that it was trained from.

The output layer W_policy + beta U V is the model's own plus a product of two thin matrices, which is an adapter of that layer.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dqnlm.agent.policy import Policy
from dqnlm.errors import UserError
from dqnlm.networks import pretrained_source as source
from dqnlm.networks.pretrained import Pretrained
from dqnlm.networks.pretrained_outputs import FixedLogits, LogitQ
from dqnlm.networks.projections import LowRank, StateValue


@torch.no_grad()
def save_adapter(policy: Policy, body: Pretrained, folder: Path, behaviour: bool) -> None:
    """Writes adapter_config.json and adapter_model.safetensors.

    Args:
        policy: of the run.
        body: its network's trunk, with adapters.
        folder: to write into.
        behaviour: without what Q adds.

    Raises:
        UserError: the run has no adapters, or its outputs are no sum of the model's own and thin matrices.
    """
    from peft import LoraConfig, get_peft_model

    if not hasattr(body.model, "peft_config") or not source.is_by_reference(body.recipe):
        raise UserError(
            "--adapter: this run has no adapters beside a model that it names; train with network.lora_rank=8 or so, or leave "
            "it out"
        )
    pairs = [] if behaviour else _added(policy)
    model = body.base_again()
    own: Any = body.model.peft_config["default"]  # type: ignore[index]
    output_name = next(name for name, part in model.named_modules() if part is model.get_output_embeddings())
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""
    adapted = {f"{prefix}{name}": part for name, part in _trunk(body.model).named_modules() if hasattr(part, "lora_A")}
    rank = sum(len(down) for _, down in pairs)
    of_output = {output_name: rank} if rank else {}  # scaled by alpha / rank = 1
    settings = LoraConfig(
        r=own.r, lora_alpha=own.lora_alpha, target_modules=[*adapted, *([output_name] if rank else [])], lora_dropout=0.0,
        task_type="CAUSAL_LM", rank_pattern=of_output, alpha_pattern=of_output,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the output layer is tied to the embedding: the adapter is beside it, not in it
        written = get_peft_model(model, settings)
    found = dict(written.get_base_model().named_modules())
    for name, part in adapted.items():
        for matrix in ("lora_A", "lora_B"):
            getattr(found[name], matrix)["default"].weight.copy_(getattr(part, matrix)["default"].weight)
    if rank:
        layer = found[output_name]
        layer.lora_A["default"].weight.copy_(torch.cat([down for _, down in pairs]))  # type: ignore[union-attr,index]
        up_VX = layer.lora_B["default"].weight.zero_()  # type: ignore[union-attr,index]
        up_VX[policy.network.get_buffer("encoder.model_id_A")] = torch.cat([up for up, _ in pairs], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        written.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # the library's; ours is written over it


def _trunk(model: nn.Module) -> nn.Module:
    trunk: nn.Module = model.get_base_model()  # type: ignore[operator]
    return trunk


def _added(policy: Policy) -> list[tuple[Tensor, Tensor]]:
    """What Q adds to the model's own logits, as pairs (U_Ar, V_rD) whose products add up.

    Raises:
        UserError: it is no such sum.
    """
    projections = policy.network.projections
    names = ["q", "q2"] if "q2" in projections and policy.acting_q == "mean" else ["q"]
    if "q2" in projections and policy.acting_q == "min":
        raise UserError("--adapter: the run acts by the smaller of two Q-functions; train with policy.acting_q=mean or first")
    reweighted = policy.declared == "reweighted"
    scale = (policy.beta if reweighted else 1 / policy.temperature) / len(names)
    found = []
    for name in names:
        part = projections[name]
        inner = part.value if isinstance(part, LogitQ) else part
        on_logits = reweighted or (
            isinstance(part, LogitQ) and isinstance(part.logit, FixedLogits) and part.temperature * scale * len(names) == 1
        )
        if on_logits and not reweighted and isinstance(inner, StateValue):
            continue  # the same for all actions, which a softmax ignores
        if not isinstance(inner, LowRank) or not on_logits or (reweighted and not isinstance(projections["policy"], FixedLogits)):
            raise UserError(
                "--adapter: the output layer is not the model's own plus thin matrices; train with projection=low_rank and "
                "network.train_output_layer=false (and network.q_init=logits where no output `policy` is learned), or leave "
                "--adapter out for a whole model"
            )
        found.append((scale * inner.up.weight.float(), inner.down.weight.float()))
    return found
