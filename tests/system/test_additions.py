"""The cost of an addition is one Python file and one YAML: each is trained, resumed, scored and reported as a user would."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.utils import permissions
from tests.docs import documents
from tests.helpers import runs as tools
from tests.helpers.slow import mostly_slow

Metrics = dict[str, Any]

SCALAR_HEAD = '''
from dqnlm.heads.base import Head


class Shifted(Head):
    """Q is the raw number and 7."""

    def value(self, raw_XAN):
        return raw_XAN.squeeze(-1).float() + 7

    def loss_taken(self, raw_BTAN, action_BT, target_BT):
        return (self.value(raw_BTAN).gather(-1, action_BT[..., None]).squeeze(-1) - target_BT).square()

    def loss_all(self, raw_BTAN, target_BTA):
        return (self.value(raw_BTAN) - target_BTA).square().sum(-1)
'''
DISTRIBUTIONAL_HEAD = '''
import torch

from dqnlm.heads.distributional import DistributionalHead, taken


class Coin(DistributionalHead):
    """The return is 5 or 9, each with a probability of its own."""

    num_parameters = 2

    def __init__(self, bounds, *, low_return: float, high_return: float):
        super().__init__(bounds)
        self.register_buffer("value_M", torch.tensor([low_return, high_return]))

    def atoms(self, raw_XN):
        p_XM = raw_XN.float().softmax(-1)
        return self.value_M.expand_as(p_XM), p_XM

    def loss_atoms(self, raw_BTAN, action_BT, z_BTM, p_BTM):
        low, high = self.value_M
        share_BT = (((z_BTM - low) / (high - low)).clamp(0, 1) * p_BTM).sum(-1)
        log_p_BTM = taken(raw_BTAN, action_BT).log_softmax(-1)
        return -(1 - share_BT) * log_p_BTM[..., 0] - share_BT * log_p_BTM[..., 1]
'''
BOOTSTRAP = '''
import torch

from dqnlm.objectives.bootstrap import Bootstrap


class Hopeful(Bootstrap):
    """Every state is worth the same."""

    def __init__(self, *, worth: float):
        self.worth = worth

    def value(self, online, target, legal):
        return torch.full_like(target.q_BSA[..., 0], self.worth)
'''
RETURNS = '''
from dqnlm.objectives.returns import Returns


class Taxed(Returns):
    """The reward of one decision less a tax; nothing follows."""

    is_affine = False
    bootstraps_inside = False
    lookahead = 1

    def __init__(self, *, tax: float):
        self.tax = tax

    def target(self, reward_BT, discount_BT, mask_BT, carry_BT, value_BS):
        return reward_BT - self.tax
'''
OBJECTIVE = '''
import torch

from dqnlm.objectives.base import LossOutput, Objective


class Level(Objective):
    """Mean square of Q over the actions, about a level."""

    def __init__(self, head, *, weight: float, level: float):
        super().__init__(weight)
        self.head, self.level = head, level

    def __call__(self, online, target, batch, reference=None):
        q_BTA = self.head.value(batch.at_decisions(online["q"]))
        loss_BT = (q_BTA - self.level).square().mean(-1)
        return LossOutput(loss_BT, {"level/wanted": torch.full_like(loss_BT, self.level)})
'''
REWARD = '''
import torch

from dqnlm.rewards.base import StatefulReward
from dqnlm.types import Bounds


class Favourite(StatefulReward):
    """Points for one token, whatever the text has."""

    knows_all_actions = True

    def __init__(self, num_actions, tokenizer, *, letter: str, points: float):
        super().__init__(num_actions)
        self.wanted, self.points = tokenizer.encode(letter).tolist()[0], points

    @property
    def bounds(self):
        return Bounds(0.0, self.points)

    def _start(self, reference_EH):
        return {"time_E": torch.zeros_like(reference_EH[:, 0])}

    def _advance(self, state, action_E):
        return {"time_E": state["time_E"] + 1}, (action_E == self.wanted).float() * self.points

    def all_actions(self, reference_BH):
        wanted_A = torch.arange(self.num_actions, device=reference_BH.device) == self.wanted
        return (wanted_A.float() * self.points).expand(*reference_BH.shape, self.num_actions)
'''


@dataclass(frozen=True)
class Addition:
    """One file of code and one of settings.

    Attributes:
        option: group and name of the YAML.
        settings: the YAML, without `_target_` and comments.
        target: class in the module, which is called like the option.
        code: the Python file.
        overrides: what is typed beside the choice of the option.
        holds: what the last figures of the run show if, and only if, the code ran.
    """

    option: str
    settings: str
    target: str
    code: str
    holds: Callable[[Metrics], bool]
    overrides: list[str] = field(default_factory=list)

    @property
    def module(self) -> str:
        return f"own_{self.option.rpartition('/')[2]}"

    @property
    def choice(self) -> str:
        group, name = self.option.split("/")
        return f"objective=[td,{name}]" if group == "objective" else f"{group}={name}"


# A reward is 0 or 1, gamma 0.5, and 7 of the 8 decisions of an episode have one after them; weights hardly move in six updates.
ADDITIONS = [
    Addition("head/shifted", "", "Shifted", SCALAR_HEAD, lambda last: 6 < last["q/taken_mean"] < 8),
    Addition(
        "head/coin", "low_return: 5.0\nhigh_return: 9.0", "Coin", DISTRIBUTIONAL_HEAD,
        # All targets, 1 + 7 / 2 at most, lie below 5: the loss is -log of the first probability, which begins near 1/2.
        lambda last: 6 < last["q/taken_mean"] < 8 and 0.5 < last["loss/td"] < 0.8,
    ),
    Addition(
        "bootstrap/hopeful", "worth: 40.0", "Hopeful", BOOTSTRAP, lambda last: 17.5 <= last["target/mean"] <= 18.5,
        ["head.loss=huber"],
    ),
    Addition(
        "returns/taxed", "tax: 3.0", "Taxed", RETURNS, lambda last: -3 <= last["target/mean"] <= -2, ["head.loss=huber"]
    ),
    Addition(
        "objective/level", "weight: 0.5\nlevel: 7.0", "Level", OBJECTIVE,
        lambda last: last["level/wanted"] == 7 and 36 < last["loss/level"] < 64, ["head.loss=huber"],
    ),
    Addition(
        "reward/favourite", "letter: h\npoints: 3.0", "Favourite", REWARD, lambda last: last["eval/return"] == 3 * 8,
        ["head.loss=huber", "feedback=all_actions", "gamma=0", "optimizer.lr=3e-2",
         "trainer.updates_per_rollout=8"],
    ),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works, with a text."""
    tools.write_text(tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def added(folder: Path, addition: Addition, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two files of an addition."""
    written(folder, f"{addition.module}.py", addition.code)
    group, name = addition.option.split("/")
    package = f"# @package objective.{name}\n" if group == "objective" else ""
    node = f"_target_: {addition.module}.{addition.target}\n{addition.settings}\n"
    written(folder, f"options/{addition.option}.yaml", f"{package}# {name}: a part of the user's own\n{node}")
    monkeypatch.delitem(sys.modules, addition.module, raising=False)


def typed(*words: str) -> int:
    """One command, as a process of its own: what an earlier one permitted is forgotten."""
    permissions.forget_permissions()
    return cli.main(list(words))


def run_through(run: Path, module: str, words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[Metrics, str]:
    """Trains 4 rollouts, resumes to 6, scores and reports.

    Returns:
        summary.json, in which `best` is what `dqnlm eval` finds too, and the text of the report.
    """
    permit = f"+allow_targets=[{module}]"
    code = typed("train", "--config-dir", "options", *words, permit, "trainer.rollouts=4", f"hydra.run.dir={run}")
    assert code == 0, capfd.readouterr().err
    assert typed("resume", str(run), "trainer.rollouts=6") == 2 and typed("eval", str(run)) == 2
    assert capfd.readouterr().err.count("is code outside dqnlm") == 2
    assert typed("resume", str(run), permit, "trainer.rollouts=6") == 0, capfd.readouterr().err
    capfd.readouterr()
    part = [] if module == "questions" else ["--part", "validation"]  # their data has no parts
    assert typed("eval", str(run), "--allow-targets", module, "--json", *part, "--device", "cpu") == 0
    scored = json.loads(capfd.readouterr().out)
    summary: Metrics = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["totals"]["rollouts"] == 6
    best = summary["best_metric"]
    assert scored[best] == pytest.approx(summary["best"][best], abs=1e-6) and scored["step"] == summary["best"]["step"]
    assert typed("report", str(run)) == 0, capfd.readouterr().err
    assert "Traceback" not in capfd.readouterr().err
    return summary, (run / "report.html").read_text()


def evaluations(run: Path, metric: str) -> list[float]:
    return [line[metric] for line in tools.lines(run / "metrics.jsonl") if metric in line]


@pytest.mark.parametrize("addition", mostly_slow(ADDITIONS, 2), ids=lambda addition: addition.option)
def test_a_part_is_one_file_and_one_option(
    addition: Addition, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: a part of the user's own cannot be named from outside the package, or is lost on resuming or scoring."""
    added(folder, addition, monkeypatch)
    changed = ["evaluation.best_metric=eval/return", "evaluation.every=2", "checkpoint.every=2"]
    words = tools.tiny(folder / "text.txt", addition.choice, *changed, *addition.overrides)
    words = [word for word in words if not word.startswith("trainer.rollouts=")]
    summary, page = run_through(folder / "run", addition.module, words, capfd)
    assert addition.holds(summary["last"]), summary["last"]
    returns = evaluations(folder / "run", "eval/return")
    assert len(returns) == 3 and summary["best"]["eval/return"] == max(returns)
    assert "Return of a greedy episode" in page


@pytest.mark.parametrize(
    ("additions", "overrides", "parts"),
    [
        ([ADDITIONS[1]], ["feedback=all_actions"], ["distribution of returns", "set feedback=taken"]),
        ([ADDITIONS[1], ADDITIONS[3]], [], ["returns=taxed mixes values", "(head=coin)", "use returns=n_step"]),
        ([ADDITIONS[1], ADDITIONS[2]], [], ["bootstrap=hopeful is not the value of one action", "(head=coin)"]),
    ],
    ids=["distribution and all actions", "distribution and mixed returns", "distribution and a value of no action"],
)
def test_refused_before_training(
    additions: list[Addition], overrides: list[str], parts: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Bug: the command ends in a traceback, or trains with targets that nobody derived."""
    for addition in additions:
        added(folder, addition, monkeypatch)
    permit = f"+allow_targets=[{','.join(addition.module for addition in additions)}]"
    words = tools.tiny(folder / "text.txt", *(addition.choice for addition in additions), permit, *overrides)
    assert typed("train", "--config-dir", "options", *words, "output_dir=made") == 2
    out, err = capfd.readouterr()
    assert err.startswith("error: ") and all(part in err for part in parts), err
    assert "Traceback" not in out + err and not list(folder.glob("made/**/metrics.jsonl"))


QUIZ = [
    "env=quiz", "network=window_mlp", "network.hidden=16", "network.width=8", "device=cpu", "threads=1", "logger=none",
    "progress=false", "evaluation.every=1", "checkpoint.every=2", "trainer.updates_per_rollout=40",
    "optimizer.lr=3e-2", "optimizer.warmup_updates=0", "evaluation.best_metric=eval/points_lost",
]  # fmt: skip


@pytest.fixture
def quiz(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that docs/extending.md shows for a new kind of data: one of code, one of settings, and the data."""
    names = {"questions.py", "my_configs/env/quiz.yaml", "questions.jsonl"}
    found = {b.file: b.text for b in documents.blocks(documents.read("docs/extending.md")) if b.file in names}
    assert found.keys() == names
    for name, text in found.items():
        written(folder, str(name).replace("my_configs", "options"), text)
    monkeypatch.delitem(sys.modules, "questions", raising=False)
    return folder


def test_a_new_kind_of_data_is_one_file_and_one_option(quiz: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: data, task, evaluator and metric of a user's own need a change of the package, or are taken for those of a text.

    Points that are lost are better fewer: the best is the least of the evaluations, and the first to be so low.
    """
    summary, page = run_through(quiz / "run", "questions", QUIZ, capfd)
    lost = evaluations(quiz / "run", "eval/points_lost")
    assert len(lost) == 6 and max(lost) > min(lost), lost
    assert summary["best_metric"] == "eval/points_lost" and summary["best"]["eval/points_lost"] == min(lost)
    assert summary["best"]["step"] == 40 * (lost.index(min(lost)) + 1)
    assert "Points lost on a question held out" in page
    manifest = json.loads((quiz / "run/manifest.json").read_text())
    assert manifest["data"]["name"] == "questions.jsonl" and manifest["metrics"][0]["higher_is_better"] is False


def test_a_run_is_not_scored_on_changed_data(quiz: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: the fingerprint of a user's data is not asked, so that figures of two data sets are compared."""
    words = [*QUIZ, "+allow_targets=[questions]", "trainer.rollouts=1", "hydra.run.dir=run"]
    assert typed("train", "--config-dir", "options", *words) == 0, capfd.readouterr().err
    with (quiz / "questions.jsonl").open("a") as stream:
        stream.write('{"features": [0.0, 0.0], "points": [0.0, 0.0, 0.5]}\n')
    assert typed("eval", "run", "--allow-targets", "questions") == 2
    assert "the data is not what this run was trained on" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('task = "questions"', 'task = "riddles"', ["env=quiz asks questions", "does not hold"]),
        ('task = "questions"', "", ["Questions has no task", "dqnlm.tasks.base.Data"]),
        ("self.source =", "self.origin =", ["Questions has no source", "dqnlm.tasks.base.Data"]),
        ('kind = "questions"', "", ["questions.QuestionsTask, has no kind yet"]),
        ("def describe_env", "def description", ["questions.QuestionsTask, has no describe_env yet"]),
        ("def return_bounds", "def bounds_of_return", ["env: questions.Quiz has no return_bounds yet"]),
        ('"points", False)', '"points")', ["PointsLost: none of its metrics has a direction"]),
        ('Evaluation({"eval/points_lost"', 'Evaluation({"eval/lost"', ["PointsLost declares eval/points_lost"]),
        ("task = QuestionsTask", 'task = "question"', ["has task = 'question', which is none of text, answers"]),
    ],
    ids=["data of another kind", "no task", "no source", "no kind", "no describe_env", "no return_bounds", "no direction",
         "a metric that is not given", "no such task"],
)  # fmt: skip
def test_mistakes_in_a_new_kind_of_data_are_said(
    old: str, new: str, parts: list[str], quiz: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: what the user's classes lack is found as an AttributeError, KeyError or StopIteration somewhere in the package."""
    source = (quiz / "questions.py").read_text()
    assert old in source
    (quiz / "questions.py").write_text(source.replace(old, new))
    words = [*QUIZ, "+allow_targets=[questions]", "trainer.rollouts=1", "hydra.run.dir=run"]
    assert typed("train", "--config-dir", "options", *words) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and all(part in err for part in parts), err
    assert "Traceback" not in err


def test_no_setting_of_the_option_is_taken_for_another_groups(quiz: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: an option that sets its own group and another (`@package _global_`) loses all its settings as inapplicable."""
    words = [*QUIZ, "+allow_targets=[questions]", "env.num_envs=3", "data.heldout=5", "trainer.rollouts=1"]
    assert typed("train", "--config-dir", "options", *words, "hydra.run.dir=run") == 0
    out, err = capfd.readouterr()
    assert "does not apply" not in err and "7 to learn from, 5 held out" in out and "3 questions a rollout" in out
