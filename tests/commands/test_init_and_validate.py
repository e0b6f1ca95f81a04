"""An experiment copied into a file of one's own, trained from there, and checked without training."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.commands import init
from dqnlm.config import catalogue
from dqnlm.config.composition import compose
from tests.helpers import pretrained
from tests.helpers import runs as tools
from tests.helpers.slow import mostly_slow

Run = Callable[..., tuple[int, str, str]]
EXPERIMENTS = [name for name, _ in catalogue.options("experiment")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("train", ...)` in an empty folder -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        return (code, *capfd.readouterr())

    return call


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been trained: the arguments of each start."""
    import dqnlm.builder.launch

    calls: list[dict[str, Any]] = []

    def start(config: dict[str, Any], directory: Path, **others: Any) -> dict[str, Any]:
        calls.append({"config": config, "directory": directory} | others)
        return {"status": "finished"}

    monkeypatch.setattr(dqnlm.builder.launch, "start", start)
    return calls


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ---- the copy


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_copy_is_the_same_experiment(name: str, tmp_path: Path) -> None:
    """Bug: a copy with other settings: a default that is relative to the packaged folder, a line that was lost."""
    file = tmp_path / "mine.yaml"
    original = catalogue.read_option("experiment", name)
    file.write_text(init.copied(original, name, "mine.yaml"), encoding="utf-8")
    assert compose(["+experiment=mine"], file)[0] == compose([f"+experiment={name}"])[0]
    copy = file.read_text(encoding="utf-8").splitlines()
    assert copy[0] == "# @package _global_" and copy[1].startswith("# mine: ")
    assert original.splitlines()[2:] == [*copy[2:][2:]], "comments and settings are those of the original"


def test_the_printed_command_trains_the_copy(run: Run, started: list[dict[str, Any]], tmp_path: Path) -> None:
    """Bug: the command that init prints is refused, trains the packaged experiment, or loses what was edited."""
    (tmp_path / "a folder").mkdir()
    for number, typed in enumerate(("my.yaml", "a folder/my own.yaml", "shakespeare.yaml", "v1.2.yaml")):
        code, out, _ = run("init", "shakespeare", typed)
        assert code == 0
        file = tmp_path / typed
        file.write_text(file.read_text().replace("horizon: 64", f"horizon: {32 + number}"))
        command = next(shlex.split(line) for line in out.splitlines() if line.startswith("  dqnlm train"))
        code, _, err = run(*command[1:], "seed=3")
        assert code == 0, err
        assert started[-1]["config"]["env"]["horizon"] == 32 + number and started[-1]["config"]["seed"] == 3
        assert started[-1]["command_line"] == ["dqnlm", "train", str(file), "seed=3"]
        assert started[-1]["choices"]["experiment"] == ("my_shakespeare" if typed == "shakespeare.yaml" else file.stem)
    assert started[0]["directory"].name.endswith("-my")


def test_a_sweep_over_a_file(run: Run, started: list[dict[str, Any]], tmp_path: Path) -> None:
    """Bug: the jobs of a sweep, which Hydra composes anew, do not find the file."""
    run("init", "random_walks", "mine.yaml")
    code, _, err = run("train", "mine.yaml", "-m", "seed=4,5", "hydra/launcher=basic")
    assert code == 0, err
    assert [call["config"]["seed"] for call in started] == [4, 5] or not started, "jobs may run in processes of their own"
    assert sorted(path.name for path in tmp_path.glob("outputs/*/*/*") if path.is_dir()) == ["0-seed=4", "1-seed=5"]


