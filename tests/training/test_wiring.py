"""What the parts of a run are asked to do: each does right alone, and here it is checked that it is told the right thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.networks.noisy import NoisyLinear, resample_noise, set_noise
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer
from dqnlm.utils import streams
from tests.golden import data_files
from tests.golden.runs import PAIRS
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


def noisy_layers(network: torch.nn.Module) -> list[NoisyLinear]:
    return [module for module in network.modules() if isinstance(module, NoisyLinear)]


NOISY = ["algorithm=noisy_dqn", "exploration=greedy", "projection.sigma=3.0", "target=hard", "target.period=100"]


def test_a_noisy_network_acts_and_learns_with_new_noise(tmp_path: Path, text: Path) -> None:
    """Bug: it acts by its mean weights, so that it never explores; or the target has no noise, or the same."""
    trainer = on_text(tmp_path / "run", text, *NOISY)
    parts, played = trainer.components, []
    network, target = parts.learner.network, parts.learner.target.network
    network.register_forward_hook(lambda module, given, output: played.append(output["q"].detach().clone()))
    window_ES = parts.task.env.teacher_forced_observations()
    parts.task.env.teacher_forced_observations = lambda: window_ES  # the same text each time
    for _ in range(2):
        rollout(trainer)
        assert all(layer.active for layer in noisy_layers(network))
    assert not torch.equal(*played), "each rollout has noise of its own"
    before = [layer.noise_in for layer in (*noisy_layers(network), *noisy_layers(target))]
    for _ in range(5):  # until a row is there for every place in the batch
        rollout(trainer)
    set_noise(network, False)  # as an evaluation leaves it
    parts.learner.update(trainer.phase.sampler.sample())
    layers = [*noisy_layers(network), *noisy_layers(target)]
    assert len(layers) == 2 and all(layer.active for layer in layers)
    assert not torch.equal(layers[0].noise_in, layers[1].noise_in), "the target has noise of its own"
    assert all(not torch.equal(layer.noise_in, old) for layer, old in zip(layers, before, strict=True))


TRANSFORMER = ["network.layers=1", "network.width=16", "network.heads=2"]
LOG = ["+experiment=logged", "data.path=log.jsonl", *SMALL[:-2], "trainer.offline_rounds=2", *TRANSFORMER]


@pytest.mark.parametrize("kind", ["text", "log", "environment"])
@pytest.mark.parametrize("chance", ["noise", "dropout"])
def test_evaluations_leave_nothing_to_chance(
    tmp_path: Path, text: Path, kind: str, chance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: an evaluation that plays, scores or predicts with noise or dropout."""
    monkeypatch.chdir(tmp_path)
    noisy = ["projection=noisy", "projection.sigma=3.0"] if chance == "noise" else ["network.dropout=0.5"]
    if kind == "text":
        trainer = on_text(tmp_path / "run", text, *noisy)
    elif kind == "log":
        data_files.write(tmp_path, ("log.jsonl",))
        trainer = built(tmp_path / "run", [*LOG, *noisy])
    else:
        trainer = built(tmp_path / "run", [*TABULAR, *TRANSFORMER, *noisy])
    parts = trainer.components
    with torch.no_grad():
        for parameter in parts.policy.network.projections.parameters():
            torch.nn.init.normal_(parameter)
    found = []
    for turn in range(3):
        set_noise(parts.policy.network, True)
        resample_noise(parts.policy.network)
        parts.policy.network.train()
        if turn == 2:  # and the figures are those of the mean weights
            for name, parameter in parts.policy.network.named_parameters():
                if name.endswith("sigma"):
                    parameter.data.zero_()
        found.append(parts.evaluator.evaluate(parts.policy).metrics)
    assert found[0] == pytest.approx(found[1], nan_ok=True, abs=0) and found[1] == pytest.approx(found[2], nan_ok=True, abs=0)


def test_an_evaluation_plays_the_held_out_text(tmp_path: Path) -> None:
    """Bug: greedy episodes on the training text. Its last tenth, here, is a letter repeated that is alone nowhere else."""
    path = tmp_path / "text.txt"
    path.write_text("abc" * 1200 + "c" * 400)
    trainer = on_text(tmp_path / "run", path)
    env, task = trainer.components.evaluator.make_env(), trainer.components.task
    env.reset()
    [c] = task.tokenizer.encode_strict("c").tolist()
    assert (env.teacher_forced_observations() == c).all()
    assert not (task.env.teacher_forced_observations() == c).all()


