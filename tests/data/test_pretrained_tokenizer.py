"""A pretrained model's tokenizer on a text: ids and back, what it does not know, and a run that needs no file beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import runs as tools

pytest.importorskip("transformers", reason="network=pretrained needs transformers")
pytest.importorskip("tokenizers", reason="reading a tokenizer.json needs tokenizers")

from dqnlm import load_policy
from dqnlm.builder import launch
from dqnlm.data.tokenizers import factory
from dqnlm.data.tokenizers.pretrained import PretrainedTokenizer
from dqnlm.errors import UserError
from tests.helpers import pretrained as models

TEXT = "the tea at ten, and the naïve hen: 清晨\n"


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2's kind: byte pairs over bytes, nothing unknown; some merges of the text's own words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(tools.WORDS)] * 20, trainer)
    folder = tmp_path_factory.mktemp("byte_level")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_text_becomes_ids_and_text_again(byte_level: Path) -> None:
    """Bug: special tokens that are added, or characters cut in two while text is written."""
    tokenizer = factory.build(str(byte_level), "")
    ids = tokenizer.encode_strict(TEXT)
    assert tokenizer.decode(ids) == TEXT and len(ids) < len(TEXT.encode()) and ids.dtype == torch.int32
    pieces = list(tokenizer.stream(ids.tolist()))
    assert "".join(pieces) == TEXT and not any("\ufffd" in piece for piece in pieces)
    assert "".join(tokenizer.stream(ids[:-3].tolist())) == tokenizer.decode(ids[:-3])  # ends within a character
    assert tokenizer.unknown_id is None and tokenizer.count_unknown(TEXT) == 0
    with pytest.raises(ValueError, match="token ids"):
        tokenizer.decode([tokenizer.vocabulary_size])


def test_unknown_characters_are_named(tmp_path: Path) -> None:
    """Bug: an unknown token in a prompt without a word. The model knows a to g."""
    tokenizer = factory.build(str(models.write(tmp_path / "model")), "")
    assert tokenizer.encode("abz").tolist() == [2, 3, tokenizer.unknown_id]
    assert tokenizer.count_unknown("az!b!") == 3
    with pytest.raises(UserError, match=r"'z' \(position 2\), '!' \(position 3\)"):
        tokenizer.encode_strict("az!b!")


def test_a_state_is_the_whole_tokenizer(byte_level: Path) -> None:
    """Bug: a run that reads its tokenizer only while the model's folder is there."""
    tokenizer = factory.build(str(byte_level), "")
    again = factory.from_state(json.loads(json.dumps(tokenizer.state())))
    assert isinstance(again, PretrainedTokenizer) and again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("charakter", "character, byte, or a folder.*mean character"),
        ("./nothing", "there is no nothing"),
        ("broken", r"no tokenizer\.json"),
    ],
)
def test_names_that_are_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    """Bug: a traceback, or a character tokenizer in place of the one that was meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=message):
        factory.build(name, "text")


def test_a_run_on_text_with_the_models_own_tokens(tmp_path: Path) -> None:
    """Bug: ids of another vocabulary than the network's. The model's folder is gone when the run is loaded."""
    import shutil

    alphabet = "".join(sorted({*"".join(tools.WORDS), " ", "\n"}))
    folder = models.write(tmp_path / "model", alphabet=alphabet)
    text = tools.write_text(tmp_path / "text.txt")
    named = ["network=pretrained", f"network.name_or_path={folder}", "network.context=10", f"data.tokenizer={folder}"]
    tools.start(tmp_path / "run", text, *named)
    shutil.rmtree(folder)
    policy = load_policy(tmp_path / "run")
    assert policy.spec.num_tokens == len(alphabet) + 2
    assert len(policy.generate("tea", 6, policy="greedy")[0]) >= 6
    with pytest.raises(UserError, match=r"data\.tokenizer=.*there is no"):
        launch.resume(tmp_path / "run", ["trainer.rollouts=24"])


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    """Bug: ids that mean other tokens to the model; nothing would show it but bad results."""
    one, other = models.write(tmp_path / "one"), models.write(tmp_path / "other", alphabet="gfedcba")
    tokens = factory.build(str(other), "").state()
    with pytest.raises(UserError, match="of another model"):
        models.Pretrained(9, tokens, None, name_or_path=str(one), **models.SETTINGS)


def _library_tokenizer(kind: str, begins: bool) -> Any:
    """A small tokenizer of each of the kinds in use; `begins`: it puts a begin-of-text token before each text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=kind == "prepend"))
    special = ["<unk>", "<s>", "</s>"]
    alphabet: list[str] = []
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    elif kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    else:  # as Llama 2's: a normalizer puts the space before, the decoder takes it away
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["the tea at ten and the hen\n" * 3, " ".join(tools.WORDS)] * 20, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "metaspace", "prepend"])
def test_prompt_and_continuation_are_the_tokens_of_the_whole_text(kind: str, begins: bool) -> None:
    """Bug: a model that has always read <s> first reads none, or a second space stands between a prompt and its answer.

    Oracle: the tokenizer of transformers on the whole text, as its generation and other trainers read it.
    """
    from transformers import PreTrainedTokenizerFast

    library = _library_tokenizer(kind, begins)
    ours, theirs = PretrainedTokenizer(library.to_str()), PreTrainedTokenizerFast(tokenizer_object=library)
    for prompt, answer in [("the tea", " at ten"), ("the ", "hen"), ("the", "\nhen"), ("a hen at ten\n", "the tea")]:
        parts = [*ours.encode_prompt(prompt).tolist(), *ours.encode(answer).tolist()]
        assert ours.decode(parts).replace("<s>", "").lstrip(" ") == prompt + answer
        if begins:
            assert ours.decode_prompt(ours.encode_prompt(prompt).tolist()) == prompt  # a reward function sees this
        if not prompt.endswith(" "):  # else a token of the whole text lies across the border
            assert parts == theirs(prompt + answer).input_ids, (prompt, answer)
    assert ours.start_ids == ((1,) if begins else ())


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "metaspace", "prepend"])
def test_a_continuation_is_the_text_that_it_was(kind: str, begins: bool) -> None:
    """Bug: a reward function sees answers without their first space, or with one more."""
    tokenizer = PretrainedTokenizer(_library_tokenizer(kind, begins).to_str())
    for answer in (" at ten", "at ten", "  at", "\n\nhen", ""):
        ids = tokenizer.encode(answer)
        assert tokenizer.decode(ids) == answer == "".join(tokenizer.stream(ids.tolist())), repr(answer)
    assert 1 not in tokenizer.encode("the tea").tolist()


def test_a_rendered_conversation_begins_once() -> None:
    """Bug: a chat template writes <s>, and the tokenizer another one."""
    tokenizer = PretrainedTokenizer(_library_tokenizer("prepend", True).to_str())
    ids = tokenizer.encode_prompt("<s>the tea").tolist()
    assert ids.count(1) == 1 and ids[0] == 1


@pytest.mark.parametrize("kind", ["metaspace", "prepend"])
def test_a_run_of_before_reads_as_it_was_trained(kind: str) -> None:
    """Bug: a policy of an earlier version is handed tokens at a prompt's start that it never met in training."""
    library = _library_tokenizer(kind, True)
    new = PretrainedTokenizer(library.to_str())
    assert factory.from_state(new.state()).encode_prompt("the tea").tolist() == new.encode_prompt("the tea").tolist()
    old = factory.from_state({"kind": "pretrained", "json": library.to_str()})
    assert old.encode_prompt("the tea").tolist() == library.encode("the tea", add_special_tokens=False).ids
    assert old.encode("the tea").tolist() == old.encode_prompt("the tea").tolist() and old.start_ids == ()