def test_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    """Bug: an edited file is replaced by a fresh copy."""
    (tmp_path / "my.yaml").write_text("mine")
    code, _, err = run("init", "shakespeare", "my.yaml")
    assert code == 2 and "is there already" in err and (tmp_path / "my.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shakespear", "my.yaml"], "did you mean dqnlm init shakespeare?"),
        (["zzz", "my.yaml"], "options: benchmark/nanogpt_cpu, cartpole"),
        (["my.yaml"], "type dqnlm init EXPERIMENT my.yaml"),
        (["shakespeare", "my.txt"], "such as my.yaml"),
        (["shakespeare", "nowhere/my.yaml"], "there is no folder nowhere"),
        (["shakespeare", "folder.yaml"], "is a folder"),
    ],
)
def test_what_init_refuses(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    code, _, err = run("init", *words)
    assert code == 2 and message in err and files(tmp_path) == ["folder.yaml"]


def test_init_lists_the_experiments(run: Run, tmp_path: Path) -> None:
    """Bug: without an experiment it writes something, or lists nothing."""
    code, out, _ = run("init")
    assert code == 0 and all(f"{name} " in out for name in EXPERIMENTS) and files(tmp_path) == []
    assert run("init", "+experiment=maze")[0] == 0 and files(tmp_path) == ["my_maze.yaml"]


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (None, ["train", "mine.yaml"], "there is no such file"),
        (None, ["train", "mine.yml"], "name the file mine.yaml"),
        ("seed: 1\n", ["train", "mine.yaml"], "its first line must be `# @package _global_`"),
        ("# @package _global_\nenv:\n  horizn: 3\n", ["train", "mine.yaml"], "mine.yaml)\n  did you mean env.horizon?"),
        ("# @package _global_\nenv: [\n", ["train", "mine.yaml"], "mine.yaml, line 3"),
        ("# @package _global_\ndefaults:\n  - override /head: scalr\n", ["train", "mine.yaml"], "head=scalar"),
        ("# @package _global_\nseed: \xff\n", ["train", "mine.yaml"], "cannot be read as UTF-8"),
        ("# @package _global_\n", ["train", "mine.yaml", "+experiment=shakespeare"], "leave one of them out"),
        ("# @package _global_\n", ["train", "mine.yaml", "--config-dir", "."], "two places for options"),
        ("# @package _global_\n", ["train", "mine.yaml", "other.yaml"], "a run has one experiment"),
        ("# @package _global_\n+allow_targets: [os]\n", ["train", "mine.yaml"], "allow_targets"),
        ("# @package _global_\nreward:\n  _target_: os.system\n", ["train", "mine.yaml"], "os.system"),
    ],
)  # fmt: skip
def test_files_that_are_refused(
    run: Run, started: list[dict[str, Any]], tmp_path: Path, text: str | None, words: list[str], message: str
) -> None:
    """Bug: a file with a mistake ends in a traceback, in Hydra's words, or in a run without it; or it may run code."""
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text, encoding="latin-1")
    code, _, err = run(*words)
    assert code == 2 and message in err and "Traceback" not in err, err
    assert not started and not (tmp_path / "outputs").exists()


# ---- the check


def small(text: Path, *changes: str) -> list[str]:
    return [word for word in tools.tiny(text, *changes) if not word.startswith("logger=")]


