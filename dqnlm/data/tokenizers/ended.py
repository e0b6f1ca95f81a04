"""A tokenizer with an end-of-answer token: an additional id, or an existing special token of the tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from dqnlm.data.tokenizers.base import Tokenizer

END = "<end>"  # what an added end token reads as


class EndedTokenizer(Tokenizer):
    """Wraps the tokenizer of a text and adds `eos_id`.

    Args:
        text: the tokenizer of the text.
        eos_id: one of its own ids, such as a pretrained model's end-of-text token; or the one behind its last, a new one.
    """

    def __init__(self, text: Tokenizer, eos_id: int) -> None:
        assert 0 <= eos_id <= text.vocabulary_size, "the end token is one of the tokenizer's, or the next"
        self.text, self.eos_id = text, eos_id
        self.vocabulary_size = max(text.vocabulary_size, eos_id + 1)
        self.unknown_id = text.unknown_id
        self.start_ids = text.start_ids
        self._is_own = eos_id < text.vocabulary_size

    def encode(self, text: str) -> Tensor:
        """See `Tokenizer.encode`; no end token is added."""
        return self.text.encode(text).to(self.dtype)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """See `Tokenizer.decode`; an added end token reads as `END`, one of the tokenizer's own as it is called."""
        return "".join(self.stream(ids.tolist() if isinstance(ids, Tensor) else ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """See `Tokenizer.stream`."""
        if self._is_own:
            yield from self.text.stream(ids)
            return
        rest, more = iter(ids), True

        def up_to_end() -> Iterator[int]:
            nonlocal more
            more = False
            for token in rest:
                if token == self.eos_id:
                    more = True
                    return
                yield token

        while more:
            yield from self.text.stream(up_to_end())
            if more:
                yield END

    def count_unknown(self, text: str) -> int:
        """See `Tokenizer.count_unknown`."""
        return self.text.count_unknown(text)

    def encode_strict(self, text: str) -> Tensor:
        """See `Tokenizer.encode_strict`."""
        return self.text.encode_strict(text).to(self.dtype)

    def encode_prompt(self, text: str, strict: bool = True) -> Tensor:
        """See `Tokenizer.encode_prompt`."""
        return self.text.encode_prompt(text, strict).to(self.dtype)

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode_prompt`."""
        return self.text.decode_prompt(ids) if self._is_own else self.decode(ids)

    def state(self) -> dict[str, Any]:
        """See `Tokenizer.state`."""
        return {"kind": "ended", "text": self.text.state(), "end_id": self.eos_id}


def before_end(ids: Sequence[int], eos_id: int | None) -> list[int]:
    """The part before the first end token; all where there is none."""
    listed = list(ids)
    return listed[: listed.index(eos_id)] if eos_id in listed else listed


def with_end(text: Tokenizer, own_end: int | None) -> EndedTokenizer:
    """Wraps a tokenizer with its own end token where it has one, else with a new one."""
    return EndedTokenizer(text, text.vocabulary_size if own_end is None else own_end)
