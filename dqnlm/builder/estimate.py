"""Memory and time of a run on a pretrained model, from its configuration file alone: no weights are read.

    weights      the model's own by their dtype; what learns in float32, with a gradient and two moments (AdamW), and once more in
                 each copy (target, reference)
    activations  of one forward that is learned from: per token and layer about 12 D + 3 I float32 numbers (D features, I inside
                 the feed-forward part), with gradient checkpointing D of each layer and all of one
    outputs      chunks of raw outputs over the vocabulary, as losses hold them
    acting       the cache of keys and values, and the outputs of one step

Arithmetic: 2 operations a weight and token forward, as many for the gradient of the features, and as many again for that of the
weights where the trunk learns (Kaplan et al. 2020, section 2.1); forward alone with network.lora_rank=0. The rate is that of a
matrix product of the model's shape and dtype, measured here and now. The model's own output layer counts where an output
is computed from it (the policy, or q with network.q_init=logits), and each q as if it were read for every token.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from dqnlm.networks.deferred import CHUNK
from dqnlm.networks.pretrained_source import read_config
from dqnlm.utils.output_names import how_many

Config = dict[str, Any]
FLOAT = 4
SHARE_OF_PRODUCTS = 0.7  # of the time; norms, softmax and the optimizer take the rest (measured on a 135 M model)


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they hold, and seconds.

    Attributes:
        parameters, learned: of the network with its outputs; those that learn.
        bytes_of: what -> bytes.
        update_s, rollout_s, total_s: seconds of an update, of a rollout, and of all rounds.
    """

    parameters: int
    learned: int
    bytes_of: dict[str, int]
    update_s: float
    rollout_s: float
    total_s: float

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes_of.values())


