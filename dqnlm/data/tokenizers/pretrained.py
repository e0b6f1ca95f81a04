"""The tokenizer of a pretrained model, read from its `tokenizer.json` with `tokenizers`; the file contains no code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dqnlm.data.tokenizers.base import REPLACEMENT, Tokenizer, require_letters
from dqnlm.errors import UserError
from dqnlm.utils import hub
from dqnlm.utils.parsing import json_value

FILE = "tokenizer.json"
_NAMED_AT_MOST = 5  # characters that one message names
_BEFORE = "\n"  # a text behind this one is read as a continuation: it is a token of its own in every known vocabulary


class PretrainedTokenizer(Tokenizer):
    """The subword tokenizer of a pretrained model.

    A prompt begins as the model's tokenizer begins a text: with its begin-of-text token (Llama, Gemma), and with the space that
    some put before the first word (Llama 2, Mistral). What follows a prompt gets neither, so that prompt and continuation
    together are the tokens of the whole text.

    Args:
        content: text of a `tokenizer.json`.
        conventions: False for a run of the time before they were kept: no token begins a prompt, every text has the space.

    Raises:
        UserError: the text is none, or `tokenizers` is not installed.
    """

    def __init__(self, content: str, conventions: bool = True) -> None:
        try:
            from tokenizers import Tokenizer as Fast
        except ModuleNotFoundError as error:
            raise UserError(
                "data.tokenizer: reading a tokenizer.json needs the package tokenizers: pip install tokenizers"
            ) from error
        try:
            self._fast = Fast.from_str(content)
            self._unknown: str | None = json.loads(content)["model"].get("unk_token")
        except Exception as error:  # the library raises plain Exceptions
            raise UserError(f"data.tokenizer: this is no {FILE} of a fast tokenizer: {error}") from error
        self._content = content
        self._fast.no_truncation()
        self._fast.no_padding()
        self.vocabulary_size = max(self._fast.get_vocab(with_added_tokens=True).values()) + 1
        self.unknown_id = None if self._unknown is None else self._fast.token_to_id(self._unknown)
        self._before: list[int] = []
        if conventions:
            self.start_ids, self._before = _start_ids(self._fast), _before_a_continuation(self._fast)

    def encode(self, text: str) -> Tensor:
        """See `Tokenizer.encode`; characters without a token are left out where there is no unknown token."""
        return torch.tensor(self._continuation(text) or self._plain(text), dtype=self.dtype)

    def encode_prompt(self, text: str, strict: bool = True) -> Tensor:
        """See `Tokenizer.encode_prompt`; a rendered conversation may have its begin-of-text token already."""
        if strict:
            self._require_known(text)
        ids, start = self._plain(text), list(self.start_ids)
        return torch.tensor(ids if ids[: len(start)] == start else [*start, *ids], dtype=self.dtype)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """See `Tokenizer.decode`; special tokens appear by their names."""
        listed = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        if listed and not 0 <= min(listed) <= max(listed) < self.vocabulary_size:
            raise ValueError(f"token ids must lie in 0..{self.vocabulary_size - 1}; got {min(listed)}..{max(listed)}")
        before = str(self._fast.decode(self._before, skip_special_tokens=False))
        return str(self._fast.decode([*self._before, *listed], skip_special_tokens=False))[len(before) :]

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode_prompt`; ids that do not begin as a prompt does are decoded as a continuation."""
        start, listed = list(self.start_ids), list(ids)
        if not start or listed[: len(start)] != start:
            return self.decode(listed)
        return str(self._fast.decode(listed[len(start) :], skip_special_tokens=False))

    def _plain(self, text: str) -> list[int]:
        """Ids of a text by itself, without special tokens."""
        ids: list[int] = self._encoded(text).ids
        return ids

    def _encoded(self, text: str) -> Any:
        """What the library finds in a text. Raises UserError for lone surrogates, which it does not take."""
        try:
            return self._fast.encode(text, add_special_tokens=False)
        except TypeError as error:
            require_letters(text)
            raise UserError("the text has a lone surrogate, which is no character. Leave it out.") from error

    def _continuation(self, text: str) -> list[int]:
        """Ids of a text behind another one, which has no space put before it; [] where no token begins with the text."""
        if not self._before:
            return []
        found = self._encoded(_BEFORE + text)
        first = next((place for place, (begin, _) in enumerate(found.offsets) if begin >= len(_BEFORE)), 0)
        return found.ids[first:] if found.ids[:first] == self._before else []

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """See `Tokenizer.stream`; text that the next token may still change is held back."""
        seen: list[int] = []
        given = ""
        for token in ids:
            seen.append(token)
            text = self.decode(seen)
            if text.endswith(REPLACEMENT) or not text.startswith(given):
                yield ""
            else:
                yield text[len(given) :]
                given = text
        yield self.decode(seen)[len(given) :]

    def id_of(self, token: str) -> int | None:
        """Id of the token with this name; None where there is none."""
        found: int | None = self._fast.token_to_id(token)
        return found

    def count_unknown(self, text: str) -> int:
        """See `Tokenizer.count_unknown`."""
        return len(self._unknown_places(text))

    def encode_strict(self, text: str) -> Tensor:
        """See `Tokenizer.encode_strict`; positions are counted from 1, in characters."""
        self._require_known(text)
        return self.encode(text)

    def _require_known(self, text: str) -> None:
        places = self._unknown_places(text)
        if places:
            first = dict.fromkeys(text[place] for place in places)
            named = [f"{c!r} (position {text.index(c) + 1})" for c in list(first)[:_NAMED_AT_MOST]]
            raise UserError(
                f"the text has characters that the pretrained tokenizer has no token for: {', '.join(named)}"
                f"{' and others' if len(first) > _NAMED_AT_MOST else ''}. Leave them out."
            )

    def state(self) -> dict[str, Any]:
        """See `Tokenizer.state`: the whole file, so that a run is self-contained."""
        return {"kind": "pretrained", "json": self._content, **({"conventions": True} if self.start_ids or self._before else {})}

    def _unknown_places(self, text: str) -> list[int]:
        """Positions of unknown tokens, and of text without a token that is more than white space."""
        encoded = self._encoded(text)
        known = bytearray(len(text))
        for token, (begin, end) in zip(encoded.ids, encoded.offsets, strict=True):
            if token != self.unknown_id:
                known[begin:end] = b"\1" * (end - begin)
        return [place for place, is_known in enumerate(known) if not is_known and not text[place].isspace()]


