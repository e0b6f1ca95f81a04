#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Writes a small GPT-2 with random weights and a tokenizer of one token a character, for trials of network=pretrained.

scripts/python studies/tiny_gpt2.py FOLDER --alphabet abcdefghijklmnopqrstu --layers 2 --width 64
dqnlm train +experiment=ilql data.path=FILE.jsonl network.name_or_path=FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

UNKNOWN, END = "<unk>", "<end>"


def write_tokenizer(folder: Path, alphabet: str) -> int:
    """tokenizer.json and its settings: special tokens first, then each character; returns the size of the vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate([UNKNOWN, END, *alphabet])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([UNKNOWN, END])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": UNKNOWN, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return len(vocabulary)


def write_model(
    folder: Path, alphabet: str, layers: int = 2, heads: int = 2, width: int = 64, positions: int = 64, seed: int = 0
) -> None:
    """The whole folder: config.json, model.safetensors and the tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder, alphabet)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=size,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=1,
        eos_token_id=1,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alphabet", default="abcdefghijklmnopqrstu", help="characters, one token each")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--positions", type=int, default=64, help="longest row, in tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    a = parser.parse_args()
    write_model(a.folder, a.alphabet, a.layers, a.heads, a.width, a.positions, a.seed)
    print(f"wrote {a.folder}")


if __name__ == "__main__":
    main()
