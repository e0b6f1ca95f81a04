"""What the parts of a run are asked to do: each does right alone, and here it is checked that it is told the right thing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer
from tests.helpers import runs as tools

SMALL = [
    "device=cpu", "threads=1", "logger=none", "progress=false", "checkpoint.minutes=null", "evaluation.every=100",
    "evaluation.episodes=4", "trainer.batch_size=4", "trainer.rollouts=4", "env.num_envs=4",
]  # fmt: skip
TABULAR = [*SMALL, "env=tabular", "data=none", "reward=none", "gamma=0.9", "buffer.capacity=400", "env.horizon=4"]
CARTPOLE = [
    *SMALL, "env=gymnasium", "env.id=CartPole-v1", "data=none", "reward=none", "gamma=0.9", "buffer.capacity=4000",
    "head.loss=huber",
]  # fmt: skip
GRU = ["network=gru", "network.layers=1", "network.width=12", "network.context=16"]


def built(folder: Path, overrides: list[str]) -> Trainer:
    """A run, from settings as they are typed."""
    composed, choices = composition.compose(overrides)
    folder.mkdir(exist_ok=True)
    return launch.build(validation.validate(composed, choices, overrides), RunDirectory(folder), choices=choices)


def rollout(trainer: Trainer) -> None:
    assert trainer.phase.rollout is not None
    trainer.phase.rollout(trainer.phase.progress(trainer.rounds_done))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return tools.write_text(tmp_path / "text.txt")


def on_text(folder: Path, text: Path, *overrides: str) -> Trainer:
    checked, choices = tools.settings(tools.tiny(text, *overrides))
    folder.mkdir(exist_ok=True)
    return launch.build(checked, RunDirectory(folder), choices=choices)


@pytest.mark.parametrize("sample", ["rows", "transitions"])
@pytest.mark.parametrize("env", ["tabular", "gymnasium"])
def test_a_cut_row_is_valued_as_the_next_row_begins(tmp_path: Path, env: str, sample: str) -> None:
    """Bug: with memory in the network, the end of a cut row is valued in a context in which no decision is learned.

    Acting begins the next row with that observation alone. Where a window ends inside its row, the context goes on.
    """
    chosen = TABULAR if env == "tabular" else [*CARTPOLE, "env.row_transitions=4"]
    trainer = built(tmp_path, [*chosen, *GRU, f"buffer.sample={sample}", "algorithm=dqn"])
    for _ in range(3):
        rollout(trainer)
    learner = trainer.components.learner
    with torch.no_grad():
        for parameter in learner.target.network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    batch = trainer.components.buffer.sample(32)
    found = learner.forwards(batch.from_first_decision()).target
    network, cut = learner.target.network, 0
    assert found is not None
    for b, length in enumerate(batch.length_B.tolist()):
        if batch.discount_BT[b, length - 1] == 0:
            continue  # ended: its value is not read
        within = network(batch.observation_BS[b : b + 1, : length + 1])["q"][0, -1]
        alone = network(batch.observation_BS[b : b + 1, length : length + 1])["q"][0, -1]
        is_cut = batch.cut_B is None or bool(batch.cut_B[b])
        cut += is_cut
        torch.testing.assert_close(found["q"][b, length], alone if is_cut else within)
    assert cut and (sample == "rows" or cut < 32)


def test_a_gymnasium_row_of_a_whole_episode_is_never_cut(tmp_path: Path) -> None:
    """Bug: the last observation of an episode is valued as a first one, which it never is where rows are whole episodes."""
    pytest.importorskip("gymnasium")
    whole = built(tmp_path, [*CARTPOLE, "env.row_transitions=9", "env.max_episode_steps=9", *GRU])
    part = built(tmp_path / "part", [*CARTPOLE, "env.row_transitions=9", "env.max_episode_steps=10", *GRU])
    assert [t.components.learner.forwards.context_carry for t in (whole, part)] == [0, 1]


def test_an_observation_alone_needs_no_context(tmp_path: Path) -> None:
    """Bug: a second forward of each row's end where it gives the same numbers."""
    trainer = built(tmp_path, [*TABULAR, "network=table", "network.context=16"])
    assert trainer.components.task.spec.context_carry == 1 and trainer.components.learner.forwards.context_carry == 0


@pytest.mark.parametrize("finished", [0, 2, 7])
def test_exponential_epsilon_counts_episodes_that_have_finished(tmp_path: Path, finished: int) -> None:
    """Bug: every longest row counts as an episode, so that epsilon falls while long episodes have not ended once.

    Four environments: epsilon is factor^(finished / 4).
    """
    exploring = ["exploration.schedule=exponential", "exploration.fraction=null", "exploration.factor=0.9", "exploration.end=0.0"]
    trainer = built(tmp_path, [*TABULAR, "network=table", "network.context=16", *exploring, "exploration.start=1.0"])
    parts = trainer.components
    assert parts.actor is not None
    parts.actor.env_steps = 4000
    parts.actor.episodes.fill_(finished)
    rollout(trainer)
    assert parts.exploration.epsilon == pytest.approx(0.9 ** (finished / 4))


@pytest.mark.parametrize(
    ("overrides", "noted"),
    [
        (["algorithm=tbrm"], True),
        (["algorithm=path_consistency", "objective.path_consistency.n=3"], True),
        (["algorithm=path_consistency"], False),
        (["algorithm=tbrm", "env.transition=free"], False),
        (["algorithm=dqn"], False),
    ],
)
def test_residuals_of_paths_in_a_random_task_are_noted(tmp_path: Path, text: Path, overrides: list[str], noted: bool) -> None:
    """Bug: an objective that is right in deterministic tasks alone learns from a random one, and nobody is told."""
    notes = " ".join(on_text(tmp_path / "run", text, *overrides).components.notes)
    assert ("deterministic tasks alone" in notes) == noted
