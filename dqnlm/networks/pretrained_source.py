"""Loads a pretrained model from a folder, the Hugging Face Hub, or the recipe saved by a run.

Nothing that is read here runs code: no remote code, and weights from `.safetensors` files alone (other formats are pickles).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.constants import ENDPOINT as HUB
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from dqnlm.errors import UserError

Recipe = dict[str, Any]  # {"config": JSON text, "files": {name: text}}: all but the weights, as plain text
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
# What a run keeps beside the weights, so that it can write them back for other programs.
KEPT = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
PROBE_TIMEOUT_S = 3.0
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def load(name_or_path: str, revision: str | None, dropout: float | None) -> tuple[PreTrainedModel, Recipe]:
    """Loads the model with float32 weights, and its recipe.

    Raises:
        UserError: no such folder, weights or architecture; no connection and no copy; code of its own.
    """
    folder = Path(name_or_path).expanduser()
    local = folder.is_dir()
    if local:
        _require_files(folder)
    elif name_or_path.startswith((".", "/", "~")) or folder.exists():
        raise _no_folder(folder)
    if local and revision is not None:
        raise UserError(f"network.revision={revision} is of the Hub, and {folder} is a folder; leave it out")
    where, offline = (str(folder), None) if local else (name_or_path, _offline())
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kept = {"revision": revision or "main", "local_files_only": local or offline is not None}
    with _one_message(where, offline):
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **kept)
        _set_dropout(config, dropout)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
            trust_remote_code=False, **kept,
        )  # fmt: skip
        files = {name: text for name in KEPT if (text := _text(where, name, kept)) is not None}
    model, info = loaded
    _require_all_weights(where, config.model_type, [*info["missing_keys"], *info["mismatched_keys"]])
    # use_diff: all settings are written, as another version of transformers may have other defaults.
    return model, {"config": config.to_json_string(use_diff=False), "files": files}


def _require_all_weights(where: str, kind: str, bad: list[Any]) -> None:
    """Refuses missing weights, which transformers would initialize at random."""
    if bad:
        names = ", ".join(sorted(map(str, bad))[:3])
        raise UserError(
            f"network.name_or_path={where}: its weights lack, or have in another shape, {len(bad)} of the tensors of a {kind}: "
            f"{names}{' ...' if len(bad) > 3 else ''}. The files are incomplete, or of another model."
        )


def rebuild(recipe: Recipe) -> PreTrainedModel:
    """Builds the architecture of a recipe with random weights, to be replaced by the saved ones.

    Raises:
        UserError: the installed transformers does not know the architecture.
    """
    settings = json.loads(recipe["config"])
    try:
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the run's network is a transformers model that version {transformers.__version__} cannot build: {error}"
        ) from error
    return model


def character_ids(recipe: Recipe, characters: str) -> Tensor:
    """model_id_A, int64: the model's token of each single character.

    Raises:
        UserError: it has no tokenizer.json, or a character is no single token of its own; they are named.
    """
    from tokenizers import Tokenizer

    if TOKENIZER not in recipe["files"]:
        raise UserError(
            f"network.name_or_path: this model has no {TOKENIZER} (a fast tokenizer), so the environment's characters cannot be "
            "found among its tokens; save one beside it: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
        )
    tokenizer = Tokenizer.from_str(recipe["files"][TOKENIZER])
    unknown = json.loads(recipe["files"][TOKENIZER])["model"].get("unk_token")
    found = {c: tokenizer.encode(c, add_special_tokens=False) for c in characters}
    bad = [c for c, e in found.items() if len(e.ids) != 1 or e.tokens[0] == unknown]
    if bad:
        raise UserError(
            f"each character of this environment must be one token of the pretrained model, but {', '.join(map(repr, bad[:5]))}"
            f"{' and others' if len(bad) > 5 else ''} {'is' if len(bad) == 1 else 'are'} not; choose a model with a character "
            "for each token (or a byte-level vocabulary)"
        )
    ids = [e.ids[0] for e in found.values()]
    twice = [c for c, e in found.items() if ids.count(e.ids[0]) > 1]
    if twice:
        raise UserError(f"the pretrained model's tokenizer makes the same token of {', '.join(map(repr, twice))}")
    return torch.tensor(ids)


def _require_files(folder: Path) -> None:
    there = sorted(path.name for path in folder.iterdir())
    missing = [] if CONFIG in there else [CONFIG]
    if not set(_WEIGHTS) & set(there):
        missing.append("model.safetensors (or its index)")
    if not missing:
        return
    other = [name for name in there if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf"))]
    why = f" {other[0]} is not read: only safetensors are, as other formats may run code." if other else ""
    raise UserError(
        f"network.name_or_path: {folder} lacks {' and '.join(missing)}; it holds {', '.join(there[:8]) or 'nothing'}"
        f"{' ...' if len(there) > 8 else ''}.{why} Write a whole folder with model.save_pretrained(FOLDER)."
    )


def _no_folder(folder: Path) -> UserError:
    if folder.is_file():
        return UserError(f"network.name_or_path: {folder} is a file; name the folder that holds it.")
    siblings = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=1)
    hint = f" Did you mean {folder.parent / near[0]}?" if near else ""
    return UserError(f"network.name_or_path: there is no folder {folder}.{hint}")


@contextlib.contextmanager
def _one_message(name: str, offline: str | None) -> Iterator[None]:
    """Turns the errors of transformers into one message."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        text = str(error).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        if "trust_remote_code" in text:
            reason = "it contains code of its own, which is never run here"
        elif offline is not None:
            reason = f"{offline}, and this machine has no copy of it. Give a folder: network.name_or_path=FOLDER"
        raise UserError(f"network.name_or_path={name} cannot be read: {reason}") from error


def _offline() -> str | None:
    """Reason for not using the Hub, or None. One short request costs less than the minute of its client's retries."""
    for variable in ("DQNLM_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").lower() not in ("", "0", "false", "no", "off"):
            return f"{variable} is set"
    try:
        urllib.request.urlopen(urllib.request.Request(HUB, method="HEAD"), timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # it answers, if only to refuse this request
    except OSError as error:
        return f"{HUB} does not answer ({error})"
    return None


def _set_dropout(config: PretrainedConfig, dropout: float | None) -> None:
    """Sets all dropout rates of the architecture.

    Raises:
        UserError: it has none.
    """
    if dropout is None:
        return
    names = [
        name
        for name, value in vars(config).items()
        if name.endswith(("dropout", "pdrop")) and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    if not names:
        raise UserError(f"network.dropout: a {config.model_type} has no dropout to set; leave it null")
    for name in names:
        setattr(config, name, dropout)


def _text(where: str, name: str, kept: dict[str, Any]) -> str | None:
    """Reads a small file of the model; None where it has none."""
    path = cached_file(
        where, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False, **kept
    )  # fmt: skip
    return None if path is None else Path(path).read_text(encoding="utf-8")