def estimate(config: Config, outputs: tuple[str, ...], copies: int, has_reference: bool, device: torch.device) -> Estimate:
    """Args:
        config: of the run; its network is a pretrained model.
        outputs: names of the network's outputs beside q.
        copies: of the network (or its outputs, with target.heads_only) as a target, 0 or 1.
        has_reference: an objective reads the network as it was at the start.
        device: of the run.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    node, trainer = config["network"], config["trainer"]
    model = read_config(node["name_or_path"], node["revision"])
    sizes = _Sizes.of(model, node, config, outputs)
    heads_only = config["target"].get("heads_only", False)
    learned = sizes.learned
    copied = (sizes.heads if heads_only else learned) * copies + learned * has_reference
    itemsize = 2 if node["dtype"] == "bfloat16" else FLOAT
    rows = min(trainer["batch_size"], config["learner"]["micro_batch_size"] or trainer["batch_size"])
    width = sizes.context
    tokens, envs = rows * width, config["env"].get("num_envs", 0) if trainer["rollouts"] else 0
    per_token = sizes.layers * (12 * sizes.width + 3 * sizes.inside) * FLOAT
    kept = sizes.layers * sizes.width * FLOAT + per_token // sizes.layers if node["gradient_checkpointing"] else per_token
    if node["lora_rank"] == 0:
        kept = per_token // sizes.layers  # no gradient goes into the trunk
    chunks = how_many(outputs, "q", "q2") + ("policy" in outputs)
    bytes_of = {
        "weights that never change": sizes.fixed * itemsize,
        "weights that learn, gradient, moments": learned * FLOAT * 4,
        "copies (target, reference)": copied * FLOAT,
        "activations of an update": tokens * kept,
        "outputs of an update": min(tokens * sizes.vocabulary, CHUNK) * FLOAT * 3 * chunks,
        "acting": envs * (sizes.context * sizes.cache * itemsize + sizes.vocabulary * FLOAT * (2 + chunks)),
    }
    dtype = torch.bfloat16 if node["dtype"] == "bfloat16" else torch.float32
    rate = _rate(sizes.width, sizes.inside, max(tokens, 1), dtype, device)
    trunk_passes = {None: 3, 0: 1}.get(node["lora_rank"], 2)
    passes = 2 * trunk_passes + 2 * (bool(copies) and not heads_only) + 2 * has_reference
    work = trainer["batch_size"] * width * (sizes.trunk * passes + sizes.read * 2 * 2 + sizes.heads * 2 * 3)
    update_s = work / rate / SHARE_OF_PRODUCTS
    slow = _rate(sizes.width, sizes.inside, max(envs, 1), dtype, device)
    steps = config["env"].get("horizon") or 0
    rollout_s = envs * steps * 2 * (sizes.trunk + sizes.vocabulary * sizes.width) / slow / SHARE_OF_PRODUCTS if envs else 0.0
    rounds = trainer["rollouts"] + trainer["offline_rounds"]
    total_s = rounds * trainer["updates_per_rollout"] * update_s + trainer["rollouts"] * rollout_s
    return Estimate(sizes.fixed + learned, learned, bytes_of, update_s, rollout_s, total_s)


@dataclass(frozen=True)
class _Sizes:
    """Numbers of a model: layers, D, I, vocabulary, weights of the trunk, those that never change and those that learn."""

    layers: int
    width: int
    inside: int
    vocabulary: int
    context: int
    cache: int  # numbers a token in all layers
    trunk: int
    fixed: int
    learned: int
    heads: int
    read: int  # of the model's own output layer, where it does not learn and an output is computed from it

    @classmethod
    def of(cls, model: Any, node: Config, config: Config, outputs: tuple[str, ...]) -> _Sizes:
        from accelerate import init_empty_weights
        from transformers import AutoModelForCausalLM
        from transformers.pytorch_utils import Conv1D

        with init_empty_weights():
            built: Any = AutoModelForCausalLM.from_config(model, trust_remote_code=False)
        base, embedding = built.base_model, built.get_input_embeddings().weight
        linear = {
            name: part for name, part in base.named_modules()
            if isinstance(part, (torch.nn.Linear, Conv1D))
        }  # fmt: skip
        config_of, head = built.config.get_text_config(), built.get_output_embeddings().weight
        # Without memory nothing is tied: a shared matrix would be counted twice.
        tied = head.numel() if config_of.tie_word_embeddings else 0
        total = sum(parameter.numel() for parameter in built.parameters()) - tied
        vocabulary, width = head.shape
        trunk = sum(parameter.numel() for parameter in base.parameters()) - embedding.numel()
        inside = max(max(part.weight.shape) for part in linear.values())
        groups = getattr(config_of, "num_key_value_heads", None) or config_of.num_attention_heads
        heads_width = getattr(config_of, "head_dim", None) or width // config_of.num_attention_heads
        numbers = config["head"].get("num_atoms") or config["head"].get("num_quantiles") or 1
        of_q = _projection(config["projection"], width, vocabulary, numbers)
        heads = of_q * how_many(outputs, "q", "q2") + (width + 1) * how_many(outputs, "v")
        rank = node["lora_rank"]
        trains_output = rank is None if node["train_output_layer"] is None else node["train_output_layer"]
        keeps_output = not trains_output and ("policy" in outputs or node["q_init"] == "logits")
        read = head.numel() if keeps_output else 0
        learned, fixed = heads, total if keeps_output or tied else total - head.numel()
        if "policy" in outputs and trains_output:
            learned += head.numel()
            heads += head.numel()
        if rank is None:
            learned, fixed = learned + sum(p.numel() for p in base.parameters()), 0
        else:
            targets = node["lora_targets"]
            adapted = [part for name, part in linear.items() if not targets or name.split(".")[-1] in targets]
            learned += sum(rank * sum(part.weight.shape) for part in adapted)
        layers = config_of.num_hidden_layers
        return cls(
            layers, width, inside, vocabulary, node["context"], layers * 2 * groups * heads_width, trunk, fixed, learned, heads,
            read,
        )  # fmt: skip


def _projection(node: Config, width: int, actions: int, numbers: int) -> int:
    """Weights of one output of q with so many numbers an action."""
    rank = node.get("rank")
    return actions * numbers * width if rank is None else rank * (width + actions * numbers) + numbers


def _rate(width: int, inside: int, tokens: int, dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a product (tokens, D) x (D, I), the best of a few."""
    made: dict[str, Any] = {"dtype": dtype, "device": device}
    x, w = torch.randn(min(tokens, 1024), width, **made), torch.randn(width, inside, **made)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        for _ in range(5):
            x @ w
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * x.numel() * inside / best
