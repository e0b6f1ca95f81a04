"""Composition and strict validation: each mistake of a user ends in one message that says what to type."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from dqnlm.config import catalogue, composition, run_config, validation
from dqnlm.config.schema import check_node, instantiate, keyword_parameters, resolve_target
from dqnlm.errors import UserError
from dqnlm.utils import permissions


@pytest.fixture(autouse=True)
def _permissions() -> Iterator[None]:
    yield
    permissions.forget_permissions()


def checked(*overrides: str, config_dir: Path | None = None) -> dict[str, Any]:
    composed, choices = composition.compose(list(overrides), config_dir)
    return validation.validate(composed, choices, list(overrides), config_dir=config_dir)


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        checked(*overrides, config_dir=config_dir)
    return str(caught.value)


def every_option() -> list[tuple[str, str]]:
    groups = [g for g in catalogue.groups() if g not in catalogue.PRESETS]
    return [(group, name) for group in groups for name, _ in catalogue.options(group)]


def test_a_setting_of_hydra_beside_an_algorithm_with_settings_of_its_own() -> None:
    """Bug: a folder is named (hydra.run.dir) beside `algorithm=c51 head.low=-1`, whose head the experiment alone has not."""
    typed = ["+experiment=maze", "algorithm=c51", "head.low=-1", "hydra.run.dir=here"]
    assert composition.compose_with_hydra(typed)[2].resolved("hydra.run.dir") == "here"


@pytest.mark.parametrize(("group", "option"), every_option())
def test_every_option_composes_and_its_keys_are_its_targets_parameters(group: str, option: str) -> None:
    """Bug: a key that nothing reads, a parameter without a home, or a default in two places."""
    chosen = f"{group}={option}"
    if group == "objective" and option != "td":  # the default algorithm sets objective.td
        chosen = f"objective=[td,{option}]"
    needed = ["env=random_walks"] if (group, option) == ("data", "random_walks") else []
    node = checked(chosen, *needed)[group]
    node = node if "_target_" in node else node[option]
    parameters = keyword_parameters(resolve_target(node["_target_"]))
    assert set(node) - {"_target_"} == set(parameters)
    assert all(required for _, required in parameters.values()), "YAML is the one home of a default"


@pytest.mark.parametrize("group", catalogue.PRESETS)
def test_every_preset_composes(group: str) -> None:
    """Bug: an experiment, algorithm or debug preset that does not validate."""
    if group not in catalogue.groups():
        pytest.skip(f"no {group} yet")
    for name, _ in catalogue.options(group):
        needed = ["data=trajectories", "data.path=x"] if name == "filtered_behaviour_cloning" else []
        found = checked(f"{'+' if group in catalogue.ADDED else ''}{group}={name}", *needed)
        assert found["objective"] and found["trainer"]["rollouts"] + found["trainer"]["offline_rounds"] > 0, name


def test_every_option_has_a_description_and_a_comment_at_each_setting() -> None:
    """Bug: a setting whose meaning and unit stand nowhere."""
    for group in catalogue.groups():
        for name, description in catalogue.options(group):
            assert len(description) > 10, f"{group}/{name}"
    for group, name in every_option():
        for line in catalogue.read_option(group, name).splitlines():
            setting = ":" in line and not line.startswith(("#", "_target_", "    "))  # parts of a mixture: see there
            if setting and not line.rstrip().endswith(":"):
                assert "#" in line, f"{group}/{name}: {line}"


def test_plain_settings_are_those_of_the_root_file() -> None:
    """Bug: a top-level setting of train.yaml that validation does not know, or the other way round."""
    root = yaml.safe_load((catalogue.packaged_root() / "train.yaml").read_text())
    assert set(root) - {"defaults", "hydra", "learner"} == set(validation.PLAIN)
    groups = {next(iter(entry)) for entry in root["defaults"] if isinstance(entry, dict)}
    groups = {name for name in groups if not name.startswith("override")}
    assert groups == set(catalogue.groups()) - set(catalogue.ADDED)


def test_choices_name_the_option_of_every_group() -> None:
    """Bug: groups chosen as lists, or by a preset, are missing from the manifest."""
    _, choices = composition.compose(["network=gru", "objective=[td,cross_entropy]"])
    assert choices["network"] == "gru" and sorted(choices["objective"]) == ["cross_entropy", "td"]
    assert not any(group.startswith("hydra") for group in choices)


def test_values_are_coerced_only_where_the_meaning_is_beyond_doubt() -> None:
    """Bug: 1e2 for an integer is refused, or reaches the code as a float."""
    composed = checked("env.horizon=1e1", "trainer.rollouts=1e6", "gamma=0", "threads=2")
    assert composed["env"]["horizon"] == 10 and type(composed["env"]["horizon"]) is int
    assert composed["trainer"]["rollouts"] == 1_000_000
    assert composed["gamma"] == 0.0 and type(composed["gamma"]) is float


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["env.horizn=5"], ["env.horizn: no such setting (command line: env.horizn=5)", "did you mean env.horizon?"]),
        (["+env.horizn=5"], ["env.horizn", "command line: +env.horizn=5", "did you mean env.horizon?"]),
        (["horizon=5"], ["horizon: no such setting", "did you mean env.horizon?"]),
        (["lr=1"], ["did you mean optimizer.lr?"]),
        (["optimizer.learning_rate=1"], ["did you mean optimizer.lr?"]),
        (["env.horizon=abc"], ["env.horizon: 'abc' is not an integer (command line: env.horizon=abc)"]),
        (["env.horizon=null"], ["env.horizon: null is not an integer"]),
        (["env.horizon=true"], ["env.horizon: true is not an integer"]),
        (["env.horizon.x=3"], ["env.horizon is a single value"]),
        (["threads=None"], ["threads: 'None' is not an integer or null", "threads=null"]),
        (["feedback=takn"], ["'takn' is not one of taken, all_actions", "mean feedback=taken?"]),
        (["network=transfromer"], ["no option 'transfromer'", "did you mean network=transformer?", "gru, pretrained, table"]),
        (["objective=[td,crossentropy]"], ["no option 'crossentropy'", "did you mean objective=cross_entropy?"]),
        (["netwrk=gru"], ["netwrk: no such setting", "did you mean network?"]),
        (["returns.n=3"], ["returns.n: no such setting", "it is a setting of returns=n_step"]),
        (["exploration=greedy", "exploration.start=0.5"], ["it is a setting of exploration=epsilon_greedy"]),
        (["eval_every=4"], ["did you mean evaluation.every?"]),
        (["+debug=smok"], ["debug: there is no option 'smok'", "did you mean +debug=smoke?"]),
        (["debug=smoke"], ["type +debug=smoke"]),
        (["+expermient=shakespeare"], ["expermient: no such setting", "+experiment"]),
        (["+foo=1"], ["foo: no such setting"]),
        (["+network=gru"], ["without a plus: network=gru"]),
        (["+seed=1"], ["without a plus: seed=1"]),
        (["seed=1,2"], ["add -m", "seed=[1,2]"]),
        (["env.horizon=["], ["cannot read 'env.horizon=['"]),
        (["env=null"], ["a run needs a env", "continuation"]),
        (["~env.horizon"], ["env.horizon: this setting is missing"]),
        (["~network"], ["network: nothing is chosen", "gru"]),
        (["~nothing"], ["nothing"]),
        (["+objective.cross_entropy.weight=1"], ["objective.cross_entropy.weight: nothing reads", "chosen: td"]),
        (["allow_targets=[x]"], ["+allow_targets=[x]"]),
        (["+allow_targets=['rm -rf']"], ["allow_targets: 'rm -rf' is no module name"]),
        (["hydra.searchpath=[file:///tmp]"], ["--config-dir"]),
        (["network._target_=os.system"], ["network._target_: os.system is code outside dqnlm", "+allow_targets=[os]"]),
        (["network._target_=dqnlm.networks.recurrent.GUR"], ["no GUR", "did you mean dqnlm.networks.recurrent.GRU?"]),
        (["network._target_=dqnlm.nothing.X"], ["there is no module dqnlm.nothing"]),
        (["head._target_=dqnlm.builder.loading.load_policy"], ["there is no module dqnlm.builder.loading with parts of a run"]),
        (["logger._target_=dqnlm.training.trainer.write_json_atomic"], ["dqnlm.training.trainer has no write_json_atomic"]),
        (["network._target_=3"], ["3 is no dotted path"]),
        (["seed=${nowhere}"], ["nowhere"]),
        (["seed=???"], ["seed"]),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(overrides: list[str], parts: list[str]) -> None:
    """Bug: a mistake passes silently, or the message leaves out key, origin, nearest name or what to do."""
    message = refusal(*overrides)
    for part in parts:
        assert part in message, message
    assert "Traceback" not in message and "hydra" not in message.lower().replace("hydra.searchpath", "")


def user_options(folder: Path, **files: str) -> Path:
    """A --config-dir; `experiment__mine` becomes experiment/mine.yaml."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


