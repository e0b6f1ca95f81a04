"""Every form of a sweep times every setting of Hydra's that the commands touch: obeyed, or refused with one message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dqnlm import cli
from dqnlm.commands.train_arguments import expand, parse
from dqnlm.config.run_config import save_run_config
from tests.helpers.slow import mostly_slow

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been trained."""
    import dqnlm.builder.launch

    calls: list[dict[str, Any]] = []

    def start(config: dict[str, Any], directory: Path, *, choices: Any, command_line: list[str]) -> dict[str, Any]:
        calls.append({"config": config, "directory": directory, "command_line": command_line})
        save_run_config(config, directory / "config.yaml")
        (directory / "manifest.json").write_text("{}")
        (directory / "summary.json").write_text('{"status": "finished"}')
        return {"status": "finished"}

    monkeypatch.setattr(dqnlm.builder.launch, "start", start)
    return calls


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """A command in an empty folder; it ends with 0, or with one message and nothing else."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main(["train", *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err and "HYDRA_FULL_ERROR" not in err, err
        assert code in (0, 2) and (code == 0 or err.count("error: ") == 1), err
        return code, out, err

    return call


def mine(tmp_path: Path, node: dict[str, Any]) -> list[str]:
    """Words that choose an experiment of one's own with this node `hydra`."""
    path = tmp_path / "options" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# @package _global_\n# An experiment with settings of Hydra's\n" + yaml.safe_dump({"hydra": node}))
    return ["--config-dir", str(tmp_path / "options"), "+experiment=mine"]


# A form of a sweep -> the values of the key; None: it is refused.
FORMS: dict[str, tuple[str, list[str] | None]] = {
    "list": ("seed=0,1", ["0", "1"]),
    "glob": ("exploration=glob(*greedy)", ["epsilon_greedy", "greedy"]),
    "glob without": ("exploration=glob([e*,g*],exclude=e*)", ["greedy"]),
    "range": ("seed=range(0,2)", ["0", "1"]),
    "choice": ("seed=choice(1,0)", ["1", "0"]),
    "sort": ("seed=sort(1,0)", ["0", "1"]),
    "shuffle": ("seed=shuffle(0,1,2)", ["0", "1", "2"]),
    "shuffled range": ("seed=shuffle(range(0,3))", ["0", "1", "2"]),
    "tag": ("seed=tag(a,choice(0,1))", ["0", "1"]),
    "interval": ("optimizer.lr=interval(0.1,0.2)", None),
    "glob of a setting": ("seed=glob(*)", None),
    "glob of nothing": ("exploration=glob(x*)", None),
}
# A setting of Hydra's in a sweep -> what its message says; "": obeyed.
SETTINGS: dict[str, str] = {
    "hydra.sweep.dir=mine": "",
    "+hydra.sweep.dir=mine": "without a plus",
    "++hydra.sweep.dir='my, own'": "",
    "hydra.sweep.dir=${output_dir}/all": "",
    "hydra.sweep.dir=": "is empty",
    "hydra.sweep.dir=a,b": "a sweep cannot change Hydra's own settings",
    "~hydra.sweep.dir": "does not support deletion",
    "hydra.sweep.subdir=same": "does not give each job a folder of its own",
    "hydra.sweep.subdir=x-${hydra.job.num}": "does not give each job a folder of its own",
    "hydra.sweep.subdir=${hydra.job.override_dirname}": "does not give each job a folder of its own",
    "hydra.sweep.subdir=${hydra.job.num}/x": "does not give each job a folder of its own",
    "hydra.sweep.subdir=${hydra.job.num}-a/b": "folders within folders",
    "hydra.sweep.subdir=${hydra.job.num}": "",
    "hydra.sweep.subdir=${hydra.job.num}-mine": "",
    "hydra.sweep.subdir=null": "not Optional",
    "hydra.run.dir=mine": "a sweep has a folder for all its jobs",
    "hydra.run={dir: mine}": "a sweep has a folder for all its jobs",
    "hydra.job.name=mine": "",
    "hydra.job.chdir=true": "",
    "hydra.job.config.override_dirname.kv_sep=-": "",
    "hydra.job.config.override_dirname.exclude_keys=[seed]": "",
    "hydra.output_subdir=null": "hydra.output_subdir=null",
    "hydra.output_subdir=other": "hydra.output_subdir=other",
    "+hydra.sweeper.params.gamma='0.1,0.2'": "this is for files",
    "hydra.sweeper.params={gamma: 0.1}": "this is for files",
    "hydra.sweeper.params.gamma=0.1": "this is for files",
    "+hydra.sweeper.params.gamma=0.1,0.2": "a sweep cannot change Hydra's own settings",
    "hydra.sweeper.max_batch_size=1": "",
    "hydra.sweeper.max_batch_size=0": "must be 1 or more",
    "hydra.sweeper.max_batch_size=-1": "must be 1 or more",
    "hydra/launcher=basic": "",
    "hydra/launcher=nothing": "hydra/launcher",
    "hydra.launcher.n_jobs=2": "hydra.launcher.n_jobs",
    "hydra.mode=MULTIRUN": "",
    "hydra.mode=RUN": "hydra.mode=RUN",
    "hydra.mode=other": "hydra.mode",
    "hydra.verbose=false": "",
    "hydra.nothing=1": "hydra.nothing",
    "hydra.searchpath=[file:///tmp]": "--config-dir",
}


