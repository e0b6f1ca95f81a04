"""The tokenizer of a set of texts, by settings, with an end token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dqnlm.data.tokenizers import factory
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.tokenizers.bpe import train_bpe
from dqnlm.data.tokenizers.ended import with_end
from dqnlm.errors import UserError


def make_tokenizer(kind: str | None, vocabulary_size: int | None, texts: Sequence[str], end_token: bool) -> Tokenizer:
    """Builds a pretrained model's own tokenizer, or one from the texts of the training part.

    Args:
        kind: `data.tokenizer`.
        vocabulary_size: of bpe alone.
        texts: of the training part.
        end_token: add an end token; a pretrained model's is its end of text.

    Raises:
        UserError: settings that do not go together, or a model without an end token.
    """
    if kind is None:
        raise UserError(
            "data.tokenizer is null: set character, byte, bpe, or the folder of a pretrained model (network.name_or_path=FOLDER "
            "gives its own)"
        )
    if (vocabulary_size is None) == (kind == "bpe"):
        raise UserError(
            "data.tokenizer=bpe needs data.vocabulary_size (such as 2000), and the other tokenizers take "
            f"data.vocabulary_size=null; it is {vocabulary_size}"
        )
    if vocabulary_size is not None:
        made: Tokenizer = train_bpe(texts, vocabulary_size)
    else:
        made = factory.build(kind, "".join(texts))
    if not end_token:
        return made
    if kind in ("bpe", "character", "byte"):
        return with_end(made, None)
    from dqnlm.data.tokenizers.pretrained import end_of_text

    own = end_of_text(kind)
    if own is None:
        raise UserError(
            f"data.end_token: no file in {Path(kind)} names the model's end-of-text token (eos_token in tokenizer_config.json); "
            "add it, or set data.end_token=false"
        )
    return with_end(made, own)
