"""Figures of a text against plain loops: what counts as a miss, which half fits the temperature, and what they are beside."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dqnlm.agent.policy import Policy
from dqnlm.builder import launch
from dqnlm.data.tokenizers.base import CharacterTokenizer
from dqnlm.evaluation.text import TextEvaluator, score_text
from dqnlm.heads.scalar import Scalar
from dqnlm.runs.directory import RunDirectory
from dqnlm.types import Bounds
from tests.helpers import runs as tools
from tests.helpers.tasks import task_spec

UNKNOWN = 3  # the letters a b c are 0 1 2


class Bigrams:
    """A network whose Q after a token is a row of a table."""

    context, left_context = 5, 0

    def __init__(self, q_AA: Tensor) -> None:
        self.q_AA = q_AA

    def __call__(self, observation_BS: Tensor, first: int) -> dict[str, Tensor]:
        return {"q": self.q_AA[observation_BS[:, first:]][..., None]}


def test_figures_of_a_text_by_a_loop() -> None:
    """Bug: unknown tokens left out of the accuracy, a half scored at its own temperature, 1 / T reported as T."""
    torch.manual_seed(0)
    table, head = torch.randn(4, 4) * 2, Scalar(Bounds(-math.inf, math.inf), False, loss="squared", initial_return=None)
    network: Any = Bigrams(table)
    policy = Policy(
        network, head, CharacterTokenizer("abc"), torch.tensor([True, True, True, False]), "boltzmann", 1.0, spec=task_spec(4)
    )
    likely = table[:, :3].argmax(1)[torch.randint(3, (20,))]
    ids = torch.cat([torch.randint(3, (60,)), likely, torch.tensor([UNKNOWN, 0, UNKNOWN])])
    figures = score_text(policy, ids.to(torch.uint8))
    pairs = [(int(a), int(b)) for a, b in itertools.pairwise(ids)]
    known = [pair for pair in pairs if pair[1] != UNKNOWN]
    assert figures["eval/accuracy"] == pytest.approx(sum(int(table[a, :3].argmax()) == b for a, b in pairs) / len(pairs))
    assert figures["eval/unscored_share"] == pytest.approx(2 / len(pairs))

    def nats(part: list[tuple[int, int]], inverse: float) -> float:
        return -sum(float((table[a, :3] * inverse).log_softmax(0)[b]) for a, b in part)

    def best(part: list[tuple[int, int]]) -> float:
        return min((1e-3 * 1.01**k for k in range(1400)), key=lambda inverse: nats(part, inverse))

    first, second = known[: len(known) // 2], known[len(known) // 2 :]
    crossed = (nats(first, best(second)) + nats(second, best(first))) / len(known)
    assert figures["eval/nll_softmax"] == figures["eval/nll"] == pytest.approx(crossed, rel=2e-3)
    assert crossed > 1.01 * (nats(first, best(first)) + nats(second, best(second))) / len(known), "the halves differ"
    assert figures["eval/temperature"] == pytest.approx(1 / best(known), rel=0.02)


def evaluator_of(folder: Path, text: str, *overrides: str) -> tuple[TextEvaluator, Any]:
    (folder / "text.txt").write_text(text)
    checked, choices = tools.settings(tools.tiny(folder / "text.txt", *overrides))
    components = launch.build(checked, RunDirectory(folder), choices=choices).components
    assert isinstance(components.evaluator, TextEvaluator)
    return components.evaluator, components.task.data


def test_the_best_constant_policy_by_counting(tmp_path: Path) -> None:
    """Bug: the worst token, tokens of the training text, or rewards of the prompt. Oracle: counting in the windows played."""
    evaluator, data = evaluator_of(tmp_path, tools.write_text(tmp_path / "words.txt").read_text())
    env = evaluator.make_env()
    env.reset()
    after_EH = env.teacher_forced_observations()[:, env.prompt_length :]
    counts = [float((after_EH == token).float().sum(1).mean()) for token in range(data.tokenizer.vocabulary_size)]
    found, token = evaluator.best_constant()
    assert found == pytest.approx(max(counts)) and counts[token] == pytest.approx(max(counts)) and max(counts) > min(counts[:-1])


def test_a_constant_policy_that_stops_earns_nothing_more(tmp_path: Path) -> None:
    """Bug: rewards of the next episode are added to those of one that the stop token has ended."""
    words = tools.write_text(tmp_path / "words.txt").read_text()
    evaluator, data = evaluator_of(tmp_path, words, "env.transition=free", "env.stop_token=e", "evaluation.episodes=64")
    [stop] = data.tokenizer.encode_strict("e").tolist()
    assert 0 < evaluator._constant_return(stop) < 1, "at most the one decision that ends the episode"


def test_baselines_are_counted_on_the_training_text(tmp_path: Path) -> None:
    """Bug: n-grams of the text that they are scored on. The last tenth is a letter that is no more frequent before it."""
    evaluator, data = evaluator_of(tmp_path, "abc" * 1200 + "c" * 400)
    assert set(data.validation_ids.tolist()) == {2} and len(data.train_ids) == 3600
    accuracy, nats = evaluator.baselines["unigram"]
    assert accuracy == 0.0 and nats == pytest.approx(-math.log(1201 / 3604))
    accuracy, nats = evaluator.baselines["bigram"]  # a follows c, but for the end of the part
    assert accuracy == 0.0 and nats > 5.0
