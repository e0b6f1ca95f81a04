"""Mistakes in a user's own classes, while a run is built, trains or is evaluated: one message with file and line, code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dqnlm import cli
from dqnlm.training.trainer import Trainer
from dqnlm.utils import permissions
from tests.helpers import runs as tools

Run = Callable[..., tuple[int, str]]

OWN = '''import sys

import torch

from dqnlm.objectives.bootstrap import Max
from dqnlm.objectives.returns import NStep
from dqnlm.rewards.base import StatefulReward
from dqnlm.types import Bounds

{top}


class Fresh(StatefulReward):
    def __init__(self, num_actions):
        super().__init__(num_actions)
        {init}

    @property
    def bounds(self):
        return Bounds(0.0, 1.0)

    def _start(self, reference_EH):
        return {{"steps": torch.zeros_like(reference_EH[:, 0])}}

    def _advance(self, state, action_E):
        reward_E = action_E.float() * 0
        {advance}
        return {{"steps": state["steps"] + 1}}, reward_E


class Later(NStep):
    def target(self, reward_BT, discount_BT, mask_BT, carry_BT, value_BS):
        target_BT = super().target(reward_BT, discount_BT, mask_BT, carry_BT, value_BS)
        {target}
        return target_BT


class Best(Max):
    def value(self, online, target, legal_BSA=None):
        value_BS = super().value(online, target, legal_BSA)
        {value}
        return value_BS
'''
LINES = ("top", "init", "advance", "target", "value")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`run("train", advance="raise ValueError")` writes the module with these lines, and gives code and stderr."""
    tools.write_text(tmp_path / "text.txt")
    for group, lines in {
        "reward/fresh": "_target_: own_mistakes.Fresh\n",
        "returns/later": "_target_: own_mistakes.Later\nn: 2  # decisions\n",
        "bootstrap/best": "_target_: own_mistakes.Best\n",
    }.items():
        path = tmp_path / f"options/{group}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(f"# a part with a mistake in it\n{lines}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    permissions.forget_permissions()

    def run(command: str, *more: str, **lines: str) -> tuple[int, str]:
        sys.modules.pop("own_mistakes", None)
        Path("own_mistakes.py").write_text(OWN.format(**{name: lines.get(name, "pass") for name in LINES}))
        words = {
            "train": [
                "--config-dir", "options", *tools.tiny(tmp_path / "text.txt", "trainer.rollouts=2", "reward=fresh"),
                "returns=later", "bootstrap=best", "env.transition=free", "evaluation.best_metric=eval/return",
                "hydra.run.dir=run", "+allow_targets=[own_mistakes]", "trainer.preflight=false",
            ],
            "resume": ["run", "+allow_targets=[own_mistakes]"],
            "eval": ["run", "--allow-targets", "own_mistakes"],
        }[command]  # fmt: skip
        code = cli.main([command, *words, *more])
        return code, capfd.readouterr().err

    yield run
    sys.modules.pop("own_mistakes", None)
    permissions.forget_permissions()


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(Path("own_mistakes.py").read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("where", "code", "function", "said"),
    [
        ("top", "1 / 0", "<module>", "ZeroDivisionError: division by zero"),
        ("top", "sys.exit('no')", "<module>", "it ends the program (sys.exit('no'))"),
        ("init", "raise KeyError('colour')", "__init__", "KeyError: 'colour'"),
        ("init", "sys.exit()", "__init__", "it ends the program"),
        ("advance", "torch.zeros(3) + torch.zeros(4)", "_advance", "RuntimeError: The size of tensor a (3)"),
        ("advance", "sys.exit(0)", "_advance", "it ends the program (sys.exit(0))"),
        ("target", "raise LookupError", "target", "LookupError"),
        ("target", "open('/nowhere/at/all')", "target", "FileNotFoundError"),
        ("value", "assert value_BS is None", "value", "AssertionError"),
    ],
)
def test_an_error_is_one_message(run: Run, where: str, code: str, function: str, said: str) -> None:
    """Bug: a traceback through the package and Hydra, or, with sys.exit, the end of the program without a word and code 0."""
    ended, err = run("train", **{where: code})
    assert ended == 2 and "Traceback" not in err, err
    assert f"own_mistakes.py, line {line_of(code)}, in {function}: " in err and said in err and f"\n  {code}\n" in err
    assert "HYDRA_FULL_ERROR=1" in err


def test_a_file_that_is_no_python(run: Run) -> None:
    """Bug: a traceback of the import system for a slip of the pen."""
    code, err = run("train", top="x = = 1")
    assert code == 2 and "Traceback" not in err
    assert f"own_mistakes.py, line {line_of('x = = 1')}: SyntaxError" in err and "bootstrap._target_" in err


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("advance", "reward_E = torch.zeros(3)", ": reward_E of _advance has the shape (3,), where (4,)"),
        ("advance", "reward_E = action_E == 1", "reward_E of _advance has the type torch.bool, where a floating-point type"),
        ("advance", "return reward_E", "_advance returned tensor([0., 0., 0., 0.]), where (state, reward_E) is meant"),
        ("advance", "reward_E = reward_E / 0", "became nan after"),
        ("target", "target_BT = [1.0, 2.0]", "target_BT (rows, transitions) of target is [1.0, 2.0], where a tensor of"),
        ("target", "target_BT = target_BT.mean(0)", ": target_BT (rows, transitions) of target has the shape (8,), where (4, 8)"),
        ("value", "value_BS = value_BS[:, :1]", ": value_BS (rows, observations) of value has the shape (4, 1), where (4, 8)"),
    ],
)
def test_an_answer_of_another_shape(run: Run, where: str, code: str, said: str) -> None:
    """Bug: it is broadcast, and the run learns something else without a word; or it fails far from its cause."""
    ended, err = run("train", **{where: code})
    assert ended == 2 and "Traceback" not in err and said in err, err


