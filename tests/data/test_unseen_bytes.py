"""Bytes that never occur in the training part are no actions; a run from before goes on with all 256."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dqnlm import cli, load_policy
from dqnlm.builder import launch
from dqnlm.data.text.corpora import build_corpus
from dqnlm.data.text.reading import TextSource, sha256_of
from dqnlm.tasks.text import TextTask
from tests.helpers import runs

BYTE = "data.tokenizer=byte"


def corpus_of(text: str, **settings: Any) -> Any:
    source = TextSource(text=text, name="test text", origin="here", sha256=sha256_of(text))
    return build_corpus(source, "byte", 0.2, **settings)


def test_the_training_part_says_which(tmp_path: Path) -> None:
    """Bug: the held-out end is looked at, or the bytes of a character beyond ASCII are left out."""
    corpus = corpus_of("ab\u00e9" * 8 + "z" * 6, unseen_bytes=False)
    assert corpus.choosable_A.nonzero().flatten().tolist() == sorted("ab\u00e9".encode())
    assert corpus_of("ab" * 9, unseen_bytes=True).choosable_A is None
    assert corpus.fingerprint() == corpus_of("ab\u00e9" * 8 + "z" * 6, unseen_bytes=True).fingerprint()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([BYTE], "abc \n"), ([BYTE, "data.unseen_bytes=true"], None), ([BYTE, "env.allowed=xyz"], "xyz"), ([], "abc \n"),
    ],
)  # fmt: skip
def test_what_may_be_chosen(tmp_path: Path, overrides: list[str], expected: str | None) -> None:
    """Bug: env.allowed is narrowed, the setting does nothing, or characters are treated as bytes are."""
    text = runs.write_text(tmp_path / "text.txt", words=["ab", "cab", "bc"])
    config, choices = runs.settings(runs.tiny(text, *overrides))
    task = TextTask(config, launch.build_data(config), torch.device("cpu"), choices)
    chosen = None if task.legal_A is None else task.tokenizer.decode(task.legal_A.nonzero().flatten())
    assert chosen == (None if expected is None else "".join(sorted(expected)))


def test_a_run_never_writes_them_and_scores_other_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: the mask does not reach the policy that is saved, or a text with other bytes cannot be scored."""
    text, folder = runs.write_text(tmp_path / "text.txt"), tmp_path / "run"
    runs.start(folder, text, BYTE)
    policy = load_policy(folder)
    assert policy.legal_A is not None and int(policy.legal_A.sum()) == len(set(text.read_bytes()[:3600]))
    written = policy.generate("the \u00e9 Z", max_tokens=200, temperature=50.0)
    assert set("".join(written)) <= set(text.read_text())
    other = tmp_path / "other.txt"
    other.write_text("the sea is Q\u00e9 " * 20, encoding="utf-8")
    assert cli.main(["eval", str(folder), "--data-path", str(other)]) == 0
    assert "80 bytes never occur" in capsys.readouterr().out


def test_a_run_from_before_goes_on_as_it_began(tmp_path: Path) -> None:
    """Bug: an old run is resumed with fewer actions than it had, or refused because its data seems another."""
    text, folder = runs.write_text(tmp_path / "text.txt"), tmp_path / "run"
    runs.start(folder, text, BYTE, "data.unseen_bytes=true")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["data"]["unseen_bytes"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert launch.resume(folder, ["trainer.rollouts=14"])["status"] == "finished"
    assert load_policy(folder, "last").legal_A is None
