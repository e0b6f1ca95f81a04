"""Builds a tokenizer from a setting, a saved state or a file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

from dqnlm.data.tokenizers.base import ByteTokenizer, CharacterTokenizer, Tokenizer
from dqnlm.errors import UserError
from dqnlm.utils.files import require_regular
from dqnlm.utils.parsing import json_value
from dqnlm.utils.paths import PathOrName

TokenizerName = Literal["character", "byte", "bpe"] | PathOrName  # a setting: made from the text, or a saved one


def build(kind: str, training_text: str) -> Tokenizer:
    """Builds the tokenizer of a training text: `character`, `byte`, or the folder of a pretrained model.

    Raises:
        UserError: neither of them.
    """
    if kind == "character":
        return CharacterTokenizer(training_text)
    if kind == "byte":
        return ByteTokenizer()
    if not Path(kind).expanduser().exists() and "/" not in kind:
        near = difflib.get_close_matches(kind, ("character", "byte"), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(
            f"data.tokenizer is {kind!r}; it must be character, byte, or a folder with a tokenizer.json.{hint}"
        )
    from dqnlm.data.tokenizers import pretrained

    return pretrained.read(kind)


def from_state(state: dict[str, Any]) -> Tokenizer:
    """Builds the tokenizer of a saved `state()`. Raises UserError where the state is invalid."""
    kind, characters = state.get("kind"), state.get("characters")
    if kind == "byte":
        return ByteTokenizer()
    if kind == "character" and isinstance(characters, str):
        return CharacterTokenizer(characters)
    if kind == "pretrained" and isinstance(state.get("json"), str):
        from dqnlm.data.tokenizers.pretrained import PretrainedTokenizer

        return PretrainedTokenizer(state["json"], conventions=state.get("conventions", False) is True)
    if kind == "ended" and isinstance(state.get("text"), dict) and isinstance(state.get("end_id"), int):
        from dqnlm.data.tokenizers.ended import EndedTokenizer

        return EndedTokenizer(from_state(state["text"]), state["end_id"])
    raise UserError(
        f"a saved tokenizer is damaged or of another version: kind is {kind!r}, not character, byte, pretrained or ended."
    )


def load(path: str | Path) -> Tokenizer:
    """Loads a tokenizer written by `save`. Raises UserError for a missing or damaged file."""
    require_regular(Path(path))
    try:
        state = json_value(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the tokenizer file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"the tokenizer file {path} is damaged: {error}.") from error
    if not isinstance(state, dict):
        raise UserError(f"the tokenizer file {path} is damaged: it holds no object.")
    return from_state(state)
