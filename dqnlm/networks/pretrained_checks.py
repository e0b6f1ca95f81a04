"""Checks that a pretrained model can serve as a trunk; messages name the setting."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from dqnlm.errors import UserError
from dqnlm.networks import pretrained_source as source
from dqnlm.networks.base import Body
from dqnlm.networks.layers import require_at_least, require_share
from dqnlm.networks.pretrained_cache import keys_and_values
from dqnlm.networks.projections import Linear


def check_settings(context: int, dropout: float | None, q_init: str, q_temperature: float | None) -> None:
    require_at_least("network.context", context, 1)
    if dropout is not None:
        require_share("network.dropout", dropout)
    if (q_init == "logits") != (q_temperature is not None):
        raise UserError(
            f"network.q_temperature={q_temperature} does not fit network.q_init={q_init}: logits needs a number above 0, zero "
            "takes null"
        )
    if q_temperature is not None and q_temperature <= 0:
        raise UserError(f"network.q_temperature must be above 0, not {q_temperature}")


def check_context(config: Any, observations: int) -> None:
    """Checks `context` against the model's maximum length, and against a limited attention window."""
    for name in ("max_position_embeddings", "sliding_window"):
        limit = getattr(config, name, None)
        if limit is not None and observations > limit:
            raise UserError(
                f"network.context={observations - 1} needs {observations} positions, but this {config.model_type} has {name} "
                f"{limit}; set network.context={limit - 1} or less"
            )


def model_ids(
    num_tokens: int, tokenizer: dict[str, Any] | None, recipe: dict[str, Any], vocabulary_size: int
) -> Tensor:
    """model_id_A of the run's tokens.

    Raises:
        UserError: they are no tokens of the model.
    """
    if (
        tokenizer is not None and tokenizer["kind"] == "ended"
    ):  # the text's tokenizer, with one of its tokens as the end
        tokenizer = tokenizer["text"]
    kind = None if tokenizer is None else tokenizer["kind"]
    if kind == "character" and tokenizer is not None and len(tokenizer["characters"]) == num_tokens:
        return source.character_ids(recipe, tokenizer["characters"])
    if kind == "pretrained" and tokenizer is not None:
        same = (
            json.loads(tokenizer["json"])["model"]
            == json.loads(recipe["files"].get(source.TOKENIZER, '{"model": 0}'))["model"]
        )
        if same and num_tokens > vocabulary_size:
            raise UserError(
                f"the tokenizer has {num_tokens:,} tokens, and the model embeds {vocabulary_size:,}: tokens were added without "
                "new embeddings; in transformers: model.resize_token_embeddings(len(tokenizer)), then save_pretrained"
            )
        if not same:
            raise UserError(
                "data.tokenizer is of another model than network.name_or_path; name the same folder in both"
            )
        return torch.arange(num_tokens)
    if tokenizer is None:
        raise UserError(
            "network=pretrained reads text, and this environment's observations are none; use another network"
        )
    raise UserError(
        f"network=pretrained reads text by its own tokens, not by data.tokenizer={kind}; set data.tokenizer to the folder that "
        "network.name_or_path names"
    )


def require_plain(projection: nn.Module) -> None:
    """Raises UserError where q cannot be the model's own output layer, learned."""
    if not isinstance(projection, Linear) or projection.num_parameters != 1:
        raise UserError(
            "network.q_init=logits with network.train_output_layer=true defines the layers of q itself: set projection=linear "
            "and head=scalar (or network.q_init=zero, or network.train_output_layer=false)"
        )


def require_one_number(projection: nn.Module) -> None:
    """Raises UserError where an action has more numbers than one, so that logits cannot be added to them."""
    if getattr(projection, "num_parameters", 1) != 1:
        raise UserError("network.q_init=logits needs one number an action: set head=scalar (or network.q_init=zero)")


def check_dtype(dtype: str, lora_rank: int | None, train_output_layer: bool) -> None:
    """Raises UserError where weights that are learned would be kept in bfloat16, where small steps are lost."""
    if dtype == "bfloat16" and (lora_rank is None or train_output_layer):
        learned = "all of the model's weights" if lora_rank is None else "the model's output layer"
        raise UserError(
            f"network.dtype=bfloat16 keeps weights that never change, and here {learned} learn: set network.lora_rank=8 or so "
            "(and network.train_output_layer=null), or network.dtype=float32"
        )


