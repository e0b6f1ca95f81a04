"""A user's own function as a reward: what it is called with, what it may answer, its mistakes, and who may run it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dqnlm import cli
from dqnlm.errors import UserError
from dqnlm.rewards.base import Episodes
from dqnlm.rewards.function import FunctionReward
from dqnlm.utils import permissions, user_code
from tests.helpers import runs as tools
from tests.helpers.paths import CONFIGS

CONFIG = CONFIGS / "reward" / "function.yaml"
Write = Callable[[str], Path]


class Letters:
    """id 0 is a."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(97 + i) for i in ids)

    def decode_prompt(self, ids: list[int]) -> str:
        return self.decode(ids)


@pytest.fixture(autouse=True)
def no_permissions() -> Iterator[None]:
    permissions.forget_permissions()
    yield
    permissions.forget_permissions()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `my_rewards.py` in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(body: str) -> Path:
        path = tmp_path / "my_rewards.py"
        path.write_text(f"import numpy\nimport torch\n\n\ndef score(prompts, completions, references):\n    {body}\n")
        user_code._run.cache_clear()
        return path

    return make


SAID = Episodes(
    torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]), torch.tensor([[4, 5, 25], [6, 0, 0]]), torch.tensor([3, 1]),
    torch.tensor([[7], [8]]), torch.tensor([1, 0]),
)  # fmt: skip


def reward(file: Path, **changes: Any) -> FunctionReward:
    """As shipped, permitted; z stops."""
    permissions.permit_targets(str(file))
    node = yaml.safe_load(CONFIG.read_text()) | {"path": f"{file}:score"} | changes
    del node["_target_"]
    return FunctionReward(26, Letters(), 25, **node)


def test_what_the_function_sees_and_what_is_paid(write: Write) -> None:
    """Texts without padding and stop token; its number at the last decision, or one a token."""
    path = write("open('seen', 'w').write(repr((prompts, completions, references))); return [0.5, 1]")
    assert reward(path).judge(SAID).tolist() == [[0, 0, 0.5], [1, 0, 0]]
    assert Path("seen").read_text() == "(['bc', 'd'], ['ef', 'g'], ['h', ''])"
    path = write("return [[len(p) / 8 for _ in text] for p, text in zip(prompts, completions)]")
    assert reward(path, per_token=True, scale=2.0).judge(SAID).tolist() == [[0.5, 0.5, 0], [0.25, 0, 0]]
    path = write("return [len(text) / 4 for text in completions]")
    assert reward(path, increments=True).judge(SAID).tolist() == [[0.25, 0.25, 0], [0.25, 0, 0]]


@pytest.mark.parametrize(
    "body",
    [
        "return numpy.array([0.5, 1.0])", "return torch.tensor([0.5, 1.0])", "return (0.5, 1)",
        "return [numpy.float32(0.5), True]", "return [torch.tensor(0.5), 1]",
    ],
)  # fmt: skip
def test_arrays_and_tensors_will_do(write: Write, body: str) -> None:
    assert reward(write(body)).judge(SAID).tolist() == [[0, 0, 0.5], [1, 0, 0]]


@pytest.mark.parametrize(
    ("body", "per_token", "words"),
    [
        ("return 1.0", False, "returned 1.0 where a list of 2 is meant"),
        ("pass", False, "returned None where a list of 2"),
        ("return [1.0]", False, "returned 1 values for 2 completions"),
        ("return [1.0, 'good']", False, "returned 'good' for completion 2 where a number is meant"),
        ("return [[0.1, 0.2], [0.3]]", False, "set reward.per_token=true"),
        ("return [1.0, float('nan')]", False, "returned nan for completion 2; a reward must be a finite number"),
        ("return [1.0, 1e39]", False, "returned 1e+39 for completion 2; a reward must be a finite number (in 32 bits"),
        ("return [1.0, -(10**5000)]", False, "returned inf for completion 2; a reward must be a finite number (in 32 bits"),
        ("return [1.0, 3]", False, "returned 3.0 for completion 2, outside reward.low=0.0 to reward.high=1.0"),
        ("return [[0.1, 0.2, 0.3], [0.4]]", True, "returned 3 numbers for completion 1, which has 2 tokens"),
        ("return [0.1, 0.2]", True, "returned 0.1 for completion 1, which has 2 tokens"),
        ("return [[0.1, None], [0.4]]", True, "returned None for token 2 of completion 1 where a number is meant"),
        ("return [[0.1, 0.2], [float('inf')]]", True, "returned inf for token 1 of completion 2"),
        (
            "return list(map(lambda r: 1 / len(r), references))",
            False,
            "line 6, in <lambda>: ZeroDivisionError: division by zero",
        ),
        ("raise SystemError", False, "my_rewards.py, line 6, in score: SystemError"),
    ],
)
def test_wrong_answers(write: Write, body: str, per_token: bool, words: str) -> None:
    """One message each, which names the file; an error in it names the line of the user's file, also from a library's depth."""
    path = write(body)
    with pytest.raises(UserError) as caught:
        reward(path, per_token=per_token).judge(SAID)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_mistakes_of_the_file_itself(write: Write) -> None:
    """No such file, no such function (with the nearest), a syntax error and an error at import, with their lines."""
    path = write("return [1")
    for text, name, words in [
        (None, "score", r"my_rewards.py, line 6: SyntaxError"),
        ("import nothing_like_this\n", "score", "line 1, in <module>: ModuleNotFoundError"),
        ("def scores(a, b, c):\n    return [1 for _ in b]\n", "score", "no function score\n  did you mean scores?"),
    ]:
        if text is not None:
            path.write_text(text)
            user_code._run.cache_clear()
        with pytest.raises(UserError, match=words.replace("?", r"\?")):
            reward(path, path=f"{path}:{name}")
    with pytest.raises(UserError, match="there is no file"):
        reward(path.with_name("gone.py"))
    for spelling in ("my_rewards.score", "my_rewards.py", "my_rewards.py:", "my_rewards.py:a b"):
        with pytest.raises(UserError, match=r"it must be FILE\.py:FUNCTION"):
            reward(path, path=spelling)
    with pytest.raises(UserError, match="must be below"):
        reward(path, low=1.0)


