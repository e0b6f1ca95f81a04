"""Byte pair encoding (Sennrich et al. 2016) on bytes, trained with `tokenizers`: every text can be encoded."""

from __future__ import annotations

from collections.abc import Sequence

from dqnlm.data.tokenizers.pretrained import PretrainedTokenizer
from dqnlm.errors import UserError

_LEAST = 256  # the bytes themselves


def train_bpe(texts: Sequence[str], vocabulary_size: int) -> PretrainedTokenizer:
    """Trains a tokenizer of at most `vocabulary_size` tokens; the line break is a token of its own and part of no other.

    Raises:
        UserError: fewer tokens than there are bytes, or `tokenizers` is not installed.
    """
    if vocabulary_size <= _LEAST:
        raise UserError(
            f"data.vocabulary_size must be above {_LEAST}, the number of bytes, not {vocabulary_size}; with fewer tokens take "
            "data.tokenizer=byte or character"
        )
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    except ModuleNotFoundError as error:
        raise UserError("data.tokenizer=bpe needs the package tokenizers: pip install 'dqnlm[text]'") from error
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    fast.train_from_iterator(texts, trainer)
    fast.add_tokens([AddedToken("\n", normalized=False)])
    return PretrainedTokenizer(fast.to_str())
