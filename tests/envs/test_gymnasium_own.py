"""An environment that a user wrote in a file of their own: it trains and resumes, who may run it, and its mistakes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dqnlm import cli
from dqnlm.config import composition, run_config, validation
from dqnlm.envs.gymnasium_env import Gymnasium
from dqnlm.errors import UserError
from dqnlm.types import DECISION, TERMINATED, TRUNCATED
from dqnlm.utils import permissions, user_code
from tests.helpers.paths import CONFIGS

pytest.importorskip("gymnasium")

SOURCE = """import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, size=4):
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.seen(), {}

    def step(self, action):
        self.place = max(0, self.place + (1 if action == 1 else -1))
        return self.seen(), -1.0, self.place == self.size, False, {}

    def seen(self):
        return np.array([self.place / self.size], np.float32)
"""
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_permissions() -> Iterator[None]:
    permissions.forget_permissions()
    yield
    permissions.forget_permissions()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `corridor.py` in the current folder: the class above, with replacements."""
    monkeypatch.chdir(tmp_path)

    def made(*changes: tuple[str, str]) -> Path:
        source = SOURCE
        for old, new in changes:
            assert old in source
            source = source.replace(old, new)
        path = tmp_path / "corridor.py"
        path.write_text(source)
        user_code._run.cache_clear()
        return path

    return made


def make(file: Path, **changes: Any) -> Gymnasium:
    """As shipped, permitted."""
    permissions.permit_targets(str(file))
    node = yaml.safe_load((CONFIGS / "env" / "gymnasium.yaml").read_text())
    node |= {"path": f"{file}:Corridor", "num_envs": 2, "max_episode_steps": 6} | changes
    del node["_target_"]
    return Gymnasium(torch.device("cpu"), 0, False, **node)


def test_it_plays(write: Write) -> None:
    """Bug: arguments that do not reach the class, an end or a limit that is lost, a state that is called savable.

    Two places to the right end the episode with size 2; only left never does, so that the limit of 3 steps truncates it.
    """
    env = make(write(), arguments={"size": 2}, max_episode_steps=3)
    assert env.reset().tolist() == [[0.0], [0.0]]
    steps = [env.step(torch.tensor([1, 0])) for _ in range(3)]
    assert [s.observation_E[:, 0].tolist() for s in steps] == [[0.5, 0.0], [1.0, 0.0], [0.5, 0.0]]
    assert steps[1].next_observation_E[:, 0].tolist() == [0.0, 0.0]
    assert steps[1].flag_E.tolist() == [DECISION | TERMINATED, DECISION]
    assert steps[2].flag_E.tolist() == [DECISION, DECISION | TRUNCATED]
    assert steps[0].reward_E.tolist() == [-1.0, -1.0]
    assert not env.spec.exact_resume and env.describe() == "Corridor" and env.references() == {}


def test_a_limit_in_the_class_own_spec(write: Write) -> None:
    """Bug: a class that brings a spec is asked for env.max_episode_steps all the same, or crashes as it is not registered."""
    spec = "    spec = gymnasium.envs.registration.EnvSpec('Mine-v0', max_episode_steps=9, reward_threshold=-5)\n"
    env = make(write(("    action_space", f"{spec}    action_space")), max_episode_steps=None)
    assert env.episode_steps == 9 and env.references() == {"solved at": -5.0}
    with pytest.raises(UserError, match=r"env.path=.*corridor.py:Corridor sets no limit.*set env.max_episode_steps=N"):
        make(write(), max_episode_steps=None)


def test_a_class_derived_from_a_savable_one_is_not_called_exact(write: Write) -> None:
    """Bug: what a user's class adds to CartPole's state is lost on resume, and nobody says so."""
    path = write(
        (SOURCE, "from gymnasium.envs.classic_control.cartpole import CartPoleEnv\n\nclass Corridor(CartPoleEnv): pass\n")
    )
    assert not make(path).spec.exact_resume
    path.write_text("from gymnasium.envs.classic_control.cartpole import CartPoleEnv as Corridor\n")
    assert not make(path).spec.exact_resume


STEP = "return self.seen(), -1.0, self.place == self.size, False, {}"
RESET = "return self.seen(), {}"
SPACE = "gymnasium.spaces.Discrete(2)"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("import numpy", "import numpyy", "line 2, in <module>: ModuleNotFoundError"),
        ("def seen(self):", "def seen(self:", "line 21: SyntaxError"),
        ("class Corridor", "class Corridors", "has no class Corridor\n  did you mean Corridors?"),
        ("class Corridor(gymnasium.Env)", "class Corridor", "write: class Corridor(gymnasium.Env)"),
        ("self.size = size", "self.size = 1 / 0", "line 10, in __init__: ZeroDivisionError: division by zero"),
        ("size=4", "*, length", "with env.arguments={}: FILE: TypeError: Corridor.__init__() missing 1 required"),
        (f"action_space = {SPACE}", "pass", "has no action_space\n  set self.action_space"),
        (SPACE, "2", "has 2 as action_space"),
        (SPACE, "gymnasium.spaces.Box(0.0, 1.0)", "only Discrete actions"),
        ("*, seed=None, options=None", "*, options=None", "unexpected keyword argument 'seed'"),
        ("self.place = 0", "self.place = self.start", "line 14, in reset: AttributeError"),
        (RESET, "return self.seen()", "from reset() where (observation, info) is meant\n  see FILE, line 12"),
        (RESET, "return self.place, {}", "returned 0 from reset() where an observation of the space Box(0.0, 1.0, (1,)"),
        (RESET, "return [[1], [1, 2]], {}", "from reset() where an observation"),
        (STEP, "return self.seen(), -1.0, True, {}", "where (observation, reward, terminated, truncated, info) is meant"),
        (STEP, "return self.seen(), None, True, False, {}", "returned None from step() where the reward, a finite number"),
        (STEP, "return self.seen(), np.nan, True, False, {}", "returned nan from step() where the reward"),
        (STEP, "return self.seen(), 0, {}, False, {}", "returned {} from step() where terminated, True or False"),
        (STEP, "return self.seen() * np.inf, 0, True, False, {}", "where an observation of the space Box"),
        (STEP, "return self.nothing", "line 19, in step: AttributeError"),
    ],
)  # fmt: skip
def test_mistakes(write: Write, old: str, new: str, words: str) -> None:
    """Bug: a traceback through the package for a mistake in the user's file, or a wrong answer that trains on."""
    path = write((old, new))
    with pytest.raises(UserError) as caught:
        env = make(path)
        env.reset()
        for _ in range(3):
            env.step(torch.tensor([1, 1]))
    assert words.replace("FILE", str(path)) in str(caught.value) and str(path) in str(caught.value)


