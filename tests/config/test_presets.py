"""What each preset of the group `algorithm` is: learning alone does not show that a part of it is missing."""

from __future__ import annotations

from typing import Any

import pytest

from dqnlm.config import catalogue, composition

ONE_STEP = {"objective": ["td"], "returns": "one_step"}
CLONING = {
    "objective": ["cross_entropy"],
    "exploration": "reference",
    "target": "none",
    "gamma": 0.0,
    "objective.cross_entropy.output": "q",
}
ILQL = {
    "objective": ["td", "expectile_value", "conservative", "cross_entropy"], "bootstrap": "value", "exploration": "greedy",
    "head.loss": "squared", "objective.td.twin": True, "objective.cross_entropy.output": "policy", "policy.kind": "reweighted",
    "objective.expectile_value.expectile": 0.9,
}  # fmt: skip
PATHS = {
    "objective": ["path_consistency"], "exploration": "boltzmann", "head.loss": "huber",
    "objective.path_consistency.temperature": 0.03, "exploration.temperature": 0.03,
    "objective.path_consistency.reference": "none",
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "behaviour_cloning": CLONING,
    "filtered_behaviour_cloning": CLONING | {"data.keep_best": 0.1},
    "dqn": ONE_STEP | {"bootstrap": "max", "head": "scalar", "buffer": "uniform", "exploration": "epsilon_greedy"},
    "double_dqn": ONE_STEP | {"bootstrap": "double", "head": "scalar", "buffer": "uniform", "exploration": "epsilon_greedy"},
    "dueling_dqn": ONE_STEP | {"bootstrap": "double", "projection": "dueling"},
    "n_step_dqn": {"objective": ["td"], "returns": "n_step", "returns.n": 3, "bootstrap": "double"},
    "prioritized_dqn": ONE_STEP | {"bootstrap": "double", "buffer": "prioritized", "buffer.alpha": 0.6, "buffer.beta_start": 0.4},
    "noisy_dqn": ONE_STEP | {"bootstrap": "double", "projection": "noisy", "exploration": "greedy", "projection.sigma": 0.5},
    "c51": ONE_STEP | {"bootstrap": "max", "head": "categorical", "head.num_atoms": 51, "head.temperature": None},
    "qr_dqn": ONE_STEP | {"bootstrap": "max", "head": "quantile", "head.num_quantiles": 51},
    "iqn": ONE_STEP | {"bootstrap": "max", "head": "implicit_quantile", "head.embedding": 64},
    "rainbow": {
        "objective": ["td"],
        "bootstrap": "double",
        "returns": "n_step",
        "returns.n": 3,
        "head": "categorical",
        "projection": "noisy_dueling",
        "buffer": "prioritized",
        "exploration": "greedy",
        "projection.sigma": 0.5,
    },
    "q_lambda": {"objective": ["td"], "returns": "lambda", "returns.trace": 0.65, "bootstrap": "max", "buffer": "uniform"},
    "mc_q": {"objective": ["td"], "returns": "monte_carlo"},
    "pqn": {
        "objective": ["td"],
        "returns": "lambda",
        "returns.trace": 0.65,
        "bootstrap": "max",
        "buffer": "rollout",
        "target": "hard",
        "target.period": 1,
    },
    "munchausen_dqn": ONE_STEP
    | {
        "bootstrap": "munchausen",
        "head.loss": "huber",
        "bootstrap.alpha": 0.9,
        "bootstrap.clip_low": -1.0,
        "bootstrap.temperature": 0.03,
    },
    "soft_q": ONE_STEP
    | {
        "bootstrap": "soft",
        "head.loss": "huber",
        "exploration": "boltzmann",
        "bootstrap.temperature": 0.03,
        "exploration.temperature": 0.03,
    },
    "path_consistency": PATHS | {"objective.path_consistency.n": 1},
    "path_consistency_multi": PATHS | {"objective.path_consistency.n": None},
    "tbrm": {
        "objective": ["trajectory"],
        "exploration": "boltzmann",
        "target": "none",
        "gamma": 1.0,
        "head.loss": "huber",
        "objective.trajectory.temperature": 0.03,
        "exploration.temperature": 0.03,
        "objective.trajectory.baseline": "value",
    },
    "cql": ONE_STEP | {"objective": ["td", "conservative"], "bootstrap": "double", "objective.conservative.weight": 0.05},
    "ilql": ILQL | {"returns": "one_step", "objective.conservative.weight": 0.03, "policy.beta": 32.0},
    "ilql_lambda": ILQL | {"returns": "lambda", "returns.trace": 0.9, "objective.conservative.weight": 0.1, "policy.beta": 8.0},
    "ilql_fixed": {
        "objective": ["td", "expectile_value"], "bootstrap": "value", "returns": "lambda", "returns.trace": 0.97,
        "exploration": "boltzmann", "exploration.temperature": 1.0, "head.loss": "squared", "objective.td.twin": True,
        "policy.kind": "reweighted",
    },
    "q_sharp": {
        "objective": ["q_sharp"],
        "head": "categorical",
        "head.temperature": 0.25,
        "policy.kind": "reweighted",
        "policy.beta": 4.0,
        "target": "none",
        "exploration": "greedy",
        "gamma": 1.0,
    },
}


@pytest.mark.parametrize("name", [name for name, _ in catalogue.options("algorithm")])
def test_a_preset_is_what_its_name_says(name: str) -> None:
    """Bug: Rainbow without Double or noise (then it never explores), ILQL with one Q, PQN with a target of old weights."""
    config, choices = composition.compose([f"algorithm={name}"])
    found = {key: choices[key] if key in choices else value_at(config, key) for key in PRESETS[name]}
    assert found == PRESETS[name]


def test_a_period_and_temperatures_follow_what_they_are_tied_to() -> None:
    """Bug: a copy of a number that stays behind when the other is changed."""
    config, _ = composition.compose(["algorithm=pqn", "trainer.updates_per_rollout=7"])
    assert config["target"]["period"] == 7
    for name, group in (
        ("soft_q", "bootstrap"),
        ("path_consistency", "objective.path_consistency"),
        ("tbrm", "objective.trajectory"),
    ):
        config, _ = composition.compose([f"algorithm={name}", f"{group}.temperature=0.5"])
        assert config["exploration"]["temperature"] == 0.5


def value_at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def test_every_preset_has_a_table() -> None:
    """Bug: a new preset that nothing holds."""
    assert {name for name, _ in catalogue.options("algorithm")} == set(PRESETS)