def test_an_evaluation_answers_held_out_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: the prompts of the training part, whose answers the run may have by heart."""
    monkeypatch.chdir(tmp_path)
    data_files.write(tmp_path, ("pairs",))
    trainer = built(tmp_path / "run", [*PAIRS, "progress=false", "logger=none"])
    data, env = trainer.components.task.data, trainer.components.evaluator.make_env()
    prompt_EP, length_E = env.prompts()
    held, trained = ([pair.prompt for pair in part.texts[: len(length_E)]] for part in (data.heldout, data.train))
    asked = [data.tokenizer.decode(row[: n - 1].tolist()) for row, n in zip(prompt_EP, length_E.tolist(), strict=True)]
    assert asked == held and held != trained, "each is asked once, in order"


def test_random_streams_are_apart(tmp_path: Path) -> None:
    """Bug: an evaluation that draws what training draws, so that its episodes are those that were trained on."""
    trainer = built(tmp_path, [*TABULAR, "network=table", "network.context=16"])
    parts = trainer.components
    generators = [
        parts.task.env._generator, parts.evaluator.make_env()._generator, parts.exploration.generator, parts.buffer.generator,
    ]  # fmt: skip
    assert len({generator.initial_seed() for generator in generators}) == 4
    numbers = [value for name, value in vars(streams).items() if name.isupper()]
    assert len(numbers) == len(set(numbers)) == 6
    assert len({streams.seed_of(seed, number) for seed in range(50) for number in numbers}) == 300, "also those of other seeds"


def test_the_target_begins_where_cloning_ended(tmp_path: Path, text: Path) -> None:
    """Bug: targets of the untrained network after the warm start; or a reference policy with dropout."""
    trainer = on_text(
        tmp_path / "run", text, "env.transition=free", "algorithm=path_consistency", "objective.path_consistency.reference=start",
        "pretraining.updates=3", "network.dropout=0.5",
    )  # fmt: skip
    learner = trainer.components.learner
    while trainer.phase.name == "pretraining":
        trainer.train_round(trainer.phase)
    online = learner.network.state_dict()
    assert all(torch.equal(value, online[name]) for name, value in learner.target.network.state_dict().items())
    assert learner.reference is not None and not learner.reference.training
    trainer.train_round(trainer.phase)
    batch = trainer.phase.sampler.sample().from_first_decision()
    once, twice = (learner.forwards(batch).reference for _ in range(2))
    assert once is not None and twice is not None and torch.equal(once["q"], twice["q"])


def rounds(trainer: Trainer, read: Callable[[], Any]) -> list[Any]:
    """What is read after each round of a whole run."""
    found = []
    while trainer.rounds_done < trainer.total_rounds:
        trainer.train_round(trainer.phase)
        found.append(read())
    return found


def test_importance_weights_become_whole_in_a_run(tmp_path: Path, text: Path) -> None:
    """Bug: beta that stays where it began: .4 in the first round of 4, then .55, .7, .85."""
    chosen = ["buffer=prioritized", "trainer.rollouts=4", "pretraining.updates=2", "head.loss=huber"]
    trainer = on_text(tmp_path / "run", text, *chosen)
    betas = rounds(trainer, lambda: float(trainer.components.buffer.beta))
    assert betas[-4:] == pytest.approx([0.4, 0.55, 0.7, 0.85])


def test_errors_of_updates_become_priorities(tmp_path: Path, text: Path) -> None:
    """Bug: the loop keeps the errors to itself, so that all rows are drawn alike for the whole run."""
    trainer = on_text(tmp_path / "run", text, "buffer=prioritized", "trainer.learning_starts=0")
    for _ in range(6):
        trainer.train_round(trainer.phase)
    buffer: Any = trainer.components.buffer
    held = int(buffer.storage.filled())
    assert len(buffer.mass_CN[:held].unique()) > 4


def test_epsilon_begins_with_the_first_rollout(tmp_path: Path, text: Path) -> None:
    """Bug: rounds of cloning count as rollouts, so that exploration is over before it began. Linear from 1 to 0 over 4."""
    linear = ["exploration.start=1.0", "exploration.end=0.0", "exploration.fraction=1.0"]
    trainer = on_text(tmp_path / "run", text, *linear, "trainer.rollouts=4", "pretraining.updates=6", "head.loss=huber")
    epsilons = rounds(trainer, lambda: trainer.components.exploration.epsilon)
    assert epsilons[-4:] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_learning_starts_when_it_is_told_to(tmp_path: Path, text: Path) -> None:
    """Bug: updates on the first few rows. A rollout is 4 x 8 decisions, so the third is the first at 70 or beyond."""
    trainer = on_text(tmp_path / "run", text, "trainer.learning_starts=70", "trainer.rollouts=4")
    assert rounds(trainer, lambda: trainer.components.learner.updates) == [0, 0, 1, 2]


def test_the_schedule_of_the_rate_spans_all_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: offline rounds forgotten, so that the rate is at its end before the play begins."""
    monkeypatch.chdir(tmp_path)
    walks = ["+experiment=random_walks", *SMALL[:-2], "env.num_envs=4", "network.hidden=16", "network.width=8"]
    rounds_of = ["trainer.offline_rounds=3", "trainer.rollouts=2", "trainer.updates_per_rollout=5"]
    trainer = built(tmp_path / "run", [*walks, *rounds_of, "buffer.capacity=9000", "algorithm=dqn"])
    assert trainer.components.learner.optimization.total_updates == 25


