"""Tokenizers: one id per character of the training text, or one id per UTF-8 byte.

A character tokenizer has one id for each distinct character of the text it was built from, in code-point order, and
one more, the last, for every other character. A byte tokenizer has the 256 byte values and can encode every text.
"""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqnlm.errors import UserError
from dqnlm.utils import terminal
from dqnlm.utils.files import write_bytes_atomic

REPLACEMENT = "\ufffd"  # what the unknown token reads as
_NAMED_AT_MOST = 5  # characters that one message names


class Tokenizer(ABC):
    """Maps text to ids below `vocabulary_size` and back.

    Attributes:
        vocabulary_size: number of ids; the number of actions of an environment on this text.
        unknown_id: the id of every character outside the vocabulary; None where there is no such character.
        eos_id: the token that ends an answer; None where none does.
        start_ids: tokens that a prompt begins with, as a pretrained model's tokenizer puts its begin-of-text token there.
    """

    vocabulary_size: int
    unknown_id: int | None
    eos_id: int | None = None
    start_ids: tuple[int, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """The smaller of uint8 and int32 that holds every id; as an index use `.long()`, since torch takes uint8 for a mask."""
        return torch.uint8 if self.vocabulary_size <= 256 else torch.int32

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Ids of a text, 1-D, `dtype`; characters outside the vocabulary become `unknown_id`."""

    @abstractmethod
    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Text of a 1-D run of ids. Raises ValueError for an id outside the vocabulary."""

    @abstractmethod
    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decodes ids as they arrive; the pieces join to `decode(ids)`, and no character is split."""

    @abstractmethod
    def count_unknown(self, text: str) -> int:
        """Number of characters of the text that `encode` would turn into the unknown token."""

    @abstractmethod
    def encode_strict(self, text: str) -> Tensor:
        """Like `encode`, but raises UserError with the unknown characters and their positions."""

    def encode_prompt(self, text: str, strict: bool = True) -> Tensor:
        """Ids of a text that begins a row, by the conventions of a pretrained model; its continuation is for `encode`.

        Args:
            text: the prompt.
            strict: as `encode_strict`, else as `encode`.
        """
        return self.encode_strict(text) if strict else self.encode(text)

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """The text whose `encode_prompt` these ids are, without what conventions put before it."""
        return self.decode(ids)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The arguments of `from_state`, as plain JSON values."""

    def save(self, path: str | Path) -> None:
        """Writes `state()` as JSON, atomically."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(Path(path), (json.dumps(self.state(), indent=1) + "\n").encode())


class CharacterTokenizer(Tokenizer):
    """One id per character; id k is the k-th smallest code point of the text it was built from."""

    def __init__(self, text: str) -> None:
        """Takes the distinct characters of `text` (the training part only, so that held-out text leaks nothing)."""
        self.characters = "".join(map(chr, np.unique(_code_points(text)).tolist()))
        self.unknown_id: int = len(self.characters)
        self.vocabulary_size = len(self.characters) + 1
        known = _code_points(self.characters)
        # The entry after the greatest known code point stands for all greater ones.
        self._id_of_code_point = np.full(int(known.max(initial=0)) + 2, self.unknown_id, dtype=np.int32)
        self._id_of_code_point[known] = np.arange(len(known), dtype=np.int32)
        self._characters_by_id = np.append(known, np.uint32(ord(REPLACEMENT))).astype("<u4")

    def encode(self, text: str) -> Tensor:
        """See `Tokenizer.encode`."""
        return torch.from_numpy(self._lookup(text)).to(self.dtype)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """See `Tokenizer.decode`; the unknown token reads as U+FFFD."""
        codes = self._characters_by_id[_checked(ids, self.vocabulary_size)]
        return codes.tobytes().decode("utf-32-le", "surrogatepass")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """See `Tokenizer.stream`."""
        return (self.decode([token]) for token in ids)

    def count_unknown(self, text: str) -> int:
        """See `Tokenizer.count_unknown`."""
        return int((self._lookup(text) == self.unknown_id).sum())

    def encode_strict(self, text: str) -> Tensor:
        """See `Tokenizer.encode_strict`; positions are counted from 1, in characters."""
        places = np.flatnonzero(self._lookup(text) == self.unknown_id).tolist()
        if places:
            first: dict[str, int] = {}
            for place in places:
                first.setdefault(text[place], place + 1)
            require_letters("".join(first))
            named = [f"{_printable(c)} (position {place})" for c, place in list(first.items())[:_NAMED_AT_MOST]]
            more = f" and {len(first) - _NAMED_AT_MOST} more" if len(first) > _NAMED_AT_MOST else ""
            raise UserError(
                f"the text has characters that do not occur in the tokenizer's training text: {', '.join(named)}{more}. "
                f"It knows {self.vocabulary_size - 1} characters: {_shortened(self.characters)}. "
                "Leave them out or write them with characters of that list."
            )
        return self.encode(text)

    def state(self) -> dict[str, Any]:
        """See `Tokenizer.state`."""
        return {"kind": "character", "characters": self.characters}

    def _lookup(self, text: str) -> np.ndarray:
        codes = _code_points(text)
        return self._id_of_code_point[np.minimum(codes, len(self._id_of_code_point) - 1)]


class ByteTokenizer(Tokenizer):
    """One id per byte of UTF-8: 256 ids; every text can be encoded and no character is unknown."""

    def __init__(self) -> None:
        """Needs no text."""
        self.vocabulary_size = 256
        self.unknown_id: None = None

    def encode(self, text: str) -> Tensor:
        """See `Tokenizer.encode`. Raises UserError for half of a surrogate pair, which UTF-8 cannot express.

        Bytes of a command line that were no UTF-8 reach Python as U+DC80..U+DCFF; they become the bytes they were.
        """
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text has a lone surrogate {_printable(text[error.start])} at position {error.start + 1}, "
                "which is no character and has no UTF-8 form. Leave it out."
            ) from error
        return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """See `Tokenizer.decode`; bytes that are no UTF-8 read as U+FFFD."""
        return _checked(ids, 256).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """See `Tokenizer.stream`; the pieces of unfinished characters are empty."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in ids:
            yield decoder.decode(bytes([token]))
        yield decoder.decode(b"", final=True)

    def count_unknown(self, text: str) -> int:
        """See `Tokenizer.count_unknown`: always 0."""
        return 0

    def encode_strict(self, text: str) -> Tensor:
        """See `Tokenizer.encode_strict`: the same as `encode`."""
        return self.encode(text)

    def state(self) -> dict[str, Any]:
        """See `Tokenizer.state`."""
        return {"kind": "byte"}


def require_letters(text: str) -> None:
    """Raises UserError where what was typed has bytes that are no text in the locale's encoding."""
    if terminal.escaped_bytes(text):
        raise UserError(f"the text has bytes that are no letters: {terminal.about_the_locale()}")


def _code_points(text: str) -> np.ndarray:
    """Code points of a text, uint32, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _checked(ids: Tensor | Sequence[int], vocabulary_size: int) -> np.ndarray:
    """Ids as a 1-D int64 array; refuses negative ids, which would silently index from the end."""
    array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    array = array.astype(np.int64).reshape(-1)
    if array.size and (array.min() < 0 or array.max() >= vocabulary_size):
        raise ValueError(f"token ids must lie in 0..{vocabulary_size - 1}; got {array.min()}..{array.max()}")
    return array


def _printable(character: str) -> str:
    return f"{character!r} U+{ord(character):04X}"


def _shortened(characters: str, limit: int = 100) -> str:
    shown = repr(characters[:limit])
    return shown if len(characters) <= limit else f"{shown} ..."