PRESET = "# @package _global_\n# mine: a test\n"


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("network/gru.yaml", "call it network/my_gru.yaml and choose network=my_gru"),
        ("experiment/benchmark/nanogpt_cpu.yaml", "my_nanogpt_cpu.yaml and choose +experiment=benchmark/my_nanogpt_cpu"),
        ("train.yaml", "call it my_train.yaml"),
    ],
)
def test_a_file_that_a_packaged_one_hides_is_refused(tmp_path: Path, name: str, way_out: str) -> None:
    """Bug: a user's network/gru.yaml is passed over in silence, and the run has the packaged one."""
    path, packaged = tmp_path / "mine" / name, catalogue.packaged_root() / name
    path.parent.mkdir(parents=True)
    path.write_bytes(packaged.read_bytes())
    assert checked(config_dir=tmp_path / "mine")["env"]["horizon"]  # a copy without a change does no harm
    path.write_bytes(packaged.read_bytes() + b"# mine\n")
    message = refusal(config_dir=tmp_path / "mine")
    assert f"{path} would not be read" in message and message.endswith(way_out), message


def test_config_dir_adds_options_and_their_mistakes_name_the_file(tmp_path: Path) -> None:
    """Bug: a message blames the command line, or nothing, for a key that stands in a file."""
    folder = user_options(
        tmp_path / "it's mine, really",
        experiment__good=f"{PRESET}env:\n  horizon: 12\n",
        experiment__typo=f"{PRESET}env:\n  horizn: 12\n",
        experiment__type=f"{PRESET}env:\n  horizon: long\n",
        experiment__option=f"{PRESET}defaults:\n  - override /network: transfromer\n",
        experiment__broken=f"{PRESET}env: [\n",
        experiment__top=f"{PRESET}horizon: 3\n",
        network__mine="# mine: a test\n_target_: dqnlm.networks.recurrent.GRU\nlayers: 2\nwidth: 8\ncontext: 64\n",
    )
    assert checked("+experiment=good", config_dir=folder)["env"]["horizon"] == 12
    assert checked("network=mine", config_dir=folder)["network"]["layers"] == 2
    for name, parts in {
        "typo": ["env.horizn", "experiment/typo.yaml", "env.horizon", "~env.horizn"],
        "type": ["env.horizon: 'long' is not an integer", "experiment/type.yaml"],
        "option": ["no option 'transfromer'", "experiment/option.yaml", "network=transformer"],
        "broken": ["experiment/broken.yaml, line 4, column 1", "no YAML"],
        "top": ["horizon: no such setting", "experiment/top.yaml", "env.horizon"],
    }.items():
        message = refusal(f"+experiment={name}", config_dir=folder)
        assert all(part in message for part in parts), message
    assert checked("+experiment=typo", "~env.horizn", config_dir=folder)["env"]["horizon"] != 12
    with pytest.raises(UserError, match="no such folder"):
        composition.compose([], tmp_path / "missing")


