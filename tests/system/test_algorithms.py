"""Every algorithm with every network: it learns, or is refused in words. Every setting of the learning parts counts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dqnlm.builder import launch
from dqnlm.config import catalogue, composition, validation
from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory
from dqnlm.training.trainer import Trainer
from tests.helpers import pretrained as pretrained_models
from tests.helpers.slow import mostly_slow

ALGORITHMS = [name for name, _ in catalogue.options("algorithm")]
NETWORKS = [name for name, _ in catalogue.options("network")]
SMALL = [
    "+experiment=random_walks", "logger=none", "device=cpu", "threads=1", "seed=1", "trainer.batch_size=32",
    "progress=false", "buffer.capacity=9000",
]  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "window_mlp": {"width": 8, "hidden": 32, "layers": 1},
    "gru": {"width": 32, "layers": 1, "context": 9},
    "transformer": {"width": 32, "layers": 1, "heads": 2, "context": 9, "dropout": 0.0},
    "table": {},
    "pretrained": {"context": 9, "dropout": 0.0},
}
# A trunk that gives its outputs their first weights has none for a projection with noise, or for sampled quantiles.
REFUSED = {("noisy_dqn", "pretrained"), ("rainbow", "pretrained"), ("iqn", "pretrained")}
# What an algorithm needs beside its preset, and the one network that it is for.
FIXED_TRUNK = ["network.lora_rank=0", "gamma=1"]
FOR_PRETRAINED = {"q_sharp": FIXED_TRUNK, "ilql_fixed": FIXED_TRUNK}


def build(tmp_path: Path, *overrides: str, **changes: Any) -> Trainer:
    """A trainer on logged random walks; `changes` are set after composition, where no option may be missing."""
    network = next((o.split("=")[1] for o in overrides if o.startswith("network=")), "window_mlp")
    all_overrides = [*SMALL, *overrides]
    composed, choices = composition.compose(all_overrides)
    checked = validation.validate(composed, choices, all_overrides)
    if network == "pretrained":
        pytest.importorskip("transformers")
        checked["network"]["name_or_path"] = str(
            pretrained_models.write(tmp_path / "gpt2", alphabet="abcdefghijklmnopqrstu")
        )
    for key, value in SIZES[network].items():
        checked["network"][key] = value
    if checked["optimizer"]["_target_"].endswith("adam"):
        checked["optimizer"]["lr"] = 3e-3
    for key, value in changes.items():
        node = checked
        *path, last = key.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    tmp_path.mkdir(parents=True, exist_ok=True)
    return launch.build(checked, RunDirectory(tmp_path))


def is_on_the_diagonal(_: int, case: tuple[str, str]) -> bool:
    """Each algorithm with one network, each network with several."""
    return ALGORITHMS.index(case[0]) % len(NETWORKS) == NETWORKS.index(case[1])


@pytest.mark.parametrize(("algorithm", "network"), mostly_slow(itertools.product(ALGORITHMS, NETWORKS), is_on_the_diagonal))
def test_every_algorithm_learns_with_every_network(tmp_path: Path, algorithm: str, network: str) -> None:
    """Bug: a preset whose loss reaches no weight, is not finite, or does not go down on a batch seen again and again."""
    if (algorithm, network) in REFUSED:
        with pytest.raises(
            UserError, match=r"set projection=linear or dueling \(or low_rank\), and another head than implicit_quantile"
        ):
            build(tmp_path, f"algorithm={algorithm}", f"network={network}")
        return
    needed = FOR_PRETRAINED.get(algorithm, [])
    if needed and network != "pretrained":
        with pytest.raises(UserError, match=r"network=pretrained network\.lora_rank=0"):
            build(tmp_path, f"algorithm={algorithm}", f"network={network}", "gamma=1")
        return
    trainer = build(tmp_path, f"algorithm={algorithm}", f"network={network}", *needed)
    learner, batch = trainer.components.learner, trainer.components.buffer.sample(32)
    learner.target.period = learner.target.polyak_rate = None  # a target that stands still: one regression
    losses = []
    for update in range(60):
        torch.manual_seed(0)  # the same noise, quantiles and dropout
        learner.update(batch)
        figures = learner.accumulator.pop_means()
        losses.append(sum(figures[f"loss/{name}"] * o.weight for name, o in learner.objectives.items()))
        if update == 1:  # outputs that start at zero hand nothing to the trunk in the first
            sizes = {n: float(p.grad.norm()) for n, p in learner.network.named_parameters() if p.grad is not None}
            assert sizes and all(map(lambda x: x == x and x < 1e6, sizes.values())), sizes
            assert sum(size > 0 for size in sizes.values()) > 0.5 * len(sizes), sizes
    assert all(loss == loss for loss in losses)
    assert losses[-1] < losses[0], (losses[0], losses[-1])


def after_three_rounds(tmp_path: Path, *overrides: str, **changes: Any) -> list[torch.Tensor]:
    trainer = build(tmp_path, *overrides, **changes)
    for _ in range(3):
        trainer.train_round(trainer.phase)
    return [p.detach().clone() for p in trainer.components.learner.network.parameters()]


LEARNING_GROUPS = ("bootstrap", "returns", "head", "projection", "buffer", "target", "objective")
# What makes an option count, and settings that count only in special cases, with the case.
WITH: dict[str, list[str]] = {
    "bootstrap/value": ["algorithm=ilql"], "bootstrap/munchausen": ["algorithm=munchausen_dqn"],
    "bootstrap/soft": ["algorithm=soft_q"], "returns/n_step": ["algorithm=n_step_dqn"],
    "returns/lambda": ["algorithm=q_lambda"], "head/categorical": ["algorithm=c51"], "head/quantile": ["algorithm=qr_dqn"],
    "head/implicit_quantile": ["algorithm=iqn"], "projection/noisy": ["algorithm=noisy_dqn"],
    "projection/noisy_dueling": ["algorithm=noisy_dqn", "projection=noisy_dueling"],
    "projection/dueling": ["algorithm=dueling_dqn"], "buffer/prioritized": ["algorithm=prioritized_dqn"],
    "target/hard": ["target=hard", "target.period=2"], "target/polyak": ["target=polyak"],
    "objective/td": ["algorithm=double_dqn"], "objective/cross_entropy": ["algorithm=ilql"],
    "objective/expectile_value": ["algorithm=ilql"], "objective/conservative": ["algorithm=cql"],
    "objective/large_margin": ["objective=[td,large_margin]"], "objective/path_consistency": ["algorithm=path_consistency"],
    "objective/trajectory": ["algorithm=tbrm"],
    "projection/state_value": ["network=pretrained", "network.q_init=logits", "network.q_temperature=1", "network.lora_rank=2"],
    "objective/q_sharp": ["algorithm=q_sharp", "network=pretrained", *FIXED_TRUNK],
}  # fmt: skip
OTHER_VALUES: dict[str, Any] = {
    "bootstrap/munchausen/clip_low": -0.01,
    "objective/large_margin/margin": 1e-3,
    "head/scalar/loss": "squared",
    "head/scalar/initial_return": 0.3,
    "head/categorical/low": -0.5,
    "head/categorical/high": 1.5,
    "head/categorical/temperature": 0.1,
    "objective/cross_entropy/output": None,
    "buffer/uniform/sample": "transitions",
    "buffer/prioritized/sample": "transitions",
    "objective/path_consistency/n": 2,
    "objective/td/weight": 3.0,
    "objective/path_consistency/reference": "start",
    "objective/trajectory/reference": "start",
    "objective/cross_entropy/normaliser_weight": 0.5,
}
# Read, and tested elsewhere; alone they change nothing in three rounds here.
ELSEWHERE = {
    "buffer/uniform/capacity",
    "buffer/prioritized/capacity",
    "buffer/rollout/capacity",
    "buffer/groups/capacity",  # needs answers to the same prompt: see tests/buffers/test_groups.py
    "buffer/groups/newest",
    "buffer/uniform/place",  # where rows lie must change nothing: see tests/buffers/test_uniform.py
    "buffer/prioritized/place",
    "objective/cross_entropy/output",
    "objective/trajectory/baseline",
    "head/normalised/value_weight",
}


def settings_of_the_learning_parts() -> list[tuple[str, str, str]]:
    found = []
    for group in LEARNING_GROUPS:
        for option, _ in catalogue.options(group):
            path = catalogue.option_file(group, option)
            assert path is not None
            for key in yaml.safe_load(path.read_text()):
                if key != "_target_" and f"{group}/{option}/{key}" not in ELSEWHERE:
                    found.append((group, option, key))
    return found


def another(name: str, value: Any) -> Any:
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    assert isinstance(value, float), f"{name}: say in OTHER_VALUES what else it can be"
    return value * 0.6


@pytest.mark.parametrize(("group", "option", "key"), mostly_slow(settings_of_the_learning_parts(), 2))
def test_every_setting_changes_what_is_learned(tmp_path: Path, group: str, option: str, key: str) -> None:
    """Bug: a setting that is read, stored and has no effect."""
    name = f"{group}/{option}"
    overrides = WITH.get(name, [f"{group}={option}"])
    if name == "buffer/rollout":
        pytest.skip("its only setting is its size; see test_buffer_rollout.py")
    trainer = build(tmp_path / "value", *overrides)
    del trainer
    composed, choices = composition.compose([*SMALL, *overrides])
    node = validation.validate(composed, choices, [*SMALL, *overrides])[group]
    node = node[option] if group == "objective" else node
    path = f"{group}__{option}__{key}" if group == "objective" else f"{group}__{key}"
    changes = {path: another(f"{name}/{key}", node[key])}
    both: dict[str, Any] = {}
    if name in ("objective/td", "objective/q_sharp") and key == "weight":  # a factor of the only loss is undone by Adam
        both["optimizer__eps"] = 1.0
    before, after = (
        after_three_rounds(tmp_path / "a", *overrides, **both),
        after_three_rounds(tmp_path / "b", *overrides, **both, **changes),
    )
    same = len(before) == len(after) and all(
        x.shape == y.shape and x.equal(y) for x, y in zip(before, after, strict=True)
    )
    assert not same, f"{name}.{key} = {changes[path]} changes nothing"