@pytest.mark.parametrize("form", mostly_slow(FORMS, 4))
def test_every_form_of_a_sweep(run: Run, started: list[dict[str, Any]], form: str) -> None:
    """Bug: a form that ends in a traceback, or whose jobs are not those that it lists."""
    word, values = FORMS[form]
    code, _, err = run("-m", word)
    if values is None:
        assert code == 2 and not started and word in err
        return
    assert code == 0, err
    key = word.split("=")[0]
    typed = [dict(text.split("=", 1) for text in call["command_line"][2:])[key] for call in started]
    assert sorted(typed) == sorted(values) if "shuffle" in form else typed == values
    assert [call["directory"].name for call in started] == [f"{i}-{key}={value}" for i, value in enumerate(typed)]
    sweep = started[0]["directory"].parent
    code, _, err = run("-m", word, f"hydra.sweep.dir={sweep}")
    assert code == 0 and len(started) == len(values), "a shuffled sweep goes on in the order that it had"


# Every form in one sweep of four jobs: all but the first two have one value.
ALL_FORMS = [
    "seed=1,2", "trainer.rollouts=shuffle(3,4)", "exploration=glob([e*,g*],exclude=e*)", "env.horizon=range(8,9)",
    "optimizer.lr=choice(0.1)",
    "gamma=sort(0.5)", "env.num_envs=tag(a,choice(4))",
]  # fmt: skip


@pytest.mark.parametrize("setting", mostly_slow(SETTINGS, 6))
def test_every_setting_of_hydra_beside_every_form_of_a_sweep(run: Run, started: list[dict[str, Any]], setting: str) -> None:
    """Bug: a traceback, a setting that does nothing, or jobs that share a folder."""
    message = SETTINGS[setting]
    code, _, err = run("-m", *ALL_FORMS, setting)
    if message:
        assert code == 2 and message in err and not started, err
        return
    assert code == 0, err
    folders = [call["directory"] for call in started]
    assert len(started) == len(set(folders)) == 4 and len({folder.parent for folder in folders}) == 1
    configs = [call["config"] for call in started]
    assert sorted((config["seed"], config["trainer"]["rollouts"]) for config in configs) == [(1, 3), (1, 4), (2, 3), (2, 4)]
    for config in configs:
        env = config["env"]
        assert (env["horizon"], env["num_envs"], config["optimizer"]["lr"], config["gamma"]) == (8, 4, 0.1, 0.5)
        assert config["exploration"]["_target_"].endswith("Greedy")
    assert all(folder.name.split("-")[0] == str(number) for number, folder in enumerate(folders))
    if setting.endswith(("dir=mine", "own'", "/all")):
        name = {"e": "mine", "'": "my, own", "l": "outputs/all"}[setting[-1]]
        assert folders[0].parent == Path(name).absolute()


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_of_hydra_beside_an_interval(run: Run, started: list[dict[str, Any]], setting: str) -> None:
    """Bug: a traceback, or jobs, where the one form is typed that a sweep of lists cannot run."""
    code, _, err = run("-m", "optimizer.lr=interval(0.1,0.2)", setting)
    assert code == 2 and not started and ("interval" in err or (SETTINGS[setting] and SETTINGS[setting] in err)), err