def test_the_whole_traceback_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: who writes such code cannot see the way to the error."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, err = run("train", advance="raise ValueError('seen')")
    assert code == 2 and "Traceback" in err and "rollout" in err and err.count("\nerror: ") == 1


def test_resume_and_evaluation(run: Run) -> None:
    """Bug: only `train` explains; what was saved before the error is lost."""
    assert run("train")[0] == 0
    code, err = run("resume", "trainer.rollouts=4", target="raise LookupError('resumed')")
    assert code == 2 and "Traceback" not in err and "in target: LookupError: resumed" in err
    assert run("resume", "trainer.rollouts=4")[0] == 0
    code, err = run("eval", advance="raise LookupError('scored')")
    assert code == 2 and "Traceback" not in err and "in _advance: LookupError: scored" in err


def test_an_error_of_the_package_is_not_blamed_on_the_user(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: every crash of a run with own code counts as the user's mistake, and its traceback is lost."""

    def crash(self: Trainer) -> None:
        raise RuntimeError("deep inside")

    monkeypatch.setattr(Trainer, "_loop", crash)
    code, err = run("train")
    assert code == 1 and "Traceback" in err and "deep inside" in err and "your own code" in err and "own_mistakes" in err


def test_it_says_how_to_go_on(run: Run) -> None:
    """Bug: the way back to a run that an error ended is not told, or lacks the permission that it needs."""
    assert run("train", advance="if int(state['steps'].max()) == 7 and not reward_E.any(): pass")[0] == 0
    code, err = run("resume", "trainer.rollouts=4", target="raise LookupError('once')")
    assert code == 2 and "saved up to step-" in err and "dqnlm resume" in err and "'+allow_targets=[own_mistakes]'" in err


def test_targets_alone_are_no_affine_returns(run: Run) -> None:
    """Bug: a class with `target` alone passes for one that distributional heads can learn, and fails at its first update."""
    top = (
        "from dqnlm.objectives.returns import Returns\n\n\nclass Plain(Returns):\n    lookahead = 1\n\n"
        "    def target(self, reward_BT, discount_BT, mask_BT, carry_BT, value_BS):\n        return reward_BT\n"
    )
    Path("options/returns/plain.yaml").write_text("# plain: x\n_target_: own_mistakes.Plain\n")
    code, err = run("train", "returns=plain", "head=categorical", top=top)
    assert code == 2 and "returns=plain" in err and "head=categorical" in err and "Traceback" not in err, err
    assert run("train", "returns=plain", top=top)[0] == 0


def test_all_missing_permissions_are_named_at_once(run: Run) -> None:
    """Bug: one module is named after the other, and following the advice takes back what was permitted before."""
    Path("other_mistakes.py").write_text("from dqnlm.objectives.returns import NStep as Mine\n")
    Path("third.py").write_text("from dqnlm.objectives.bootstrap import Max\n")
    Path("options/returns/mine.yaml").write_text("# mine: x\n_target_: other_mistakes.Mine\nn: 1  # decisions\n")
    Path("options/bootstrap/third.yaml").write_text("# third: x\n_target_: third.Max\n")
    code, err = run("train", "returns=mine", "bootstrap=third")
    named = err.split("+allow_targets=[")[1].split("]")[0].split(",")
    assert code == 2 and sorted(named) == ["other_mistakes", "own_mistakes", "third"]


def test_a_file_that_changed_is_told_on_resume(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: the code of a reward was changed in between, and the resumed run passes for one that never stopped."""
    assert run("train")[0] == 0
    sys.modules.pop("own_mistakes", None)
    permissions.forget_permissions()
    again = ["resume", "run", "+allow_targets=[own_mistakes]"]
    assert cli.main([*again, "trainer.rollouts=3"]) == 0
    assert "own_mistakes has changed" not in "".join(capfd.readouterr())
    Path("own_mistakes.py").write_text(Path("own_mistakes.py").read_text() + "\n# another\n")
    sys.modules.pop("own_mistakes", None)
    assert cli.main([*again, "trainer.rollouts=4"]) == 0
    assert "own_mistakes has changed since the run began" in " ".join("".join(capfd.readouterr()).split())


def test_a_setting_before_the_star(run: Run) -> None:
    """Bug: advice to drop the setting, where a star is missing in the constructor."""
    top = "class Starless(NStep):\n    def __init__(self, n: int):\n        super().__init__(n=n)\n"
    Path("options/returns/starless.yaml").write_text("# starless: x\n_target_: own_mistakes.Starless\nn: 2  # decisions\n")
    code, err = run("train", "returns=starless", top=top)
    assert code == 2 and "put it after the star" in err and "own_mistakes.py, line" in err and "~" not in err


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ("from dqnlm.objectives.returns import Returns\nclass A(Returns):\n    is_affine = True",
         "A declares is_affine = True and has no affine"),
        ("from dqnlm.objectives.bootstrap import Bootstrap\nclass B(Bootstrap):\n    names_action = True",
         "has no action of its own"),
        ("class C(StatefulReward):\n    knows_all_actions = True", "has no all_actions of its own"),
        ("class D(StatefulReward):\n    sequence_level = True", "has no judge of its own"),
    ],
    ids=["affine", "action", "all_actions", "judge"],
)  # fmt: skip
def test_a_flag_without_its_method(run: Run, top: str, said: str) -> None:
    """Bug: a part says that it can do what it has no method for, and the run fails at its first update, far from the class."""
    code, err = run("train", top=top)
    assert code == 2 and "Traceback" not in err and said in err and "own_mistakes.py, line" in err, err