def _start_ids(fast: Any) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before a text."""
    found = fast.encode("a")
    count = next((place for place, special in enumerate(found.special_tokens_mask) if not special), 0)
    return tuple(found.ids[:count])


def _before_a_continuation(fast: Any) -> list[int]:
    """Ids of `_BEFORE`, for a tokenizer that puts a space before each text; else []."""
    alone, behind = fast.encode("a", add_special_tokens=False), fast.encode(f"{_BEFORE}a", add_special_tokens=False)
    first = next((place for place, (begin, _) in enumerate(behind.offsets) if begin >= len(_BEFORE)), 0)
    return [] if first == 0 or behind.ids[first:] == alone.ids else list(behind.ids[:first])


def read(where: str) -> PretrainedTokenizer:
    """Reads the tokenizer of a model's folder, a `tokenizer.json` itself, or that of OWNER/NAME on the Hub.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = _file(where, FILE)
    if path is None:
        raise UserError(
            f"data.tokenizer={where}: there is no {Path(where).expanduser() / FILE}. Write character, byte, or the folder of a "
            f"model with a {FILE} (a fast tokenizer's save_pretrained writes one)."
        )
    try:
        return PretrainedTokenizer(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.tokenizer: {path} cannot be read: {error}") from error


def end_of_text(where: str) -> int | None:
    """Id of a model's end-of-text token, from the files beside its tokenizer; None where they name none.

    Raises:
        UserError: as `read`, or a file beside it is no JSON.
    """
    tokenizer = read(where)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = settings_of(where, name).get("eos_token")
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and (found := tokenizer.id_of(text)) is not None:
            return found
    for name in ("generation_config.json", "config.json"):
        number = settings_of(where, name).get("eos_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and 0 <= number < tokenizer.vocabulary_size:
            return number
    return None


def read_text(where: str, name: str) -> str | None:
    """A file of the model as text; None where it has none."""
    path = _file(where, name)
    return None if path is None else path.read_text(encoding="utf-8")


def _file(where: str, name: str) -> Path | None:
    """Finds a file of the model: in its folder, beside its tokenizer.json, or (OWNER/NAME) on the Hub; None if absent."""
    path = Path(where).expanduser()
    if path.is_file():
        path = path if name == FILE else path.with_name(name)
    elif path.is_dir() or where.startswith((".", "/", "~")) or where.count("/") != 1:
        path = path / name
    else:
        return _hub_folder(where, name)
    return path if path.is_file() else None


def _hub_folder(where: str, name: str) -> Path | None:
    """A file of the Hub, or its local copy; None where there is neither."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    is_local = hub.why_not() is not None
    try:
        with hub.local_copies() if is_local else contextlib.nullcontext():
            return Path(huggingface_hub.hf_hub_download(where, name, local_files_only=is_local))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def settings_of(where: str, name: str) -> dict[str, Any]:
    """Reads a JSON object of the model's files; {} where there is no such file."""
    path = _file(where, name)
    if path is None:
        return {}
    try:
        found = json_value(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"data.tokenizer: {path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