def test_target_sees_the_furthest_of_several_objectives(tmp_path: Path, text: Path) -> None:
    """Bug: windows as long as the nearest objective reads, so that the rewards of the others are cut off."""
    far = ["objective=[td,path_consistency]", "objective.path_consistency.n=5", "head.loss=huber", "buffer.sample=transitions"]
    trainer = on_text(tmp_path / "run", text, *far)
    assert trainer.components.buffer._after == 5


@pytest.mark.parametrize("rows", [4, 8])
def test_memory_and_return_over_the_ends_of_rows(tmp_path: Path, rows: int) -> None:
    """Bug: acting goes on in the state of the old row, which training never does; or a return that begins anew with each row."""
    long = ["trainer.rollout_steps=60", "trainer.learning_starts=1000", f"env.row_transitions={rows}"]
    trainer = built(tmp_path, [*CARTPOLE, *GRU, *long])
    actor, seen = trainer.components.actor, []
    assert actor is not None
    preference = actor.policy.preference

    def watched(output: dict[str, Any]) -> Any:
        new_E = actor.open.length_B == 0
        if bool(new_E.any()) and seen is not None:
            alone = actor.network(actor.open.observation_BS[:, :1])["q"][:, 0]
            seen.append(float((output["q"] - alone)[new_E].abs().max()))
        return preference(output)

    actor.policy.preference = watched  # type: ignore[method-assign]
    with torch.no_grad():
        for parameter in actor.network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    rollout(trainer)
    assert len(seen) >= 60 // rows and max(seen) < 1e-4
    figures = trainer.components.accumulator.pop_means()
    assert figures["rollout/return"] == pytest.approx(figures["rollout/length"]) and figures["rollout/return"] > rows


@pytest.mark.parametrize("experiment, carry", [("maze", 18), ("logged", 4)])
def test_how_much_of_a_row_the_next_begins_with(
    tmp_path: Path, experiment: str, carry: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: the end of a row valued in a context that is learned nowhere."""
    monkeypatch.chdir(tmp_path)
    if experiment == "maze":
        small = ["data.episodes=10", "network.hidden=16", "network.width=8", "buffer.capacity=null", "env.max_steps=4"]
        offline = ["trainer.offline_rounds=2", "trainer.rollouts=0"]
        trainer = built(tmp_path / "run", ["+experiment=maze", *SMALL[:-2], *offline, *small])
    else:
        rows: list[dict[str, Any]] = []
        for k, letter in enumerate("abcdefghijklmnopqrst"):
            first = {"prompt": f"{letter}bcd", "completion": "xy", "reward": float(k), "next": f"{letter}byz", "episode": k}
            rows += [first, {"prompt": f"{letter}byz", "completion": "yx", "reward": 1.0, "episode": k}]
        Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        trainer = built(tmp_path / "run", [*LOG, "algorithm=ilql"])
    assert trainer.components.learner.forwards.context_carry == carry
    assert trainer.components.task.spec.truncates
