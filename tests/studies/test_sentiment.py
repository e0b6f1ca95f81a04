"""The study of sentiment: its prompts, its measures, and sampling, without the pretrained model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from studies.sentiment import grpo, measure, reward, sampling


def test_prompts_are_valid_and_disjoint() -> None:
    """Bug: a held-out prompt is trained on, stands twice, or ends with a space, which no tokenizer splits like training text."""
    files = (sampling.PROMPTS, sampling.HELDOUT, sampling.VALIDATION)
    train, heldout, validation = (sampling.read_prompts(path) for path in files)
    assert (len(train), len(heldout), len(validation)) == (100, 40, 24)
    together = [prompt.lower() for prompt in train + heldout + validation]
    assert len(set(together)) == 164
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert list(row) == ["prompt"] and row["prompt"] == row["prompt"].strip() and 2 <= len(row["prompt"].split()) <= 10


def test_prompts_are_neutral() -> None:
    """Bug: a prompt asks for a mood by itself, so that the reward measures the prompt."""
    pytest.importorskip("vaderSentiment", reason="vaderSentiment is not installed")
    files = (sampling.PROMPTS, sampling.HELDOUT, sampling.VALIDATION)
    prompts = [prompt for path in files for prompt in sampling.read_prompts(path)]
    moods = reward.score([""] * len(prompts), prompts, [""] * len(prompts))
    assert abs(sum(moods) / len(moods)) < 0.1


def test_reward_is_of_the_completion_alone() -> None:
    """Bug: the prompt's words count, or the sign is turned."""
    pytest.importorskip("vaderSentiment", reason="vaderSentiment is not installed")
    good, bad, none = reward.score(["a horrible day", "a lovely day", ""], [" it was wonderful", " it was awful", ""], [""] * 3)
    assert good > 0.3 and bad < -0.3 and none == 0.0


def test_distinct_2() -> None:
    """a b, b a, a b; c d; no pair: 3 of 4 differ. Bug: pairs across texts (a c) count, or a text of one word divides by 0."""
    assert measure.distinct_2(["a b a b", "c d", "e"]) == pytest.approx(3 / 4)
    assert measure.distinct_2(["e", ""]) == 0.0


def test_means_are_of_prompts() -> None:
    """Bug: the interval's unit is the completion, though completions of one prompt are alike: it would be too narrow."""
    assert measure.means_by_prompt(["a", "b", "a"], [1.0, 5.0, 3.0]) == [2.0, 5.0]
    assert measure.interval([0.25, 0.25]) == (0.25, 0.25)
    low, high = measure.interval([0.0, 1.0] * 50)
    assert 0.38 < low < 0.43 and 0.57 < high < 0.62  # 0.5 +- 1.96 * 0.5 / sqrt 100


def test_best_of_takes_groups_that_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the best of all, or of texts of different prompts."""
    monkeypatch.setattr(measure, "score", lambda prompts, completions, references: [len(text) for text in completions])
    texts = [("p", "a"), ("p", "abc"), ("q", "abcd"), ("q", "")]
    assert measure.best_of(texts, 2) == [("p", "abc"), ("q", "abcd")]


class Letters:
    """A tokenizer of one token a letter: a is 0, and so on; z, 25, ends."""

    eos_token_id = 25

    def __call__(self, text: str, add_special_tokens: bool) -> Any:
        assert not add_special_tokens
        return type("Encoded", (), {"input_ids": [ord(letter) - ord("a") for letter in text]})

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(ord("a") + i) for i in ids)


class Successor:
    """The next letter has probability 1/2, and each of the other 25 letters 1/50."""

    device = torch.device("cpu")

    def __call__(self, ids_RT: torch.Tensor) -> Any:
        p_RTA = torch.full((*ids_RT.shape, 26), 1 / 50).scatter(2, (ids_RT[..., None] + 1) % 26, 1 / 2)
        return type("Output", (), {"logits": p_RTA.log() + 3.0})

    def generate(self, ids_RT: torch.Tensor, max_new_tokens: int, eos_token_id: int, **_: Any) -> torch.Tensor:
        for _step in range(max_new_tokens):
            following_R = torch.where(ids_RT[:, -1] == eos_token_id, eos_token_id, ids_RT[:, -1] + 1)
            ids_RT = torch.cat([ids_RT, following_R[:, None]], 1)
        return ids_RT


def test_nats_are_of_the_completion() -> None:
    """Bug: the prompt's tokens count, the first token of the completion is left out, or batches change the order."""
    found = sampling.nats(Successor(), Letters(), [("ab", "cd"), ("abx", "b"), ("a", ""), ("m", "n")])
    assert [count for _, count in found] == [2, 1, 0, 1]
    assert [value for value, _ in found] == pytest.approx([2 * math.log(2), math.log(50), 0.0, math.log(2)], abs=1e-5)


def test_samples_stand_in_the_order_of_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: prompts of one length come together; the end token is part of the text, or is not counted as generated."""
    monkeypatch.setattr(sampling, "ROWS", 3)
    found = sampling.sample(Successor(), Letters(), ["a", "bx", "c"], each=2, tokens=3)
    assert found == [("a", "bcd", 3)] * 2 + [("bx", "y", 2)] * 2 + [("c", "def", 3)] * 2


def test_record_counts_tokens_and_leaves_pauses_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: evaluations count as time of training, or padding as generated tokens."""
    now = iter([10.0, 13.0, 100.0, 104.0])
    monkeypatch.setattr(grpo.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(grpo, "score", lambda prompts, completions, references: [1.0, 0.0])
    record = grpo.Record(tmp_path / "record.jsonl")
    record.go_on()
    assert record.reward(["p", "p"], ["a", "b"], [[1, 2, 3], [4]]) == [1.0, 0.0]
    record.pause()
    record.write(heldout=0.5)
    first, second = (json.loads(line) for line in record.file.read_text().splitlines())
    assert (first["tokens"], first["wall_s"], first["reward"]) == (4, 3.0, 0.5)
    assert (second["tokens"], second["wall_s"], second["heldout"]) == (4, 7.0, 0.5)
