"""A user's mistakes end in one message that says what to do, exit code 2, and nothing lost. See also test_cli.py."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.agent import exploration, target
from dqnlm.builder import launch
from dqnlm.builder.checks import built, learner, settings
from dqnlm.config import composition, validation
from dqnlm.envs import logged, random_walks
from dqnlm.errors import UserError
from dqnlm.evaluation.text import TextEvaluator
from dqnlm.heads import normalised
from dqnlm.objectives import trajectory
from dqnlm.partners import wordle
from dqnlm.runs.directory import RunDirectory, require_unused
from dqnlm.training.trainer import Trainer
from tests.golden import data_files
from tests.golden.runs import LASTING, PAIRS
from tests.golden.runs import LOGGED as LOGGED_FILE
from tests.helpers import runs as tools

Train = Callable[..., str]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return tools.write_text(tmp_path / "text.txt")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Train:
    """`refused(text, "env.horizon=9")` -> the message of `dqnlm train`, which must be all there is."""
    monkeypatch.chdir(tmp_path)

    def train(text: Path | None, *overrides: str) -> str:
        assert cli.main(["train", *tools.tiny(text, *overrides)]) == 2
        out, err = capfd.readouterr()
        assert err.startswith("error: ") and err.count("error:") == 1 and "Traceback" not in out + err
        assert not [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()], "a refused run leaves files"
        return err

    return train


def test_missing_file(refused: Train, text: Path) -> None:
    """Bug: a typing mistake in the path ends in a traceback, or in training on something else."""
    message = refused(text.with_name("txet.txt"))
    assert "txet.txt" in message and "text.txt" in message.replace("txet.txt", "")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["text.txt", "empty"]),
        (b"ab", ["too short", "heldout_fraction"]),
        (b"tea at ten\n", ["6 tokens", "env.prompt_length + env.horizon", "longer text or shorter episodes"]),
        (b"tea at ten \xff\xfe" * 100, ["UTF-8", "byte"]),
    ],
    ids=["empty", "shorter than its parts", "shorter than the window", "bytes"],
)
def test_unusable_text(refused: Train, text: Path, content: bytes, parts: list[str]) -> None:
    """Bug: a traceback of torch's random numbers, or a run on nothing."""
    text.write_bytes(content)
    message = refused(text, "data.heldout_fraction=0.4")
    assert all(part in message for part in parts), message


def test_heldout_part_shorter_than_an_episode(refused: Train, text: Path) -> None:
    """Bug: the run starts, and fails at its first evaluation."""
    text.write_text("tea at ten " * 7)
    assert "the validation part" in (message := refused(text)) and "env.horizon" in message


def test_horizon_longer_than_the_context(refused: Train, text: Path) -> None:
    """Bug: found in the middle of the run by a tensor of a wrong shape; the advice does not work either."""
    message = refused(text, "env.horizon=30", "env.prompt_length=4", "buffer.capacity=1000")
    assert "env.horizon=30" in message and "network.context=16" in message
    assert "set env.horizon=13 or network.context=33" in message
    assert tools.start(text.parent / "run", text, "env.horizon=13", "env.prompt_length=4", "trainer.rollouts=1")


def test_output_folder_that_cannot_be_written(refused: Train, text: Path) -> None:
    """Bug: a file where the folder should be, or a read-only one, ends in a traceback."""
    assert "output_dir" in refused(text, f"output_dir='{text}'")


