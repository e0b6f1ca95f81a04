"""A pretrained model's tokenizer on a text: ids and back, what it does not know, and a run that needs no file beside it."""

from __future__ import annotations

import json
from pathlib import Path

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
