"""Held-out data stays out: what a run learns from, what its evaluations score, and what rewards and tokenizers are made of."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.commands import evaluate
from dqnlm.config import composition, validation
from dqnlm.data.pairs.dataset import build_pairs
from dqnlm.data.pairs.files import TextPair
from dqnlm.data.prompts.dataset import prompts
from dqnlm.data.trajectories.files import DataSource
from dqnlm.runs.directory import RunDirectory
from dqnlm.tasks.base import Task
from dqnlm.training.components import Components
from dqnlm.utils import user_code
from tests.golden import data_files
from tests.golden.runs import PAIRS
from tests.helpers import runs as tools

QUIET = ["device=cpu", "threads=1", "logger=none", "progress=false"]


def built(folder: Path, typed: list[str]) -> Components:
    composed, choices = composition.compose(typed)
    folder.mkdir(exist_ok=True)
    return launch.build(validation.validate(composed, choices, typed), RunDirectory(folder), choices=choices).components


def evaluator_of(components: Components, part: Any) -> Any:
    """The evaluator of the run's task, as `dqnlm eval` builds it for a part."""
    components.task.part = part
    return components.task.evaluator(components.evaluation, q_is_return=False, learns_returns=False)


def given_to_rewards(components: Components, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reward is built from where an evaluation builds its environment."""
    given: dict[str, Any] = {}
    original = Task.build_reward

    def watched(self: Task, dependencies: dict[str, Any]) -> Any:
        given.update(dependencies)
        return original(self, dependencies)

    monkeypatch.setattr(Task, "build_reward", watched)
    components.task.make_env(0, evaluating=True, num_envs=2)
    return given


def test_parts_of_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: an evaluation of a run reads the test part, or `dqnlm eval` the validation part; a reward made of held-out text.

    The last tenth of the text is c alone (validation) and then b alone (test).
    """
    (tmp_path / "text.txt").write_text("abc" * 1200 + "c" * 200 + "b" * 200)
    checked, choices = tools.settings(tools.tiny(tmp_path / "text.txt", "data.test_fraction=0.5"))
    components = launch.build(checked, RunDirectory(tmp_path), choices=choices).components
    data = components.task.data
    for part, letter in ((None, 2), ("validation", 2), ("test", 1)):
        evaluator = components.evaluator if part is None else evaluator_of(components, part)
        env = evaluator.make_env()
        env.reset()
        assert set(evaluator.heldout_ids.tolist()) == {letter} == set(env.teacher_forced_observations().flatten().tolist())
    assert components.task.parts == ("validation", "test")
    assert torch.equal(given_to_rewards(components, monkeypatch)["train_ids"], data.train_ids)


def test_parts_of_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: answers compared with references of another part; parts exchanged; held-out answers in a reward's language model."""
    monkeypatch.chdir(tmp_path)
    data_files.write(tmp_path, ("pairs",))
    components = built(tmp_path / "run", [*PAIRS, "progress=false", "logger=none"])
    data, evaluator = components.task.data, components.evaluator
    assert evaluator.texts == [pair.answer for pair in data.heldout.texts]
    names = {"train": "train", "validation": "val", "test": "test"}
    for part, name in names.items():
        lines = (tmp_path / "pairs" / f"{name}.x").read_text().splitlines()
        assert [pair.prompt for pair in data.part(part).texts] == lines
    said = data.tokenizer.decode(given_to_rewards(components, monkeypatch)["train_ids"])
    assert said == "".join(f"{pair.answer}\n" for pair in data.train.texts)


def test_the_tokenizer_of_pairs_is_that_of_the_training_part() -> None:
    """Bug: characters of held-out pairs in the vocabulary. Here d and e are in those alone."""
    parts = {name: [TextPair(text, text)] for name, text in (("train", "ab"), ("heldout", "abd"), ("test", "abe"))}
    data = build_pairs(parts, DataSource("pairs", "here", ""), "character", None, 9)
    assert data.tokenizer.vocabulary_size == len("\nab") + 1  # one stands for all unknown ones


def test_parts_of_prompts(tmp_path: Path) -> None:
    """Bug: held-out prompts are practised on, or prompts of the training part answered in an evaluation."""
    own = tmp_path / "score.py"
    own.write_text("def score(prompts, completions, **columns):\n    return [0.0 for _ in completions]\n")
    user_code._run.cache_clear()
    texts = ["abc", "bca", "cab", "acb", "aab", "abb", "aac", "acc", "bba", "bbc", "cca", "ccb"]  # of letters of the first four
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    components = built(tmp_path / "run", [
        "+experiment=prompts", *QUIET, "env.horizon=3", "env.num_envs=8", "env.samples_per_prompt=2", "trainer.batch_size=8",
        "evaluation.episodes=4", "network=transformer", "projection=linear", "~network.lora_rank", "~network.q_init",
        "~network.q_temperature", "network.dropout=0.0", "network.layers=1", "network.width=16", "network.heads=2",
        "network.context=12", f"data.path={tmp_path / 'p.jsonl'}", f"reward.path={own}:score", f"+allow_targets=[{own}]",
        "data.heldout_fraction=0.67", "data.test_fraction=0.5",
    ])  # fmt: skip

    def asked(env: Any) -> set[str]:
        prompt_EP, length_E = env.prompts()
        decode = components.policy.tokenizer.decode
        return {decode(row[:count].tolist()) for row, count in zip(prompt_EP, length_E.tolist(), strict=True)}

    assert asked(components.env) <= set(texts[:4])
    assert asked(components.evaluator.make_env()) == set(texts[4:8])
    assert asked(evaluator_of(components, "test").make_env()) == set(texts[8:])


def test_the_tokenizer_of_prompts_is_that_of_the_training_part(tmp_path: Path) -> None:
    """Bug: characters of held-out prompts in the vocabulary. Here c and d are in those alone."""
    (tmp_path / "p.txt").write_text("ab\nba\nac\nad\n")
    data = prompts(
        path=str(tmp_path / "p.txt"), name=None, config=None, split="train", revision=None, heldout_path=None,
        heldout_fraction=0.5, test_path=None, test_fraction=0.5, tokenizer="character", vocabulary_size=None, max_tokens=None,
        end_token=True, limit=None,
    )  # fmt: skip
    assert data.tokenizer.count_unknown("abcd") == 2


def test_parts_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: held-out rows in the buffer, training rows scored, or the text of a reward made of all parts."""
    for name, letter in (("train", "a"), ("held", "b"), ("test", "c")):
        rows = [{"prompt": f"{letter}{i}", "completion": letter * 2, "reward": i % 2} for i in range(6)]
        if name == "train":  # so that the letters are known
            rows += [{"prompt": f"abc{i}", "completion": "a", "reward": 1} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    components = built(tmp_path / "run", [
        "+experiment=logged", *QUIET, f"data.path={tmp_path / 'train.jsonl'}", f"data.heldout_path={tmp_path / 'held.jsonl'}",
        f"data.test_path={tmp_path / 'test.jsonl'}", "data.tokenizer=character", "network.layers=1", "network.width=16",
        "network.heads=2", "network.context=16", "trainer.offline_rounds=2",
    ])  # fmt: skip
    data, decode = components.task.data, components.policy.tokenizer.decode
    storage = components.buffer.storage
    first_C = storage.observation_CS[: int(storage.filled()), 0]
    assert decode(first_C.tolist()) == "a" * 12
    for evaluator, letter in ((components.evaluator, "b"), (evaluator_of(components, "test"), "c")):
        assert {decode(row.ids[:1].tolist()) for row in evaluator.rows} == {letter} and len(evaluator.rows) == 6
    end = decode([data.tokenizer.eos_id])
    assert set(decode(data.train_ids.tolist())) == {"a", *end}


@pytest.mark.parametrize(
    ("asked", "path", "parts", "chosen"),
    [
        (None, None, ("validation", "test"), "test"),
        ("validation", None, ("validation", "test"), "validation"),
        ("test", None, ("validation", "test"), "test"),
        (None, None, ("validation",), "validation"),
        (None, "other.txt", ("validation", "test"), "validation"),
    ],
)
def test_the_part_that_eval_scores(
    asked: str | None, path: str | None, parts: tuple[str, ...], chosen: str, tmp_path: Path
) -> None:
    """Bug: by default the part that chose the best checkpoint, or a look at the test part that is not counted."""
    task: Any = SimpleNamespace(part="validation", parts=parts)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    arguments: Any = SimpleNamespace(part=asked, data_path=path, run=str(tmp_path / "run"), output_dir=str(tmp_path))
    evaluate._choose_part(task, arguments)
    assert task.part == chosen
    assert [evaluate._look(task, arguments) for _ in range(2)] == ([1, 2] if chosen == "test" else [None, None])