FREE, TEACHER_REFERENCE = "env.transition=free", "exploration=reference"
MATCHING, PROBABILITY = "exploration=probability_matching", "policy.kind=probability"
# What does not go together, and a part of the message: which settings to change.
IMPOSSIBLE: list[tuple[list[str], str]] = [
    (["feedback=all_actions", "algorithm=behaviour_cloning"], "set objective=[td]"),
    (["feedback=all_actions", FREE], "Set env.transition=teacher or feedback=taken"),
    (["feedback=all_actions", "reward=similarity"], "reward=similarity is not"),
    (["algorithm=behaviour_cloning", FREE], "needs env.transition=teacher"),
    ([TEACHER_REFERENCE], "confounded"),
    (["algorithm=tbrm", TEACHER_REFERENCE], "confounded"),
    (["algorithm=path_consistency", TEACHER_REFERENCE], "confounded"),
    (["objective=[td,cross_entropy]"], "set exploration=reference"),
    (["objective=[td,large_margin]"], "set exploration=reference"),
    (["head=normalised", "projection=dueling", FREE], "needs env.transition=teacher"),
    (["head=normalised", "projection=dueling", "reward=similarity"], "use head=scalar"),
    (["head=normalised"], "set projection=dueling"),
    (["trainer.log_every=0"], "trainer.log_every must be at least 1"),
    (["checkpoint.every=0"], "checkpoint.every must be at least 1 or null"),
    (["checkpoint.minutes=0"], "checkpoint.minutes must be above 0"),
    (["trainer.rollout_steps=3"], "set trainer.rollout_steps=null or env.transition=free"),
    (["evaluation.best_metric=eval/acuracy"], "eval/accuracy"),
    (["evaluation.sample_temperature=0"], "evaluation.sample_temperature must be above 0"),
    (["trainer.demonstration_fraction=1.0"], "in [0, 1)"),
    (["trainer.demonstration_fraction=0.5"], "Set env.transition=free"),
    ([FREE, "trainer.demonstration_fraction=0.5", "buffer.sample=transitions"], "set buffer=uniform buffer.sample=rows"),
    (["pretraining.updates=5", "head.loss=logistic"], "head.loss=huber or squared"),
    (
        ["pretraining.updates=5", "head.loss=huber", "pretraining.batch_size=0"],
        "pretraining.batch_size must be at least 1",
    ),
    (
        ["pretraining.updates=5", "head.loss=huber", "pretraining.lr=0"],
        "pretraining.lr must be above 0",
    ),
    (["pretraining.init_scale=0.1"], "set pretraining.init_from=RUN"),
    (["env.guesses_per_position=2", "trainer.batch_size=5"], "set it to 6"),
    (["env.guesses_per_position=3", "trainer.batch_size=6"], "env.num_envs=4 is no multiple"),
    (["env.guesses_per_position=2", FREE], "needs env.transition=teacher"),
    (["env.guesses_per_position=2", "buffer.sample=transitions"], "buffer.sample=transitions"),
    (["env.horizon=30"], "network.context"),
    (["buffer.capacity=24"], "buffer.capacity to at least 32"),
    (["buffer.capacity=7"], "buffer.capacity to at least 8"),
    (["buffer.capacity=1e14"], "GiB"),
    (
        [FREE, "trainer.rollout_steps=3"],
        "trainer.learning_starts=0 is before the first episodes end; set it to at least 32",
    ),
    # A stop token takes the environments apart, so that the prompt is read step by step and counts.
    ([FREE, "env.stop_token=e", "env.prompt_length=3", "trainer.rollout_steps=9"], "set it to at least 40"),
    ([PROBABILITY], "set policy.kind=boltzmann"),
    ([MATCHING], "use exploration=boltzmann"),
    (
        [MATCHING, "gamma=0", "env.guesses_per_position=3", "env.num_envs=3", "trainer.batch_size=3", "env.allowed=ea"],
        "at most 2",
    ),
    (["env.stop_token=e"], "env.transition=free"),
    ([FREE, "env.stop_token=ea"], "must be one token"),
    ([FREE, "env.stop_token=Q"], "Q"),
    ([FREE, "env.stop_token=e", "env.allowed=at"], "not among env.allowed"),
    (["env.allowed=Q"], "Q"),
    (["gamma=1.5"], "gamma"),
    (["evaluation.betas=[1,2]"], "policy.kind=reweighted; set []"),
    (["trainer.rollout_steps=0"], "trainer.rollout_steps must be at least 1 or null"),
    (["gamma=1", "env.horizon_end=truncate"], "head.loss=logistic needs finite bounds"),
    (["network.tie_weights=true", "projection=dueling"], "projection=linear"),
    (["policy.kind=probable"], "boltzmann, probability"),
    (["device=cuda:99"], "device=cuda:99"),
    (["threads=0"], "threads must be at least 1"),
    (["seed=-1"], "seed must be at least 0"),
    (["head=categorical", "feedback=all_actions", "gamma=0"], "head=scalar or head=normalised"),
    (["feedback=all_actions", "gamma=0", "returns=n_step"], "set returns=one_step"),
    (["head=normalised", "projection=dueling", "objective.td.twin=true"], "objective.td.twin=true"),
    (["trainer.rollouts=0"], "trainer.rollouts must be at least 1"),
    (["trainer.rollouts=-1"], "trainer.rollouts must be at least 0"),
    (["trainer.offline_rounds=2"], "offline_rounds are updates on logged data"),
    (["seed=1e18"], "seed must be at least 0"),
    (["optimizer.eps=-1"], "optimizer.eps"),
    (["optimizer.weight_decay=-0.1"], "optimizer.weight_decay"),
    (["exploration.fraction=-1"], "exploration.fraction"),
    (["device=gpu0"], "device=gpu0"),
    (["reward=function"], "needs reward.path=FILE.py:FUNCTION"),
    (["reward=function", "reward.path=/nowhere/rewards.py:score"], "if you trust it, permit it"),
    (["reward=language_model", "reward.order=9"], "an n-gram has 1 to 6 tokens"),
    ([FREE, "reward=edit_distance", "reward.scale=0"], "reward.scale is 0"),
    (["learner.kl_temperature=2"], "leave the temperature at 1"),
    (["learner.kl_weight=1", "feedback=all_actions"], "Set objective=[td], or the weight to 0"),
    (["learner.kl_weight=1"], "pretraining.updates or pretraining.init_from=RUN"),
    (["learner.kl_weight=1", "pretraining.init_from=x"], "head.loss=huber or squared"),
    (["env.guesses_per_position=2", "learner.micro_batch_size=3"], "set it to a multiple"),
    (["learner.micro_batch_size=0"], "learner.micro_batch_size must be at least 1"),
    (["learner.kl_weight=-1"], "learner.kl_weight must be at least 0"),
]

