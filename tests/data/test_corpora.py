"""A text cut in two and turned into ids."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dqnlm.data.text import corpora
from dqnlm.data.text.corpora import build_corpus
from dqnlm.data.text.reading import TextSource, sha256_of
from dqnlm.data.tokenizers.base import ByteTokenizer, CharacterTokenizer
from dqnlm.errors import UserError
from tests.helpers.paths import CONFIGS

KEPT = {"unseen_bytes": True}


def source(text: str) -> TextSource:
    return TextSource(text=text, name="test text", origin="here", sha256=sha256_of(text))


def test_the_cut_is_by_position() -> None:
    """Guards against shuffling, overlap and a lost character at the cut."""
    corpus = build_corpus(source("abcdefghij"), "character", 0.3)
    assert corpus.tokenizer.decode(corpus.train_ids) == "abcdefg"
    assert corpus.validation_ids.numel() == 3
    whole = build_corpus(source("ab" * 50), "character", 0.1)
    assert whole.tokenizer.decode(torch.cat([whole.train_ids, whole.validation_ids])) == "ab" * 50


def test_the_test_part_is_the_end_and_the_training_part_is_as_without_one() -> None:
    """Guards against a test part that evaluations during training read, or that is taken from the training part."""
    text = "".join(chr(33 + i) for i in range(90)) + "abcdeABCDE"
    corpus, without = build_corpus(source(text), "byte", 0.1, 0.5), build_corpus(source(text), "byte", 0.1, 0.0)
    parts = [corpus.tokenizer.decode(ids) for ids in (corpus.validation_ids, corpus.test_ids)]
    assert parts == ["abcde", "ABCDE"] and torch.equal(corpus.train_ids, without.train_ids)
    assert without.test_ids.numel() == 0 and without.validation_ids.numel() == 10
    known = build_corpus(source("ab" * 45 + "axbxxaxxxx"), "character", 0.1, 0.5)
    assert known.unknown == {"validation": 3, "test": 4}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_test_fraction_out_of_range(fraction: float) -> None:
    """Guards the range, also against not-a-number."""
    with pytest.raises(UserError, match=r"data\.test_fraction"):
        build_corpus(source("ab" * 100), "character", 0.1, fraction)


def test_text_too_short_for_a_test_part() -> None:
    """Guards against an empty test part; the message names the way out."""
    with pytest.raises(UserError, match=r"data\.test_fraction=0 for no test part"):
        build_corpus(source("ab" * 10), "character", 0.1, 0.5)


@pytest.mark.parametrize("tenths", range(1, 10))
def test_the_cut_is_exact_for_every_tenth(tenths: int) -> None:
    """Guards against floating point: 20 * (1 - 0.9) is below 2, and one character would change sides."""
    assert build_corpus(source("ab" * 10), "character", tenths / 10).train_ids.numel() == 20 - 2 * tenths


def test_the_vocabulary_is_that_of_the_training_part() -> None:
    """Guards against held-out text leaking into the vocabulary; its new characters are unknown and counted."""
    corpus = build_corpus(source("aabbaabb" + "xx"), "character", 0.2)
    assert isinstance(corpus.tokenizer, CharacterTokenizer) and corpus.tokenizer.characters == "ab"
    assert corpus.validation_ids.tolist() == [2, 2] and corpus.unknown["validation"] == 2


def test_bytes_are_cut_between_characters() -> None:
    """Guards the byte tokenizer: a cut inside a character would leave bytes that decode to nothing."""
    corpus = build_corpus(source("漢字" * 5), "byte", 0.5)
    assert corpus.train_ids.numel() == corpus.validation_ids.numel() == 15 and corpus.unknown["validation"] == 0
    assert corpus.tokenizer.decode(corpus.validation_ids) == "字漢字漢字"


def test_another_text_with_the_tokenizer_of_a_run() -> None:
    """Guards evaluation on another text: the run's ids, all of the text held out."""
    tokenizer = CharacterTokenizer("abc")
    corpus = build_corpus(source("cabz"), "byte", 1.0, tokenizer=tokenizer)
    assert corpus.tokenizer is tokenizer and corpus.train_ids.numel() == 0
    assert corpus.validation_ids.tolist() == [2, 0, 1, 3] and corpus.unknown["validation"] == 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    """Guards the range, also against not-a-number."""
    with pytest.raises(UserError, match=r"data\.heldout_fraction"):
        build_corpus(source("ab" * 100), "character", fraction)


def test_text_too_short_to_be_cut() -> None:
    """Guards against an empty part; the message has the numbers."""
    with pytest.raises(UserError, match=r"too short: 10 characters give 9 for training and 1 held out"):
        build_corpus(source("abcdefghij"), "character", 0.1)