def test_settings_of_another_option_are_refused_with_the_file_that_sets_them(tmp_path: Path) -> None:
    """Bug: an experiment's transformer settings reach a GRU that the same experiment chose, or vanish."""
    content = f"{PRESET}defaults:\n  - override /network: gru\nnetwork:\n  heads: 2\n"
    folder = user_options(tmp_path, experiment__mine=content)
    message = refusal("+experiment=mine", config_dir=folder)
    assert "network.heads: no such setting" in message and "experiment/mine.yaml" in message
    assert "heads" not in checked("+experiment=mine", "~network.heads", config_dir=folder)["network"]


def test_callbacks_of_hydra_are_refused(tmp_path: Path) -> None:
    """Bug: a file in --config-dir makes Hydra call anything, past allow_targets."""
    call = f"{PRESET}hydra:\n  callbacks:\n    mine:\n      _target_: pathlib.Path.cwd\n"
    assert "hydra.callbacks" in refusal("+experiment=mine", config_dir=user_options(tmp_path, experiment__mine=call))


def test_own_code_runs_only_with_permission_from_the_command_line(tmp_path: Path, monkeypatch: Any) -> None:
    """Bug: a configuration file, or a run's folder, makes the program run any code."""
    (tmp_path / "their_networks.py").write_text(
        "class Mine:\n    def __init__(self, *, width: int, context: int) -> None:\n        self.width = width\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = "_target_: their_networks.Mine\nwidth: 3\ncontext: 4\n"
    folder = user_options(
        tmp_path / "options", network__mine=f"# mine: a test\n{node}",
        experiment__sly=f"{PRESET}allow_targets: [their_networks]\n",
    )  # fmt: skip
    assert "code outside dqnlm" in refusal("network=mine", config_dir=folder)
    message = refusal("network=mine", "+experiment=sly", config_dir=folder)
    assert "only be given on the command line" in message and "sly.yaml" in message
    assert "their_networks" not in sys.modules
    composed = checked("network=mine", "+allow_targets=[their_networks]", config_dir=folder)
    assert "allow_targets" not in composed and instantiate(composed["network"]).width == 3
    run_config.save_run_config(composed, tmp_path / "config.yaml")
    permissions.forget_permissions()
    with pytest.raises(UserError, match="code outside dqnlm"):
        run_config.load_run_config(tmp_path / "config.yaml")
    assert run_config.load_run_config(tmp_path / "config.yaml", ["allow_targets=their_networks"]) == composed


def sample(a: int, *, weight: float, kind: Literal["x", "y"], inner: dict[str, Any]) -> tuple[Any, ...]:
    return a, weight, kind, inner


def leaf(*, size: int) -> int:
    return size


def test_nested_nodes_are_checked_and_instantiate_passes_keywords() -> None:
    """Bug: keys of the parts of a mixture are not checked; `weight` of a part is refused."""
    permissions.permit_targets(__name__)
    part = {"_target_": f"{__name__}.leaf", "size": 1e1, "weight": 2}
    node = {"_target_": f"{__name__}.sample", "weight": 1, "kind": "x", "inner": {"p": part}}
    result = check_node(node, "reward")
    assert instantiate(result, 7) == (7, 1.0, "x", {"p": {"_target_": f"{__name__}.leaf", "size": 10, "weight": 2.0}})
    with pytest.raises(UserError, match=r"reward\.inner\.p\.sise: no such setting"):
        check_node(node | {"inner": {"p": {"_target_": f"{__name__}.leaf", "sise": 1}}}, "reward")
    with pytest.raises(UserError, match=r"reward\.kind: this setting is missing"):
        check_node({name: value for name, value in node.items() if name != "kind"}, "reward")


def test_run_config_is_saved_whole_and_changed_by_overrides(tmp_path: Path) -> None:
    """Bug: resuming forgets a setting, accepts one that does not exist, or changes the saved dictionary."""
    composed = checked("env.horizon=12")
    run_config.save_run_config(composed, tmp_path / "config.yaml")
    assert run_config.load_run_config(tmp_path) == composed
    changed = run_config.load_run_config(tmp_path, ["trainer.rollouts=3e3", "optimizer.betas=[0.8,0.9]"])
    assert changed["trainer"]["rollouts"] == 3000 and changed["optimizer"]["betas"] == [0.8, 0.9]
    assert composed["trainer"]["rollouts"] != 3000
    for override, part in {
        "trainer.rolouts=3": "did you mean trainer.rollouts?",
        "trainer.rollouts=many": "'many' is not an integer (command line: trainer.rollouts=many)",
        "network=gru": "pretraining.init_from=RUN",
        "+trainer.x=1": "keeps its settings",
        "~trainer.rollouts": "keeps its settings",
        "seed=1,2": "one value",
    }.items():
        with pytest.raises(UserError) as caught:
            run_config.load_run_config(tmp_path, [override])
        assert part in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        run_config.load_run_config(tmp_path / "gone" / "config.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe: [")
    with pytest.raises(UserError, match="cannot be read"):
        run_config.load_run_config(tmp_path)


def test_composing_leaves_a_running_hydra_as_it_was() -> None:
    """Bug: validation inside a job of a sweep takes Hydra away from the jobs that follow."""
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_module("dqnlm.configs", version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        refusal("env.horizon=x")
        assert GlobalHydra.instance().hydra is outer
    assert not GlobalHydra.instance().is_initialized()


def test_options_are_named_by_their_code() -> None:
    """Bug: a message that tells a class, which nobody can type; of several options with the same code any one of them."""
    assert catalogue.option_of("env", "dqnlm.envs.prompted.Prompted") == "translation"
    assert catalogue.option_of("env", "dqnlm.envs.dialogue.Dialogue") == "dialogue"
    assert catalogue.option_of("head", "dqnlm.heads.implicit_quantile.ImplicitQuantile") == "implicit_quantile"
    assert catalogue.option_of("data", "dqnlm.data.pairs.dataset.replies") == "replies"
    assert catalogue.option_of("env", "mine.Env") == "Env"