# The same on logged walks, where there is no text.
LOGGED = ["+experiment=random_walks", "logger=none", "device=cpu", "threads=1", "progress=false"]
IMPOSSIBLE_ON_LOGGED_DATA: list[tuple[list[str], str]] = [
    (["algorithm=c51", "returns=lambda"], "use returns=n_step"),
    (["algorithm=qr_dqn", "bootstrap=munchausen"], "use bootstrap=double or max"),
    (["algorithm=soft_q", "head.loss=logistic"], "set head=scalar with head.loss=huber"),
    (["algorithm=double_dqn", "bootstrap=value"], "set objective=[td,expectile_value]"),
    (["algorithm=tbrm", "gamma=0.9"], "gamma=1"),
    (["algorithm=tbrm", "buffer.sample=transitions"], "whole episodes"),
    (["algorithm=ilql", "objective.cross_entropy.output=q"], "objective.cross_entropy.output=policy"),
    (["algorithm=ilql", "policy.beta=null"], "needs policy.beta"),
    (["policy.beta=1.0"], "set policy.beta=null"),
    (["algorithm=ilql", "learner.kl_weight=1", "pretraining.init_from=x"], "policy.kind=boltzmann"),
    (["learner.burn_in=2"], "which only network=gru has"),
    (["network=gru", "~network.window", "~network.hidden", "network.context=9", "learner.burn_in=9"], "leaves nothing"),
    (["learner.burn_in=2", "buffer.sample=transitions"], "set it to 0"),
    (["data.graph_seed=7"], "another graph"),
    (["data.nodes=30"], "data.nodes=30 logs walks of another graph than env.nodes=21"),
    (["data.max_nodes=8"], "data.max_nodes=8 logs walks of another graph"),
    (["data.out_degree=2"], "data.out_degree=2 logs walks of another graph than env.out_degree=None"),
    (["env=dialogue", "data=wordle", "data.words=bundled", "data.games=20"], "set both alike"),
    (["pretraining.updates=3"], "needs a task with answers of its own"),
    (["target.heads_only=true", "learner.compile=true"], "learner.compile=false"),
    (["algorithm=c51", "data.reward_scaling=to_unit_range"], "data.reward_scaling=none"),
    (["algorithm=path_consistency", "head=categorical"], "head=scalar with head.loss=huber"),
    (["data=none"], "set data=trajectories data.path=FILE"),
    (["data=bundled"], "set data=none"),
    (["trainer.offline_rounds=0", "trainer.rollouts=2"], "trainer.offline_rounds"),
    (["evaluation.best_metric=eval/accuracy"], "is no metric that can choose the best policy"),
    (["policy.kind=probability"], "set policy.kind=boltzmann"),
    (["algorithm=ilql", "objective.expectile_value.expectile=1.5"], "between 0 and 1"),
    (["algorithm=behaviour_cloning", "buffer=prioritized"], "buffer=uniform"),
    (["network=transformer", "network.context=5", "~network.window", "~network.hidden"], "set network.context=9"),
    (["algorithm=behaviour_cloning", "trainer.rollouts=2"], "data=trajectories trainer.rollouts=0"),
]

# The same on prompts with answers, and on a log.
ON_PAIRS = [*PAIRS, "objective.trajectory.baseline=group"]
ON_LOG = ["+experiment=logged", *LOGGED_FILE, *LASTING]
ON_TWO = ["+experiment=logged", "data.path=two.jsonl", "data.rewards=[reward_a,reward_b]", "data.test_fraction=0"]
IMPOSSIBLE_ON_FILES: list[tuple[list[str], str]] = [
    ([*ON_PAIRS, "env.samples_per_prompt=1"], "env.samples_per_prompt=4 or so"),
    ([*ON_PAIRS, "trainer.demonstration_fraction=0.5"], "set trainer.demonstration_fraction=0, or baseline=value"),
    ([*ON_PAIRS, "buffer=uniform"], "set buffer=rollout and trainer.batch_size=8"),
    ([*ON_PAIRS, "trainer.batch_size=4"], "set buffer=rollout and trainer.batch_size=8"),
    ([*ON_LOG, "trainer.rollouts=2"], "set trainer.rollouts=0"),
    ([*ON_LOG, "trainer.offline_rounds=0", "pretraining.updates=1"], "set trainer.rollouts=0"),
    ([*ON_TWO, "learner.kl_weight=1", "pretraining.init_from=x"], "learner.kl_weight adds log-probabilities to one reward"),
    ([*ON_TWO, "algorithm=soft_q"], "use bootstrap=value, double or max"),
    (
        [*ON_LOG, "policy.kind=probability", "policy.beta=null", "evaluation.betas=[]"],
        "set policy.kind=boltzmann or reweighted",
    ),
]
# Refusals stand here; a part's own are in its `check` (and in functions below it that only `check` calls).
WITH_REFUSALS = [
    settings, learner, built, normalised, exploration, trajectory, target, logged, random_walks, wordle,
]  # fmt: skip
OF_PARTS = ("check", "_check_siblings")


