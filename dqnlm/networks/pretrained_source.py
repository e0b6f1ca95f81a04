"""Loads a pretrained model from a folder, the Hugging Face Hub, or the recipe saved by a run.

Nothing that is read here runs code: no remote code, and weights from `.safetensors` files alone (other formats are pickles).
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from dqnlm.errors import UserError
from dqnlm.utils import hub
from dqnlm.utils.files import sha256_of_file
from dqnlm.utils.weight_files import require_readable

# {"config": JSON text, "files": {name: text}}: all but the weights, as plain text. "base": {"sha256": ...} of the files with the
# weights, where a run does not keep them. "q_bias": whether q has a bias for each action (so without this key).
Recipe = dict[str, Any]
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
# What a run keeps beside the weights, so that it can write them back for other programs.
KEPT = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
_ELSEWHERE = " If it lies elsewhere now, name its folder: --base FOLDER, or network.name_or_path=FOLDER on a resume"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def load(
    name_or_path: str, revision: str | None, dropout: float | None, dtype: torch.dtype, *, by_reference: bool
) -> tuple[PreTrainedModel, Recipe]:
    """Loads the model, and its recipe.

    Args:
        name_or_path, revision, dropout: as of `Pretrained`.
        dtype: of the weights.
        by_reference: the recipe names the weights by their checksum, so that a run need not keep them.

    Raises:
        UserError: no such folder, weights or architecture; no connection and no copy; code of its own.
    """
    where, offline, kept = _place(name_or_path, revision)
    with _one_message(where, offline):
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **kept)
        own = config.dtype  # of the weights as they lie there; loading overwrites it
        _set_dropout(config, dropout)
        model = _weights(where, config, dtype, kept)
        files = {name: text for name in KEPT if (text := _text(where, name, kept)) is not None}
    # use_diff: all settings are written, as another version of transformers may have other defaults.
    recipe: Recipe = {"config": config.to_json_string(use_diff=False), "files": files, "q_bias": _has_output_bias(model)}
    if own is not None:
        recipe["dtype"] = str(own).removeprefix("torch.")
    return model, recipe | ({"base": {"sha256": _digest(where, kept)}} if by_reference else {})


def _has_output_bias(model: PreTrainedModel) -> bool:
    return getattr(model.get_output_embeddings(), "bias", None) is not None


def read_config(name_or_path: str | None, revision: str | None) -> PretrainedConfig:
    """The model's configuration, without its weights.

    Raises:
        UserError: as `load`.
    """
    if name_or_path is None:
        raise UserError("network.name_or_path must be given: a folder, or OWNER/NAME on the Hugging Face Hub")
    where, offline, kept = _place(name_or_path, revision)
    with _one_message(where, offline):
        config: PretrainedConfig = AutoConfig.from_pretrained(where, trust_remote_code=False, **kept)
    return config


def is_by_reference(recipe: Recipe) -> bool:
    """Whether the model's own weights are not among those of the run."""
    return "base" in recipe


def load_base(recipe: Recipe, name_or_path: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Loads the weights that a recipe names, from where they are now.

    Raises:
        UserError: they are not there, or are others than the run was trained on.
    """
    try:
        where, offline, kept = _place(name_or_path, revision)
        found = _digest(where, kept)
    except UserError as error:
        raise UserError(
            f"this run keeps its adapters and outputs alone, and the model that they belong to is not found: {error}{_ELSEWHERE}"
        ) from error
    if found != recipe["base"]["sha256"]:
        raise UserError(
            f"network.name_or_path={name_or_path}: its weights are not those that this run was trained on (sha256 "
            f"{found[:12]}, then {recipe['base']['sha256'][:12]}); its adapters would be added to another model.{_ELSEWHERE}"
        )
    with _one_message(where, offline):
        return _weights(where, _config_of(recipe), dtype, kept)


def _place(name_or_path: str, revision: str | None) -> tuple[str, str | None, dict[str, Any]]:
    """Where the model is, why the Hub is not asked (None: it is, or need not be), and the arguments of transformers."""
    folder = Path(name_or_path).expanduser()
    local = folder.is_dir()
    if local:
        _require_files(folder)
    elif name_or_path.startswith((".", "/", "~")) or folder.exists():
        raise _no_folder(folder)
    if local and revision is not None:
        raise UserError(f"network.revision={revision} is of the Hub, and {folder} is a folder; leave it out")
    where, offline = (str(folder), None) if local else (name_or_path, hub.why_not())
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return where, offline, {"revision": revision or "main", "local_files_only": local or offline is not None}


def _weights(where: str, config: PretrainedConfig, dtype: torch.dtype, kept: dict[str, Any]) -> PreTrainedModel:
    """The model with its weights.

    Raises:
        UserError: some are missing.
    """
    require_readable(where, "network.name_or_path")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        where, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, trust_remote_code=False, **kept
    )  # fmt: skip
    model, info = loaded
    _require_all_weights(where, config.model_type, [*info["missing_keys"], *info["mismatched_keys"]])
    result: PreTrainedModel = model
    bad = [name for name, weight in result.named_parameters() if not bool(weight.detach().isfinite().all())]
    if bad:
        raise UserError(
            f"network.name_or_path={where}: {len(bad)} of its weights hold numbers that are not finite (NaN or infinite), first "
            f"{bad[0]}: the file is of a run that diverged, or damaged; take another copy of the model"
        )
    return result


def _digest(where: str, kept: dict[str, Any]) -> str:
    """SHA-256 over those of the files that hold the weights, in the order of their names."""
    if _cached(where, _WEIGHTS[0], kept) is not None:
        names = [_WEIGHTS[0]]
    else:
        index = _text(where, _WEIGHTS[1], kept)
        names = sorted(set(json.loads(index)["weight_map"].values())) if index is not None else []
    found = [_cached(where, name, kept) for name in names]
    if not found or None in found:
        raise UserError(f"network.name_or_path={where}: its files of weights ({', '.join(_WEIGHTS)}) are not there")
    return hashlib.sha256("".join(sha256_of_file(Path(str(path))) for path in found).encode()).hexdigest()


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
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            _config_of(recipe), dtype=torch.float32, trust_remote_code=False
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the run's network is a transformers model that version {transformers.__version__} cannot build: {error}"
        ) from error
    return model


def _config_of(recipe: Recipe) -> PretrainedConfig:
    settings = json.loads(recipe["config"])
    config: PretrainedConfig = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return config


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
    """Turns the errors of transformers into one message; what is read from a folder, or offline, asks nobody."""
    is_local = offline is not None or Path(name).is_dir()
    try:
        with hub.local_copies() if is_local else contextlib.nullcontext():
            yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        text = str(error).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        if "trust_remote_code" in text:
            reason = "it contains code of its own, which is never run here"
        elif offline is not None:
            reason = f"{offline}, and this machine has no copy of it. Give a folder: network.name_or_path=FOLDER"
        raise UserError(f"network.name_or_path={name} cannot be read: {reason}") from error


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
    path = _cached(where, name, kept)
    return None if path is None else Path(path).read_text(encoding="utf-8")


def _cached(where: str, name: str, kept: dict[str, Any]) -> str | None:
    """The local path of a file of the model; None where it has none."""
    path: str | None = cached_file(
        where, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False, **kept
    )  # fmt: skip
    return path