@pytest.mark.parametrize("form", [form for form, (_, values) in FORMS.items() if values is not None])
def test_every_form_of_a_sweep_of_hydras_settings(run: Run, started: list[dict[str, Any]], form: str) -> None:
    """Bug: a setting of Hydra's is swept over, so that the jobs overwrite one another, or a traceback."""
    values = FORMS[form][0].partition("=")[2]
    for key in ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper.max_batch_size", "hydra.job.name", "hydra.run.dir"):
        code, _, err = run("-m", f"{key}={values}")
        assert code == 2 and not started and key in err, f"{key}: {err}"


# The same settings in the file of an experiment: (node, words) -> message; "": obeyed.
FILES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "the folder of a run": ({"run": {"dir": "mine"}}, [], ""),
    "the folder of a run, by a setting": ({"run": {"dir": "${output_dir}/seed-${seed}"}}, ["seed=3"], ""),
    "the folder of a run, by the time": ({"run": {"dir": "runs/${now:%Y}"}}, [], ""),
    "no folder of a run": ({"run": {"dir": None}}, [], "hydra.run.dir"),
    "an empty folder of a run": ({"run": {"dir": " "}}, [], "hydra.run.dir is empty"),
    "a folder that is nowhere": ({"run": {"dir": "${nothing}/x"}}, [], "nothing"),
    "the folder of a run, of a sweep": ({"run": {"dir": "mine"}}, ["-m", "seed=0,1"], ""),
    "the folder of a sweep": ({"sweep": {"dir": "mine"}}, ["-m", "seed=0,1"], ""),
    "the folder of a sweep, of a run": ({"sweep": {"dir": "mine"}}, [], ""),
    "one folder for all jobs": ({"sweep": {"subdir": "same"}}, ["-m", "seed=0,1"], "a folder of its own"),
    "one folder for all jobs, of a run": ({"sweep": {"subdir": "same"}}, [], ""),
    "what is swept over": ({"sweeper": {"params": {"seed": "range(0,2)"}}}, ["-m"], ""),
    "what is swept over, and typed": ({"sweeper": {"params": {"seed": "0,1,2"}}}, ["-m", "seed=0,1"], ""),
    "what is swept over, shuffled": ({"sweeper": {"params": {"seed": "shuffle(0,1)"}}}, ["-m"], ""),
    "what is swept over, wrongly": ({"sweeper": {"params": {"env.horizn": "1,2"}}}, ["-m"], "did you mean env.horizon"),
    "what is swept over, of Hydra": ({"sweeper": {"params": {"hydra.verbose": "true,false"}}}, ["-m"], "Hydra's own settings"),
    "a sweep without -m": ({"mode": "MULTIRUN"}, ["seed=0,1"], "-m"),
    "a sweep of a file": ({"mode": "MULTIRUN", "sweeper": {"params": {"seed": "0,1"}}}, [], ""),
    "a run of a file": ({"mode": "RUN"}, ["-m", "seed=0,1"], "hydra.mode=RUN"),
    "no records": ({"output_subdir": None}, ["-m", "seed=0,1"], "hydra.output_subdir=null"),
    "no records of a run": ({"output_subdir": None}, [], ""),
    "a folder to run in": ({"job": {"chdir": True}}, ["-m", "seed=0,1"], ""),
    "a setting that is none": ({"nothing": 1}, [], "hydra"),
    "a search path": ({"searchpath": ["file:///tmp"]}, [], "searchpath"),
    "code to call": ({"callbacks": {"x": {"_target_": "os.system"}}}, [], "hydra.callbacks"),
    "a launcher that is none": ({"launcher": {"n_jobs": 3}}, ["-m", "seed=0,1"], "n_jobs"),
}


