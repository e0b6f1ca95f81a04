"""Small random models of transformers on disk, as a user's own folder would look, and networks on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dqnlm.networks.base import QNetwork
from dqnlm.networks.pretrained import Pretrained
from dqnlm.networks.projections import Linear
from studies import tiny_gpt2

ALPHABET = "abcdefg"
CONTEXT = 9
OUTPUTS = ("q", "q2", "v", "policy")
SETTINGS: dict[str, Any] = {
    "revision": None, "context": CONTEXT, "dropout": None, "lora_rank": None, "lora_alpha": None, "lora_targets": None,
    "train_output_layer": None, "dtype": "float32", "gradient_checkpointing": False, "q_init": "zero", "q_temperature": None,
    "shard": False,
}  # fmt: skip


def write(folder: Path, kind: str = "gpt2", alphabet: str = ALPHABET) -> Path:
    """gpt2: learned positions, one matrix for input and output. llama: rotary positions, shared key heads, two matrices."""
    if kind == "gpt2":
        tiny_gpt2.write_model(folder, alphabet, layers=2, heads=2, width=16, positions=12)
        return folder
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    size = tiny_gpt2.write_tokenizer(folder, alphabet)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=12, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def body(folder: Path, alphabet: str = ALPHABET, recipe: dict[str, Any] | None = None, **settings: Any) -> Pretrained:
    tokens = {"kind": "character", "characters": alphabet}
    return Pretrained(len(alphabet), tokens, recipe, name_or_path=str(folder), **(SETTINGS | settings))


def network(folder: Path, alphabet: str = ALPHABET, std: float = 0.3, **settings: Any) -> QNetwork:
    """Evaluation mode; all weights are made large (`std`, 0: left as they are), so that every part shows in the outputs."""
    built = body(folder, alphabet, **settings)
    encoder = built.make_encoder()

    def make(name: str) -> Linear:
        return Linear(built.features, 1 if name == "v" else len(alphabet), 1)

    result = QNetwork(encoder, built, built.make_outputs(OUTPUTS, len(alphabet), make)).eval()
    torch.manual_seed(1)
    if std:
        for parameter in result.parameters():
            torch.nn.init.normal_(parameter, std=std)
    return result


def tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(len(ALPHABET), (rows, length), generator=torch.Generator().manual_seed(seed))