def refusals(module: ModuleType) -> list[ast.Raise]:
    """Of a module of `builder.checks` all, of a part's module those of its `check`."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    whole = module in (settings, learner, built)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and (whole or n.name in OF_PARTS)]
    return [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Raise)]


def test_impossible_combinations(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a combination that is trained on in vain, crashes, or is refused without what to set; a refusal without a test."""
    raised: dict[str, set[int]] = {str(module.__file__): set() for module in WITH_REFUSALS}

    def refused(run: Callable[[], Any], overrides: list[str], part: str) -> None:
        with pytest.raises(UserError) as caught:
            run()
        assert part in str(caught.value), (overrides, str(caught.value))
        for entry in caught.traceback:
            raised.get(str(entry.path), set()).add(entry.lineno + 1)

    for number, (overrides, part) in enumerate(IMPOSSIBLE):
        refused(lambda n=number, o=overrides: tools.start(tmp_path / str(n), text, *o), overrides, part)
    for overrides, part in IMPOSSIBLE_ON_LOGGED_DATA:
        refused(lambda o=overrides: build_logged(tmp_path / "logged", o), overrides, part)
    data_files.write(tmp_path, ("pairs", "log.jsonl"))
    rows = [{"prompt": f"{n} a", "completion": "bc", "reward_a": n % 2, "reward_b": n % 3} for n in range(20)]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for overrides, part in IMPOSSIBLE_ON_FILES:
        typed = [word.replace("path=", f"path={tmp_path}/") for word in overrides]
        refused(lambda t=typed: build(tmp_path / "files", t), overrides, part)
    with monkeypatch.context() as patch:  # as an evaluator of a user's own may be
        patch.setattr(TextEvaluator, "best_candidates", lambda self: {})
        refused(lambda: tools.start(tmp_path / "none", text), [], "none of its metrics has a direction")
    for module in WITH_REFUSALS:
        name = str(module.__file__)
        missed = [
            n.lineno
            for n in refusals(module)
            if not raised[name] & set(range(n.lineno, (n.end_lineno or n.lineno) + 1))
        ]
        assert not missed, f"{name}: no case here reaches the refusals at lines {missed}"


def build_logged(folder: Path, overrides: list[str]) -> None:
    build(folder, [*LOGGED, *overrides])


def build(folder: Path, typed: list[str]) -> Trainer:
    composed, choices = composition.compose(typed)
    folder.mkdir(exist_ok=True)
    return launch.build(validation.validate(composed, choices, typed), RunDirectory(folder), choices=choices)[0]


def test_allowed_combinations_next_to_the_refused_ones(tmp_path: Path, text: Path) -> None:
    """Bug: a refusal that goes too far."""
    allowed: list[list[Any]] = [
        ["feedback=all_actions", "gamma=0", PROBABILITY],
        ["env.guesses_per_position=2", MATCHING, "gamma=0"],
        [FREE, "env.stop_token=e", "env.prompt_length=3"],
        [FREE, "env.stop_token=e", "env.prompt_length=3", "trainer.rollout_steps=4", "trainer.learning_starts=40"],
        ["gamma=1", "env.horizon_end=truncate", "head.loss=huber"],
        ["network=gru", "env.horizon=30", "buffer.capacity=1000"],
        [FREE, "env.allowed=tea", "buffer.capacity=32"],
    ]
    for number, overrides in enumerate(allowed):
        found = tools.start(tmp_path / str(number), text, "trainer.rollouts=2", *overrides)
        assert found["status"] == "finished", overrides


def test_a_refused_run_leaves_its_folder_free(tmp_path: Path) -> None:
    """Bug: the corrected command is told that the folder holds a run."""
    text = tools.write_text(tmp_path / "text.txt")
    with pytest.raises(UserError):
        tools.start(tmp_path / "run", text, "env.horizon=9999")
    assert not RunDirectory(tmp_path / "run").is_run
    require_unused(tmp_path / "run")
