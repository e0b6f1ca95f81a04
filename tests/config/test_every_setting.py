"""The YAML files against the code that reads them: every option builds and trains, every setting is read by something."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from dqnlm import cli
from dqnlm.builder import launch
from dqnlm.config import catalogue, composition, validation
from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from scripts import structure
from tests.helpers import experiments
from tests.helpers import runs as tools
from tests.helpers.slow import mostly_slow

PACKAGE = Path(launch.__file__).parents[1]


# Options that need a model, a user's file or pairs of texts on disk: test_pretrained.py, test_text_rewards.py,
# test_function_reward.py, test_pairs.py and test_recorded_partner.py write them, and try these options.
ELSEWHERE = {("network", "pretrained"), ("experiment", "ilql"), ("reward", "classifier"), ("reward", "function")}
ELSEWHERE |= {("reward", "causal_model")}
ELSEWHERE |= {("env", "recorded_dialogue"), ("env", "translation")}
ELSEWHERE |= {
    ("env", "logged"),
    ("experiment", "logged"),
    ("experiment", "logged_pretrained"),
    ("experiment", "sentiment"),
    ("experiment", "dial"),
    ("reward", "none"),
}  # test_logged.py
ELSEWHERE |= {("projection", "state_value")}  # stands beside a pretrained model's logits: system/test_algorithms.py
ELSEWHERE |= {("objective", "q_sharp")}  # needs a pretrained model: system/test_q_sharp.py
ELSEWHERE |= {("env", "prompts"), ("experiment", "prompts"), ("experiment", "prompts_replay")}  # system/test_prompts.py


def every_option() -> list[tuple[str, str]]:
    groups = [g for g in catalogue.groups() if g not in (*catalogue.PRESETS, "data", "trainer")]
    return [(g, name) for g in groups for name, _ in catalogue.options(g) if (g, name) not in ELSEWHERE]


# What an option needs beside itself.
NEEDS: dict[tuple[str, str], list[str]] = {
    ("logger", "wandb"): ["logger.mode=offline"],
    ("env", "gymnasium"): ["env.id=CartPole-v1"],
    ("exploration", "reference"): ["feedback=all_actions"],
    ("exploration", "probability_matching"): ["gamma=0"],
    ("head", "normalised"): ["projection=dueling"],
    ("objective", "cross_entropy"): ["algorithm=behaviour_cloning"],
    ("reward", "similarity"): ["env.transition=free"],
    ("objective", "expectile_value"): ["objective=[td,expectile_value]"],
    ("objective", "conservative"): ["objective=[td,conservative]"],
    ("objective", "large_margin"): ["objective=[td,large_margin]", "env.transition=free", "trainer.demonstration_fraction=0.5"],
    ("objective", "path_consistency"): ["algorithm=path_consistency"],
    ("objective", "trajectory"): ["algorithm=tbrm"],
    ("bootstrap", "soft"): ["head.loss=huber"],
    ("bootstrap", "munchausen"): ["head.loss=huber"],
    ("bootstrap", "value"): ["objective=[td,expectile_value]"],
}
# Environments that bring their own tasks are tried on settings without a text.
WITHOUT_TEXT = [
    "data=none", "device=cpu", "threads=1", "logger=none", "network=gru", "network.width=8", "network.layers=1",
    "network.context=64", "head.loss=huber", "env.num_envs=4", "trainer.rollouts=4", "trainer.rollout_steps=60",
    "trainer.learning_starts=480", "trainer.batch_size=4", "progress=false", "evaluation.episodes=2",
]  # fmt: skip


@pytest.mark.parametrize(("group", "option"), every_option())
def test_every_option_builds_and_trains(tmp_path: Path, group: str, option: str) -> None:
    """Bug: an option that validates, but whose code has other parameters, shapes or needs than the rest of a run."""
    if group == "logger" and option != "none":
        pytest.importorskip(option, reason=f"the extra {option} is not installed")
    if (group, option) == ("actors", "ray"):
        pytest.importorskip("ray")
    if group == "env" and option != "continuation":
        pytest.importorskip("gymnasium")
        typed = [f"env={option}", *NEEDS.get((group, option), []), *WITHOUT_TEXT]
        composed, choices = composition.compose(typed)
        settings = validation.validate(composed, choices, typed)
    else:
        chosen = f"{group}=[{option}]" if group == "objective" and option == "td" else f"{group}={option}"
        needed = NEEDS.get((group, option), [])
        own = [] if group == "objective" and option != "td" else [chosen]
        settings, _ = tools.settings(tools.tiny(tools.write_text(tmp_path / "text.txt"), *own, *needed))
    trainer = launch.build(settings, RunDirectory(tmp_path))
    before = [p.detach().clone() for p in trainer.components.learner.network.parameters()]
    for _ in range(4):
        trainer.train_round(trainer.phase)
    after = list(trainer.components.learner.network.parameters())
    assert any(not a.equal(b) for a, b in zip(before, after, strict=True)), "nothing was learned"
    assert all(bool(p.isfinite().all()) for p in after)


EXPERIMENTS = [name for name, _ in catalogue.options("experiment") if ("experiment", name) not in ELSEWHERE]


PAIRS_OF = {"translation": experiments.sentences, "dialogue": experiments.talk}


@pytest.mark.parametrize("name", mostly_slow(EXPERIMENTS, lambda _, name: name != "random_walks_large"))
def test_every_experiment_builds(tmp_path: Path, name: str) -> None:
    """Bug: an experiment whose parts do not fit together, found by the first person who runs it."""
    if name in PAIRS_OF:
        pytest.importorskip("tokenizers")
        trainer = launch.build(
            tools.settings([f"+experiment={name}", *PAIRS_OF[name](tmp_path)])[0], RunDirectory(tmp_path)
        )
        assert trainer.phase.name == "pretraining" and len(trainer.components.buffer.sample(2).length_B) == 2
        return
    text = tools.write_text(tmp_path / "text.txt", 8000)
    overrides = [f"+experiment={name}", "device=cpu", "threads=1", "logger=none"]
    data = composition.compose(overrides)[0]["data"]
    overrides += (["data=text_file"] if "path" in data else []) + (["data.games=200"] if "games" in data else [])
    composed, choices = composition.compose(overrides)
    checked = validation.validate(composed, choices, overrides)
    if "path" in data:
        checked["data"]["path"] = str(text)
    trainer = launch.build(checked, RunDirectory(tmp_path))
    assert trainer.total_rounds >= 1 and trainer.components.notes is not None


@pytest.mark.parametrize("name", mostly_slow(EXPERIMENTS, 3))
def test_smoke_shortens_every_experiment_and_changes_none(tmp_path: Path, name: str) -> None:
    """Bug: +debug=smoke gives rollouts to a run on logged data, or leaves its offline rounds or its pretraining as they are."""
    words = [f"+experiment={name}", "+debug=smoke", "device=cpu", "threads=1", "logger=none"]
    words += PAIRS_OF[name](tmp_path) if name in PAIRS_OF else []
    if name in PAIRS_OF:
        pytest.importorskip("tokenizers")
    if "path" in composition.compose(words)[0]["data"] and name not in PAIRS_OF:
        words += ["data=text_file", f"data.path={tools.write_text(tmp_path / 'text.txt', 8000)}"]
    composed, choices = composition.compose(words)
    plain, _ = composition.compose([word for word in words if word != "+debug=smoke"])
    trainer = launch.build(validation.validate(composed, choices, words), RunDirectory(tmp_path))
    wanted = {
        "pretraining": plain["pretraining"]["updates"], "offline": plain["trainer"]["offline_rounds"],
        "online": plain["trainer"]["rollouts"],
    }  # fmt: skip
    found = {phase.name: phase.rounds for phase in trainer.phases}
    cloned = found.pop("pretraining", 0)  # in updates, of which a round may make several
    assert found == {name: min(rounds, 6) for name, rounds in wanted.items() if rounds and name != "pretraining"}
    assert (0 < cloned <= 6) == bool(wanted["pretraining"])


CLONING = ["pretraining.updates=1", "head.loss=squared", "env.transition=free"]


def test_a_run_that_a_limit_ended_can_be_made_longer(tmp_path: Path) -> None:
    """Bug: the limit overrules what a resume asks for; a resume repeats or prolongs the pretraining."""
    tools.start(tmp_path / "run", tools.write_text(tmp_path / "text.txt"), "max_rounds=2", *CLONING)
    with pytest.raises(UserError, match=r"trainer\.rollouts=4"):
        launch.resume(tmp_path / "run", [])
    launch.resume(tmp_path / "run", ["trainer.rollouts=4"])
    assert tools.state(tmp_path / "run")["training"]["trainer"]["rollouts_done"] == 5
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "finished"


def test_a_typed_number_of_rounds_above_the_limit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: +debug=smoke overrules what was typed beside it, without a word."""
    assert cli.main(["train", "+debug=smoke", "trainer.rollouts=7"]) == 2
    assert "trainer.rollouts=7 is above max_rounds=6 (configs/debug/smoke.yaml)" in capsys.readouterr().err
    assert cli.main(["train", "max_rounds=0"]) == 2
    assert "max_rounds must be at least 1" in capsys.readouterr().err


@pytest.mark.fault("settings that nothing reads")
def test_every_setting_is_read_by_its_owner() -> None:
    """Bug: a setting that is accepted and does nothing, or that another part reads."""
    assert len(structure.targets()) > 60
    assert structure.unread_settings(structure.trees()) == []


def test_the_search_for_unread_settings_finds_them() -> None:
    """Bug: the search takes any mention for reading."""
    source = "def f(*, used, stored, ignored):\n  self.x = used\n  stored = 3"
    read = structure.loaded(ast.parse(source))
    assert "used" in read and not {"stored", "ignored"} & read


def test_root_settings_have_a_comment() -> None:
    """Bug: a setting of train.yaml without meaning and unit. The options of the groups: see test_config.py."""
    lines = (catalogue.packaged_root() / "train.yaml").read_text().split("\nhydra:")[0].splitlines()
    for line in lines:
        key, _, rest = line.partition(":")
        if rest.strip() and not key.strip().startswith(("#", "-", "_target_")):
            assert "#" in rest, line