@pytest.mark.parametrize("name", mostly_slow(FILES, 3))
def test_settings_of_hydra_in_a_file(run: Run, started: list[dict[str, Any]], tmp_path: Path, name: str) -> None:
    """Bug: hydra.run.dir of an experiment is ignored in silence; a file makes a sweep whose jobs share a folder."""
    node, words, message = FILES[name]
    code, _, err = run(*mine(tmp_path, node), *words)
    if message:
        assert code == 2 and message in err and not started, err
        return
    assert code == 0, err
    sweeping = "-m" in words or node.get("mode") == "MULTIRUN"
    folders = [call["directory"] for call in started]
    assert len(set(folders)) == len(folders) == (2 if sweeping else 1)
    if sweeping:
        assert {call["config"]["seed"] for call in started} == {0, 1}
        named = node.get("sweep", {}).get("dir")
        assert folders[0].parent == tmp_path / "mine" if named else folders[0].parents[2] == tmp_path / "outputs"
        swept = [f"{key}={value}" for key, value in node.get("sweeper", {}).get("params", {}).items()]
        assert json.loads((folders[0].parent / "sweep.json").read_text())["params"] == swept
    elif node.get("run", {}).get("dir"):
        inner = folders[0].relative_to(tmp_path).as_posix()
        assert inner in ("mine", "outputs/seed-3") or inner.startswith("runs/20")
        code, _, err = run(*mine(tmp_path, node), *words)
        assert code == 2 and "already contains a run" in err
    else:
        assert folders[0].parents[1] == tmp_path / "outputs"


ALONE = {
    "hydra.run.dir=mine": "", "+hydra.run.dir=mine": "without a plus", "++hydra.run.dir=mine": "", "hydra.run={dir: mine}": "",
    "hydra.run.dir=": "is empty", "hydra.run.dir=null": "not Optional", "~hydra.run.dir": "not support deletion",
    "hydra.run.dir=a,b": "hydra.run.dir",
    "hydra.sweep.dir=mine": "add -m", "hydra.sweep.subdir=x": "add -m", "hydra.sweeper.max_batch_size=2": "add -m",
    "hydra/launcher=basic": "add -m", "hydra/sweeper=basic": "add -m", "seed=0,1": "-m", "seed=range(0,2)": "-m",
    "seed=choice(0,1)": "-m", "exploration=glob(*)": "-m", "seed=shuffle(0,1)": "-m", "optimizer.lr=interval(0,1)": "-m",
    "hydra.output_subdir=null": "", "hydra.job.name=mine": "", "hydra.job.chdir=true": "", "hydra.mode=RUN": "",
    "hydra.job.num=3": "", "hydra.verbose=false": "", "hydra.nothing=1": "hydra.nothing",
}  # fmt: skip


@pytest.mark.parametrize("setting", ALONE)
def test_every_setting_of_hydra_in_a_run(run: Run, started: list[dict[str, Any]], tmp_path: Path, setting: str) -> None:
    """Bug: a setting of sweeps that one run takes in silence, a folder named None, a sweep without -m in a traceback."""
    code, _, err = run(setting)
    if ALONE[setting]:
        assert code == 2 and ALONE[setting] in err and not started, err
        return
    assert code == 0, err
    (call,) = started
    if "mine" in setting and "run" in setting:
        assert call["directory"] == tmp_path / "mine"
    else:
        assert call["directory"].parents[1] == tmp_path / "outputs"


def test_the_last_of_several_values_counts(run: Run, started: list[dict[str, Any]]) -> None:
    """Bug: the jobs that are checked and counted are others than those that run."""
    words = ["-m", "seed=0,1", "gamma=0.1", "seed=5"]
    assert expand(parse(words), 9) == [["seed=5", "gamma=0.1"]]
    assert run(*words)[0] == 0
    assert [(call["config"]["seed"], call["config"]["gamma"]) for call in started] == [(5, 0.1)]


def test_a_comparison_lays_out_its_own_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Bug: an experiment that sweeps, or puts all jobs in one folder, mixes up the jobs of a comparison."""
    monkeypatch.chdir(tmp_path)
    for node, message in [
        ({"sweeper": {"params": {"seed": "0,1"}}}, "compare lays out its own jobs"), ({"sweep": {"subdir": "x"}}, "subdir"),
        ({"output_subdir": None}, "output_subdir"), ({"mode": "RUN"}, "hydra.mode=RUN"),
    ]:  # fmt: skip
        flags = mine(tmp_path, node)[:2]
        code = cli.main(["compare", *flags, "--tasks", "mine", "--algorithms", "dqn", "--seeds", "0,1"])
        err = capfd.readouterr().err
        assert code == 2 and message in err and "Traceback" not in err, err