def test_text_shorter_than_a_window() -> None:
    """Guards training on a text that no window fits into."""
    corpus = build_corpus(source("ab" * 50), "character", 0.1)
    corpus.require_tokens(10, "a window of 10")
    with pytest.raises(UserError, match=r"validation part of test text has 10 tokens, but a window of 65 .* at least 65"):
        corpus.require_tokens(65, "a window of 65")
    with pytest.raises(UserError, match="training part of test text has 90 tokens"):
        corpus.require_tokens(91, "a window of 91")


def test_fingerprint() -> None:
    """Guards resuming on other data: text, cut and tokenizer each change the fingerprint, and nothing else does."""
    first = build_corpus(source("ab" * 50), "character", 0.1)
    assert first.fingerprint() == build_corpus(source("ab" * 50), "character", 0.1).fingerprint()
    others = [
        build_corpus(source("ab" * 49 + "ba"), "character", 0.1),
        build_corpus(source("ab" * 50), "character", 0.2),
        build_corpus(source("ab" * 50), "byte", 0.1),
        build_corpus(source("ab" * 50), "character", 0.1, tokenizer=CharacterTokenizer("abc")),
        build_corpus(source("ab" * 50), "character", 0.1, 0.5),
    ]
    assert len({corpus.fingerprint() for corpus in [first, *others]}) == 6


def test_tiny_shakespeare_sizes() -> None:
    """Guards the customary split of the real file, and that its ids are those of the text."""
    folder = os.environ.get("DQNLM_DATA_DIR")
    if not folder or not (Path(folder) / "tinyshakespeare.txt").is_file():
        pytest.skip("needs tinyshakespeare.txt in the folder that DQNLM_DATA_DIR names")
    corpus = corpora.build_tiny_shakespeare(
        path=None,
        characters=None,
        bundled_fallback=False,
        bundled_characters=1,
        bundled_seed=0,
        tokenizer="character",
        heldout_fraction=0.1,
        test_fraction=0.0,
        unseen_bytes=False,
    )
    assert (corpus.train_ids.numel(), corpus.validation_ids.numel()) == (1_003_854, 111_540)
    assert corpus.train_ids.dtype == torch.uint8 and corpus.unknown["validation"] == 0
    assert corpus.tokenizer.vocabulary_size == 66 and not corpus.source.bundled
    assert corpus.tokenizer.decode(corpus.validation_ids) == corpus.source.text[1_003_854:]


def test_build_bundled_and_text_file(tmp_path: Path) -> None:
    """Guards the wrappers: every key reaches what it names."""
    corpus = corpora.build_bundled(
        characters=3_000, seed=4, tokenizer="byte", unseen_bytes=True, heldout_fraction=0.25, test_fraction=0.0
    )
    assert corpus.source.bundled and "seed 4" in corpus.source.origin
    assert isinstance(corpus.tokenizer, ByteTokenizer) and corpus.validation_ids.numel() == 750
    file = tmp_path / "a.txt"
    file.write_text("some text")
    corpus = corpora.build_text_file(
        path=str(file), characters=None, tokenizer="byte", heldout_fraction=0.5, test_fraction=0.5, **KEPT
    )
    assert corpus.source.text == "some text" and corpus.test_ids.numel() == 3


@pytest.mark.parametrize("option", ["tiny_shakespeare", "text_file", "hub", "bundled"])
def test_config_keys_are_the_target_s_parameters(option: str) -> None:
    """Guards the YAML: a key that nothing reads, a missing one, or a default in two places."""
    text = (CONFIGS / "data" / f"{option}.yaml").read_text()
    assert text.startswith(f"# {option}: ")
    config = dict(OmegaConf.load(CONFIGS / "data" / f"{option}.yaml"))  # type: ignore[arg-type]
    target = getattr(corpora, config.pop("_target_").removeprefix("dqnlm.data.text.corpora."))
    parameters = inspect.signature(target).parameters
    assert set(config) == set(parameters)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters.values())
    assert all("#" in line for line in text.splitlines()[3:] if line), "every key carries its meaning"


def test_the_beginning_of_a_text(tmp_path: Path) -> None:
    """Bug: a limit on what is read that is not noted, that has the fingerprint of the whole, or takes another piece."""
    file = tmp_path / "a.txt"
    file.write_text("abcdefghijkl")
    read = {n: corpora.build_text_file(
        path=str(file), characters=n, tokenizer="byte", heldout_fraction=0.5, test_fraction=0.0, **KEPT)
        for n in (None, 12, 99, 6)
    }  # fmt: skip
    assert read[6].tokenizer.decode(read[6].train_ids) == "abc" and read[6].tokenizer.decode(read[6].validation_ids) == "def"
    assert "Only the first 6 of 12 characters are read (data.characters)." in read[6].source.notes
    assert read[6].fingerprint() != read[None].fingerprint() == read[12].fingerprint() == read[99].fingerprint()
    with pytest.raises(UserError, match=r"data\.characters, how many are read, must be at least 1 .* not 0"):
        corpora.build_text_file(path=str(file), characters=0, tokenizer="byte", heldout_fraction=0.5, test_fraction=0.0, **KEPT)