def test_tokens_outside_the_space(write: Write) -> None:
    """Bug: a token that the network has no row for ends in an index error on the device."""
    changes = [("gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)", "gymnasium.spaces.Discrete(3, start=1)")]
    path = write(*changes, ("np.array([self.place / self.size], np.float32)", "self.place + 1"))
    env = make(path)
    assert env.reset().tolist() == [0, 0] and env.step(torch.tensor([1, 0])).observation_E.tolist() == [1, 0]
    env.step(torch.tensor([1, 0]))
    with pytest.raises(UserError, match=r"returned 4 from step\(\) where an observation of the space Discrete\(3, start=1\)"):
        env.step(torch.tensor([1, 0]))


def test_number_of_a_scalar_array_is_a_reward(write: Write) -> None:
    """Bug: a reward computed with NumPy is refused."""
    for spelling in ("np.float32(0.5)", "np.array(0.5)", "np.int64(1)"):
        env = make(write((STEP, f"return self.seen(), {spelling}, np.bool_(False), False, {{}}")))
        env.reset()
        assert env.step(torch.tensor([1, 1])).reward_E.tolist() == [1.0 if "int" in spelling else 0.5] * 2


TINY = [
    "+experiment=cartpole", "env.id=null", "env.path=corridor.py:Corridor", "env.max_episode_steps=20",
    "env.observation_scale=null", "env.reward_low=-1", "env.reward_high=0", "env.num_envs=4", "trainer.rollouts=8",
    "trainer.learning_starts=80", "checkpoint.every=4",
    "evaluation.every=8", "trainer.batch_size=4", "evaluation.episodes=2", "progress=false",
    "network.width=8", "network.hidden=8", "device=cpu", "threads=1", "logger=none",
]  # fmt: skip


def test_who_may_run_it(write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Typed to `train` it runs; from a run's folder only with the very file permitted.

    Bug: a run's folder from elsewhere executes what it names; a path that is relative to where training was started.
    """
    path, run = write(("import gymnasium\n", "import gymnasium\nopen('ran', 'a').close()\n")), tmp_path / "run"

    def dqnlm(*argv: str) -> tuple[int, str, bool]:
        permissions.forget_permissions()
        user_code._run.cache_clear()
        Path("ran").unlink(missing_ok=True)
        code = cli.main(list(argv))
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out + err, Path("ran").exists()

    code, said, ran = dqnlm("train", *TINY, f"hydra.run.dir={run}")
    assert code == 0 and ran and "env=gymnasium Corridor" in said, said
    assert "state cannot be saved: resuming starts its episodes anew" in said
    assert yaml.safe_load((run / "config.yaml").read_text())["env"]["path"] == f"{path}:Corridor"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = shutil.copytree(run, elsewhere / "run")
    os.chdir(elsewhere)  # the fixture goes back
    for argv, permission in [
        (["resume", str(moved), "trainer.rollouts=12"], [f"+allow_targets=[{path}]"]),
        (["eval", str(moved)], ["--allow-targets", str(path)]),
    ]:
        code, said, ran = dqnlm(*argv)
        assert code == 2 and not ran and f"env.path={path}:Corridor would run" in said and "allow_targets" in said
        code, said, ran = dqnlm(*argv, *permission)
        assert code == 0 and ran, said
    os.chdir(tmp_path)
    write(("self.place = max", "self.plays = max"), ("self.place + (1", "self.plays + (1"))
    code, said, _ = dqnlm("train", *TINY, f"hydra.run.dir={tmp_path / 'other'}")
    assert code == 2 and f"error: env.path={path}:Corridor: {path}, line 18, in step: AttributeError" in said


def test_runs_from_before_there_was_a_path(tmp_path: Path) -> None:
    """Bug: a run of an earlier version, which has env.id alone, cannot be resumed."""
    composed, choices = composition.compose(["+experiment=cartpole"])
    config = validation.validate(composed, choices, ["+experiment=cartpole"])
    older = config | {"env": {key: value for key, value in config["env"].items() if key != "path"}}
    run_config.save_run_config(older, tmp_path / "config.yaml")
    assert run_config.load_run_config(tmp_path) == config