def check_adapters(rank: int | None, alpha: float | None, targets: list[str] | None, checkpointing: bool) -> None:
    """Raises UserError for a rank below 0, and for settings that have no effect without adapters."""
    if rank is not None and rank < 0:
        raise UserError(
            f"network.lora_rank is {rank}; the least is 0 (the trunk does not change, and the outputs alone learn): set "
            "network.lora_rank=8 or so, 0, or null to train the whole model"
        )
    if not rank and (alpha is not None or targets is not None):
        raise UserError(
            "network.lora_alpha and network.lora_targets belong to adapters, and network.lora_rank="
            f"{'null' if rank is None else 0} has none: set network.lora_rank=8 or so, or drop them"
        )
    if rank == 0 and checkpointing:
        raise UserError(
            "network.gradient_checkpointing saves memory in the trunk's backward pass, and network.lora_rank=0 has none: set it "
            "to false"
        )


def require_checkpointing(model: PreTrainedModel) -> None:
    if not model.supports_gradient_checkpointing:
        raise UserError(f"network.gradient_checkpointing: a {model.config.model_type} has none; set it to false")


@torch.no_grad()
def sizes_of_cache(model: nn.Module, kind: str) -> list[tuple[Tensor, Tensor]]:
    """Keys and values per token in each layer."""
    cache = DynamicCache()
    try:
        model.eval()(input_ids=torch.zeros(1, 1, dtype=torch.int64), past_key_values=cache, use_cache=True)
        return keys_and_values(cache)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise _cannot_act(kind, str(error)) from error


@torch.no_grad()
def check_reading(body: Body, weight_VD: Tensor, bias_V: Tensor | None, model: PreTrainedModel) -> None:
    """Tests two assumptions: logits are the output layer's, and rows that are reset separately are read as alone.

    Raises:
        UserError: this architecture does otherwise.
    """
    _require_plain_logits(model.config)
    kind, ids_BS = model.config.model_type, torch.arange(4)[None] % model.config.vocab_size
    whole_SD = body(ids_BS)[0]
    logits_SV = nn.functional.linear(whole_SD.to(weight_VD.dtype), weight_VD, bias_V)
    if not _alike(logits_SV, model(input_ids=ids_BS).logits[0], model.dtype):
        raise UserError(
            f"network=pretrained takes logits as the output layer gives them, but a {kind} changes them afterwards; use another "
            "architecture"
        )
    try:
        state = body.initial_state(2, "cpu", whole_SD.dtype)
        for time in range(4):
            state = body.reset(state, torch.tensor([False, time == 2]))
            h_ED, state = body.step(torch.stack([ids_BS[0, time], ids_BS[0, time % 2]]), state)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise _cannot_act(kind, str(error)) from error
    if not (_alike(h_ED[0], whole_SD[3], model.dtype) and _alike(h_ED[1], whole_SD[1], model.dtype)):
        raise _cannot_act(kind, "read so, rows give other features than read whole")


def _require_plain_logits(config: Any) -> None:
    """Raises UserError where the configuration changes logits after the output layer: a probe of small logits may not see it."""
    for name, neutral in (("final_logit_softcapping", None), ("logit_scale", 1), ("logits_scaling", 1)):
        value = getattr(config, name, None)
        if value is not None and value != neutral:
            raise UserError(
                f"network=pretrained takes logits as the output layer gives them, but a {config.model_type} changes "
                f"them afterwards ({name}={value} in its config.json); use another architecture"
            )


def _alike(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether they differ by no more than the rounding of a model whose weights are of this dtype."""
    tolerance = 1e-3 if dtype == torch.float32 else 0.1  # bfloat16 has 8 bits, and rounds in every layer
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-6))


def _cannot_act(kind: str, why: str) -> UserError:
    return UserError(
        f"network=pretrained cannot read a {kind} token by token with rows that begin at different times ({why}); use a model "
        "whose layers all attend to what went before (GPT-2, Llama, Qwen2, Mistral ...)"
    )
