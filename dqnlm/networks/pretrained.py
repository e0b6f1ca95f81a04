"""A pretrained causal language model of `transformers` as the trunk of a Q-network: whole, with LoRA (Hu et al. 2021), or fixed.

The model reads token ids of its own and embeds them itself, so `TokenIds` stands in the encoder's place and `x` here are
ids without a feature axis. The output `policy` starts as the model's own logits; q, q2 and v start small (`q_init`).

A causal model needs no mask for right padding: later tokens are never read, and positions count from a row's start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from dqnlm.errors import UserError
from dqnlm.networks import fixed_weights
from dqnlm.networks import pretrained_checks as checks
from dqnlm.networks import pretrained_source as source
from dqnlm.networks.base import Body, State
from dqnlm.networks.fixed_weights import fix
from dqnlm.networks.pretrained_cache import column_mask, keys_and_values, row_cache
from dqnlm.networks.pretrained_lora import add_lora, merged
from dqnlm.networks.pretrained_outputs import FixedLogits, LogitQ, own_policy, zeroed
from dqnlm.networks.projections import Linear, require_every_action
from dqnlm.utils import sharding
from dqnlm.utils.paths import PathOrName
from dqnlm.utils.ranks import Ranks


class TokenIds(nn.Module):
    """Maps this run's token ids to the model's, (...) -> (...), int64; the model embeds them.

    Args:
        model_id_A: int64, the model's id of each token.
    """

    model_id_A: Tensor

    def __init__(self, model_id_A: Tensor) -> None:
        super().__init__()
        self.register_buffer("model_id_A", model_id_A)

    def forward(self, observation_BS: Tensor) -> Tensor:
        return self.model_id_A[observation_BS.long()]


class Pretrained(Body):
    """Any causal model that `AutoModelForCausalLM` reads from safetensors and that attends to the whole prefix.

    Args:
        num_tokens: token ids that can be observed.
        tokenizer: state of the text's tokenizer; characters are looked up among the model's tokens, one each.
        recipe: that of a saved run's model; None: read the model from `name_or_path`.
        name_or_path: a folder, or a name on the Hub.
        revision: branch, tag or commit on the Hub; None: the newest.
        context: longest T in transitions.
        dropout: in place of all shares of dropout that the model has; None: its own.
        lora_rank: only matrices of this rank are learned, added to the model's; 0: none, the trunk does not change; None: all
            of the model learns.
        lora_alpha: the added matrices are scaled by lora_alpha / lora_rank; None: 2 * lora_rank.
        lora_targets: names of the layers that get them; None: all linear ones.
        train_output_layer: the model's output layer learns (of `policy`, and of q with `logits`); None: without LoRA.
        dtype: of weights that never change.
        gradient_checkpointing: layers are computed a second time in the backward pass, and their insides not kept.
        q_init: `zero`: q starts at 0 everywhere. `logits`: at q_temperature (logit - logsumexp).
        q_temperature: return units a nat, for `logits`.
        shard: the processes of a run divide the model among them (`utils.sharding`); the outputs stay whole on each.

    Raises:
        UserError: a value that cannot be, a model that cannot be read, or one that cannot act token by token.
    """

    unused_VD: Tensor | None

    is_pretrained = True
    steps_in_place = True

    def __init__(
        self,
        num_tokens: int,
        tokenizer: dict[str, Any] | None,
        recipe: dict[str, Any] | None,
        *,
        name_or_path: PathOrName | None,
        revision: str | None,
        context: int,
        dropout: float | None,
        lora_rank: int | None,
        lora_alpha: float | None,
        lora_targets: list[str] | None,
        train_output_layer: bool | None,
        dtype: Literal["float32", "bfloat16"],
        gradient_checkpointing: bool,
        q_init: Literal["zero", "logits"],
        q_temperature: float | None,
        shard: bool,
    ) -> None:
        super().__init__()
        checks.check_settings(context, dropout, q_init, q_temperature)
        self._trains_output = lora_rank is None if train_output_layer is None else train_output_layer
        checks.check_dtype(dtype, lora_rank, self._trains_output)
        checks.check_adapters(lora_rank, lora_alpha, lora_targets, gradient_checkpointing)
        if name_or_path is None:
            raise UserError(
                "network=pretrained needs a model: network.name_or_path=FOLDER (with config.json and model.safetensors), or its "
                "name on the Hugging Face Hub"
            )
        self._where, self._revision = name_or_path, revision
        weights = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        if recipe is None:
            model, recipe = source.load(name_or_path, revision, dropout, weights, by_reference=lora_rank is not None)
        elif source.is_by_reference(recipe):
            model = source.load_base(recipe, name_or_path, revision, weights)
        else:
            model = source.rebuild(recipe)
        self.recipe: dict[str, Any] = recipe
        self.q_temperature = q_temperature if q_init == "logits" else None
        self.context, self.shard = context, shard
        self.max_observations: int = context + 1
        checks.check_context(model.config, self.max_observations)
        self._model_id_A = checks.model_ids(num_tokens, tokenizer, recipe, model.config.vocab_size)
        self._take_logits(model)
        weight_VD, bias_V = self._output_layer
        self.width = self.features = weight_VD.shape[1]
        model.config.pad_token_id = None  # else it looks for padding in every batch, to warn
        self.model: nn.Module = model.base_model
        shapes = checks.sizes_of_cache(self.model, model.config.model_type)
        self.sizes = [((key.shape[1], key.shape[3]), (value.shape[1], value.shape[3])) for key, value in shapes]
        checks.check_reading(self, weight_VD, bias_V, model)
        if lora_rank:
            self.model = add_lora(self.model, lora_rank, lora_alpha, lora_targets)
        elif lora_rank == 0:
            self.model.requires_grad_(False)
        if lora_rank is not None and source.is_by_reference(recipe):
            fix(self.model)
        if gradient_checkpointing:
            checks.require_checkpointing(model)
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.train()  # transformers hands models over in evaluation mode, without dropout

    def _take_logits(self, model: PreTrainedModel) -> None:
        """Keeps the output layer, for the initial outputs and for the export of tokens that are never used."""
        layer = model.get_output_embeddings()
        if not isinstance(layer, nn.Linear) or model.base_model is model:
            raise UserError(
                f"network=pretrained needs a trunk and a linear output layer; a {model.config.model_type} has none"
            )
        # In a tuple, as it is no parameter of this module.
        self._output_layer: tuple[nn.Parameter, Tensor | None] = (cast(nn.Parameter, layer.weight), layer.bias)
        some_unused = len(self._model_id_A) < len(layer.weight)
        persistent = not source.is_by_reference(self.recipe)
        self.register_buffer("unused_VD", layer.weight.detach().clone() if some_unused else None, persistent=persistent)

    @classmethod
    def files_needed(cls, node: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Body.files_needed`: with adapters a run keeps these alone."""
        return () if node["lora_rank"] is None else ("name_or_path",)

    def contents(self) -> dict[str, str]:
        return {"name_or_path": self.recipe["base"]["sha256"]} if source.is_by_reference(self.recipe) else {}

    def shard_weights(self, ranks: Ranks) -> None:
        """See `Body.shard_weights`; each layer is gathered by itself.

        Raises:
            UserError: the model's layers are not to be found.
        """
        if not self.shard or ranks.world == 1:
            return
        lists = [part for part in self.model.modules() if isinstance(part, nn.ModuleList) and len(part) == len(self.sizes)]
        if not lists:
            raise UserError(
                "network.shard=true gathers the model one layer at a time, and this model keeps its layers in no list; set "
                "network.shard=false"
            )
        layers = max(lists, key=lambda part: sum(p.numel() for p in part.parameters()))
        sharding.shard(self.model, list(layers), next(self.model.parameters()).device)
        if source.is_by_reference(self.recipe):
            fix(self.model)  # the parts are other parameters

    def make_encoder(self) -> nn.Module:
        """See `Body.make_encoder`."""
        return TokenIds(self._model_id_A)

    def make_outputs(
        self, names: tuple[str, ...], num_actions: int, make: Callable[[str], nn.Module]
    ) -> dict[str, nn.Module]:
        """`policy` is the model's own; the others start at zero, or q and q2 from the logits.

        Raises:
            UserError: other actions than the tokens that are read, or a projection that cannot start so.
        """
        if num_actions != len(self._model_id_A):
            raise UserError(
                f"network=pretrained writes the {len(self._model_id_A)} tokens that it reads, but here are {num_actions} "
                "actions; use another network"
            )
        make_logits = self._learned_logits if self._trains_output else self._fixed_logits()
        outputs: dict[str, nn.Module] = {}
        for name in names:
            if name == "policy":
                outputs[name] = make_logits()
            elif self.q_temperature is not None and name != "v" and not name.startswith("v_"):
                outputs[name] = LogitQ(make_logits(), self._beside_logits(make(name)), self.q_temperature)
            else:
                outputs[name] = self._from_zero(require_every_action(make(name)))
        del self._output_layer  # it may be large
        return outputs

    def _from_zero(self, projection: nn.Module) -> nn.Module:
        """Without a bias for each action where the model's output layer has none, so that q can be added to that layer."""
        if isinstance(projection, Linear) and projection.num_actions > 1 and not self.recipe.get("q_bias", True):
            projection.linear.register_parameter("bias", None)
        return zeroed(projection)

    def _beside_logits(self, projection: nn.Module) -> nn.Module:
        """What is added to the logits of q: with logits that learn a number a state, else the configured projection."""
        if self._trains_output:
            checks.require_plain(projection)
            return zeroed(Linear(self.features, 1, 1))
        checks.require_one_number(projection)
        return self._from_zero(projection)

    def _learned_logits(self) -> nn.Module:
        weight_VD, bias_V = self._output_layer
        weight_AD = weight_VD.detach()[self._model_id_A]
        return own_policy(weight_AD, None if bias_V is None else bias_V.detach()[self._model_id_A])

    def _fixed_logits(self) -> Callable[[], nn.Module]:
        """All outputs share one matrix: the model's own where the tokens are all of its vocabulary, which then is no copy."""
        weight_VD, bias_V = self._output_layer
        ids_A = self._model_id_A
        is_whole = torch.equal(ids_A, torch.arange(len(weight_VD)))
        weight = fixed_weights.fix_one(weight_VD) if is_whole else fixed_weights.fixed(weight_VD.detach()[ids_A])
        bias_A = None if bias_V is None else bias_V.detach()[ids_A]
        return lambda: FixedLogits(weight, bias_A)

    def forward(self, x_BSD: Tensor, first: int = 0) -> Tensor:
        """As `Body.forward`; x are the model's token ids, (B, S)."""
        if x_BSD.shape[1] > self.max_observations:
            raise UserError(self._too_long(f"{x_BSD.shape[1]} observations"))
        h_BSD: Tensor = self.model(input_ids=x_BSD, use_cache=False).last_hidden_state
        return h_BSD[:, first:].float()

    def initial_state(self, num_envs: int, device: torch.device | str, dtype: torch.dtype) -> State:
        """`key_0`, `value_0` ...: (E, heads, context + 1, features a head), zeros; and `position`, int64 E."""
        state = {"position": torch.zeros(num_envs, device=device, dtype=torch.int64)}
        dtype = next(self.model.parameters()).dtype
        for i, sizes in enumerate(self.sizes):
            for name, (heads, features) in zip(("key", "value"), sizes, strict=True):
                shape = (num_envs, heads, self.max_observations, features)
                state[f"{name}_{i}"] = torch.zeros(shape, device=device, dtype=dtype)
        return state

    def _layers(self, state: State) -> list[tuple[Tensor, Tensor]]:
        return [(state[f"key_{i}"], state[f"value_{i}"]) for i in range(len(self.sizes))]

    @torch.no_grad()
    def step(self, x_ED: Tensor, state: State) -> tuple[Tensor, State]:
        """One more token id an environment, (E,): h_ED; the state is updated in place.

        Raises:
            UserError: an environment's cache is full (on the CPU; a CUDA device reports an index out of range).
        """
        position_E = state["position"]
        # On an accelerator this comparison would wait for the device; there, writing out of range fails by itself.
        if position_E.device.type == "cpu" and bool((position_E >= self.max_observations).any()):
            raise UserError(self._too_long(f"{self.max_observations + 1} observations or more"))
        dtype = next(self.model.parameters()).dtype
        output = self.model(
            input_ids=x_ED[:, None],
            position_ids=position_E[:, None].clone(),
            attention_mask=column_mask(position_E, self.max_observations, dtype),
            past_key_values=row_cache(self._layers(state), position_E),
            use_cache=True,
        )
        position_E += 1
        return output.last_hidden_state[:, 0].float(), state

    @torch.no_grad()
    def prefill(self, x_ESD: Tensor, state: State) -> tuple[Tensor, State]:
        """Reads S token ids, (E, S), into an initial state with one causal forward: h_ESD; the state is updated in place.

        Raises:
            ValueError: an environment has read something since its last reset (noticed on the CPU only).
            UserError: S is above `context + 1`.
        """
        if x_ESD.device.type == "cpu" and bool(state["position"].any()):
            raise ValueError("prefill begins at the first observation: every environment must have been reset")
        length = x_ESD.shape[1]
        if length > self.max_observations:
            raise UserError(self._too_long(f"{length} observations"))
        cache = DynamicCache()
        output = self.model(input_ids=x_ESD, past_key_values=cache, use_cache=True)
        for kept, read in zip(self._layers(state), keys_and_values(cache), strict=True):
            for memory_EGMK, new_EGSK in zip(kept, read, strict=True):
                memory_EGMK[:, :, :length] = new_EGSK.to(memory_EGMK.dtype)
        state["position"].fill_(length)
        return output.last_hidden_state.float(), state

    @torch.no_grad()
    def prefill_apart(self, x_EPD: Tensor, length_E: Tensor, state: State) -> tuple[Tensor, State]:
        """As `Body.prefill_apart`, in one forward: entries behind a row's end are overwritten before they are read."""
        h_EPD, state = self.prefill(x_EPD, state)
        state["position"].copy_(length_E)
        return h_EPD[torch.arange(len(length_E), device=length_E.device), length_E - 1], state

    def reset(self, state: State, mask_E: Tensor) -> State:
        """Sets the position of the masked environments to 0, in place; old cache entries are never read again."""
        state["position"].masked_fill_(mask_E, 0)
        return state

    def base_again(self) -> PreTrainedModel:
        """The model that the run was trained from, float32, read anew from where it is; for runs that keep adapters alone."""
        return source.load_base(self.recipe, self._where, self._revision, torch.float32)

    @torch.no_grad()
    def to_transformers(self, weight_AD: Tensor, bias_A: Tensor | None) -> PreTrainedModel:
        """Exports a `transformers` model on the CPU: the trunk with merged adapters, and this output layer of the run's tokens.

        Tokens that the run never used keep the logits that the model came with (on the trunk as it is now).
        """
        settings = json.loads(self.recipe["config"]) | {"tie_word_embeddings": False}
        model = source.rebuild(self.recipe | {"config": json.dumps(settings)})
        model.base_model.load_state_dict(merged(self.model).state_dict())
        layer = model.get_output_embeddings()
        assert isinstance(layer, nn.Linear)
        for own, new in ((layer.weight, weight_AD), (layer.bias, bias_A)):
            if own is not None and new is not None:
                own.zero_()  # all of it is overwritten, but the bias of tokens never used
                if own.dim() == 2 and self.unused_VD is not None:
                    own.copy_(self.unused_VD)
                own[self._model_id_A] = new.to(own)
        return model.eval()

    def _too_long(self, what: str) -> str:
        return (
            f"The pretrained model was given {what} of one episode; it reads at most {self.max_observations} "
            f"(network.context={self.context}, plus 1). Set network.context to the longest row of the environment."
        )