def test_bounds(write: Write) -> None:
    """What the function promises, which the head is scaled by; null is no bound; one number a token sums up."""
    path = write("return [9.0, -9.0]")
    assert reward(path, low=-1.0).return_bounds(1.0, 5) == (-1.0, 1.0)
    assert reward(path, low=-1.0, per_token=True).return_bounds(1.0, 5) == (-5.0, 5.0)
    unbounded = reward(path, low=None, high=None)
    assert unbounded.bounds == (-float("inf"), float("inf"))
    assert unbounded.judge(SAID).sum(1).tolist() == [9.0, -9.0]
    assert reward(path, low=None, high=None, clip=2.0).bounds == (-2.0, 2.0)


def test_a_file_runs_once_until_it_changes(write: Write) -> None:
    """An evaluation builds its environment many times; a slow import must not run as often."""
    path = write("return [1.0, 1.0]")
    path.write_text(f"open('count', 'a').write('x')\n{path.read_text()}")
    for _ in range(3):
        reward(path)
    assert Path("count").read_text() == "x"


def test_who_may_run_it(write: Write, tmp_path: Path, capfd: Any) -> None:
    """Typed to `train` it runs; from a run's folder only with the very file permitted; generating never needs it.

    Bug: a run folder from elsewhere executes what it names.
    """
    path = write("open('ran', 'a').write('x'); return [c.count('e') / max(len(c), 1) for c in completions]")
    text = tools.write_text(tmp_path / "text.txt")
    run = tmp_path / "run"

    def dqnlm(*argv: str) -> tuple[int, str]:
        permissions.forget_permissions()
        Path("ran").unlink(missing_ok=True)
        code = cli.main(list(argv))
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, err

    trained = tools.tiny(
        text, "reward=function", "reward.path=my_rewards.py:score", "env.transition=free", "env.prompt_length=3",
        "trainer.rollouts=2", "evaluation.every=2", f"hydra.run.dir={run}",
    )  # fmt: skip
    code, message = dqnlm("train", *trained)
    assert code == 0 and Path("ran").is_file(), message
    assert yaml.safe_load((run / "config.yaml").read_text())["reward"]["path"] == f"{path}:score"
    whole = tmp_path / "elsewhere"  # a run is resumed from anywhere
    shutil.copytree(run, whole)
    for command in (["resume", str(whole), "trainer.rollouts=3"], ["eval", str(whole)]):
        code, message = dqnlm(*command)
        assert code == 2 and f"+allow_targets=[{path}]" in message and not Path("ran").exists()
        code, message = dqnlm(
            *command, *(["--allow-targets", "my_rewards"] if command[0] == "eval" else ["+allow_targets=[my_rewards]"])
        )
        assert code == 2 and not Path("ran").exists(), "the file is permitted, not its name"
    assert dqnlm("generate", str(whole), "--prompt", "tea", "--max-tokens", "3")[0] == 0 and not Path("ran").exists()
    assert dqnlm("eval", str(whole), "--allow-targets", "my_rewards.py")[0] == 0 and Path("ran").exists()
    assert (
        dqnlm("resume", str(whole), "trainer.rollouts=3", f"+allow_targets=[{path}]")[0] == 0 and Path("ran").exists()
    )
    write("return [completions[0][99]]")
    code, message = dqnlm("train", *trained[:-1], f"hydra.run.dir={tmp_path / 'other'}")
    assert code == 2 and f"{path}, line 6, in score: IndexError" in message


def test_columns_of_the_data_go_to_the_function(tmp_path: Path, write: Write) -> None:
    """Bug: a column of another prompt, or a function of TRL's form that is refused. By hand; prompts 1 and 0 are answered."""
    path = write("return [0.0, 0.0]")
    numbered = SAID._replace(prompt_index_B=torch.tensor([1, 0]))
    columns = {"answer": [0.25, 0.75], "other": ["a", "b"]}
    forms = [
        "def score(prompts, completions, references, answer):\n    return answer\n",
        "def score(p, c, r, *, answer):\n    return answer\n",
        "def score(completions, answer, **kwargs):\n    return answer if kwargs['other'] == ['b', 'a'] else None\n",
        "def score(completions, **kwargs):\n    return kwargs['answer'] if kwargs['prompts'] == ['bc', 'd'] else None\n",
    ]
    for form in forms:
        path.write_text(form)
        user_code._run.cache_clear()
        made = reward(path)
        made.use_columns(columns)
        assert made.judge(numbered).tolist() == [[0, 0, 0.75], [0.25, 0, 0]], form
    path.write_text(forms[0])
    user_code._run.cache_clear()
    with pytest.raises(UserError, match=r"takes answer, which is no column of the data .*prompt: other; data=prompts"):
        reward(path).use_columns({"other": ["a", "b"]})
    with pytest.raises(UserError, match=r"takes answer, which is no column"):
        reward(path).judge(SAID)
    made = reward(path, increments=True)
    made.use_columns(columns)
    with pytest.raises(UserError, match=r"reward\.increments"):
        made.judge(numbered)