def write_log(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


LOG = ["+experiment=logged", "data.path=log.jsonl", "network.layers=1", "network.width=16", "network.heads=2", "device=cpu"]
ROWS = [{"prompt": f"{i % 7}", "completion": "ab" * (1 + i % 3), "reward": i % 2} for i in range(60)]
MISTAKES = {
    "no file": lambda text: small(text, "data.path=nowhere.txt"),
    "no setting": lambda text: small(text, "env.horizn=3"),
    "a value": lambda text: small(text, "gamma=2"),
    "the metric": lambda text: small(text, "evaluation.best_metric=eval/chrff"),
    "the buffer": lambda text: small(text, "buffer.capacity=8"),
    "the context": lambda text: small(text, "env.transition=free", "env.horizon=64"),
    "the objective": lambda text: small(text, "feedback=all_actions", "env.transition=free"),
    "a short text": lambda text: small(text, "env.horizon=5000", "network.context=5000"),
    "no rows": lambda text: [*LOG[:1], "data.path=empty.jsonl", *LOG[2:]],
    "a bad row": lambda text: [*LOG[:1], "data.path=bad.jsonl", *LOG[2:]],
    "a function": lambda text: small(text, "reward=function", "reward.path=broken.py:score"),
    "no function": lambda text: small(text, "reward=function", "reward.path=rewards.py:scre"),
    "no classifier": lambda text: small(text, "reward=classifier", "reward.name_or_path=./nowhere"),
    "no model": lambda text: [*LOG, "network=pretrained", "network.name_or_path=./nowhere", "~network.layers"],
}


@pytest.mark.parametrize("mistake", mostly_slow(MISTAKES, 3))
def test_validate_says_what_a_run_would_say(run: Run, tmp_path: Path, mistake: str) -> None:
    """Oracle: the message with which training itself refuses. Bug: a mistake that only the run finds, or another message."""
    text = tools.write_text(tmp_path / "text.txt")
    write_log(tmp_path / "empty.jsonl", [])
    write_log(tmp_path / "log.jsonl", ROWS)
    write_log(tmp_path / "bad.jsonl", [*ROWS, '{"prompt": "a", \n'])
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "rewards.py").write_text("def score(prompts, completions, references):\n    return [0.0 for _ in prompts]\n")
    words = MISTAKES[mistake](text)
    before = files(tmp_path)
    code, out, err = run("validate", *words)
    after = [name for name in files(tmp_path) if "__pycache__" not in name]
    assert code == 2 and err.startswith("error: ") and not out and after == before, err
    code, _, said = run("train", *words, "logger=none")
    assert code == 2 and said == err


def test_validate_reads_everything_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """Bug: a valid file is refused, or a folder, a checkpoint or a log is left behind."""
    tools.write_text(tmp_path / "text.txt")
    assert run("init", "shakespeare", "my.yaml")[0] == 0
    before = files(tmp_path)
    code, out, err = run("validate", "my.yaml", "data=text_file", "data.path=text.txt", "device=cpu", "threads=1")
    assert code == 0 and not err and "3,600 tokens to learn from" in out and "normalised" in out
    assert out.splitlines()[-1].startswith("valid; not tried: an update") and files(tmp_path) == before
    write_log(tmp_path / "log.jsonl", ROWS)
    assert run("validate", *LOG)[0] == 0
    assert run("validate", "-m", "seed=1,2")[0] == 2 and run("validate", "--help")[0] == 0


def test_validate_loads_no_weights(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: minutes of loading a model; or its folder is not looked at. Weights that are noise are not read, cut ones are seen."""
    pytest.importorskip("transformers")
    from transformers import AutoModelForCausalLM, PreTrainedModel

    pretrained.write(tmp_path / "model", alphabet="ab0123456")
    write_log(tmp_path / "log.jsonl", ROWS)
    asked = [
        "+experiment=logged", "data.path=log.jsonl", "network=pretrained", "network.name_or_path=./model", "network.context=8",
        "data.tokenizer=./model", "data.end_token=false", "device=cpu", "threads=1",
    ]  # fmt: skip
    rewarded = [*LOG, "reward=causal_model", "reward.name_or_path=./model", "reward.max_tokens=8"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    for kind in (AutoModelForCausalLM, PreTrainedModel):
        monkeypatch.setattr(kind, "from_pretrained", refuse)
    code, out, err = run("validate", *asked)
    assert code == 0, err
    assert "gpt2 in" in out and "the model's weights" in out.splitlines()[-1]
    code, _, err = run("validate", *rewarded)
    assert code == 0, err
    code, _, err = run("validate", *asked, "network.context=64")
    assert code == 2 and "set network.context=11" in err
    weights = shutil.copytree(tmp_path / "model", tmp_path / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for words in (asked, rewarded):
        code, _, err = run("validate", *(word.replace("./model", "./cut") for word in words))
        assert code == 2 and "was cut off" in err, err
