"""The data of a run whose tokenizer's folder is gone: its files are written anew from what the checkpoint keeps."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from dqnlm.config.paths import places, with_values
from dqnlm.errors import UserError
from dqnlm.tasks.base import build_data

SETTING, MODEL = "data.tokenizer", "network.name_or_path"
Files = dict[str, str]


def build_data_with(
    config: dict[str, Any], bundled_allowed: bool, tokenizer: dict[str, Any] | None, recipe: dict[str, Any] | None
) -> Any:
    """As `build_data`, for a run that exists.

    Args:
        config: of the run.
        bundled_allowed: as of `build_data`.
        tokenizer: state of its tokenizer, from a checkpoint.
        recipe: of its pretrained model, from there; None for another network.

    Raises:
        UserError: as `build_data`.
    """
    there = places(config)
    place = there.get(SETTING)
    if place is None or place.file is None or not place.file.is_absolute() or place.file.exists():
        return build_data(config, bundled_allowed)
    own = recipe is not None and MODEL in there and there[MODEL].value == place.value
    files = _of_model(recipe) if recipe is not None and own else _of_tokenizer(tokenizer)
    if not files:
        return build_data(config, bundled_allowed)
    with tempfile.TemporaryDirectory(prefix="dqnlm-") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        try:
            return build_data(with_values(config, {SETTING: folder}), bundled_allowed)
        except UserError as error:
            if folder not in str(error):
                raise
            raise UserError(
                f"{str(error).replace(folder, str(place.file))}\n  {place.file} is gone, and of it the run keeps "
                f"{', '.join(sorted(files))} alone; if it lies elsewhere now, name it: {SETTING}=FOLDER"
            ) from error


def _of_model(recipe: dict[str, Any]) -> Files:
    return {"config.json": recipe["config"]} | recipe["files"]


def _of_tokenizer(state: dict[str, Any] | None) -> Files:
    """The files of a pretrained tokenizer's state, with its end token; {} of another kind."""
    ended = {} if state is None or state["kind"] != "ended" else {"config.json": json.dumps({"eos_token_id": state["end_id"]})}
    text = state["text"] if state is not None and ended else state
    return {"tokenizer.json": text["json"], **ended} if text is not None and text["kind"] == "pretrained" else {}
