"""The command line: dispatch, strictness, sweeps, folders and exit codes. Training itself is replaced by a recorder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dqnlm import cli
from dqnlm.commands.train_arguments import expand, parse
from dqnlm.config import catalogue
from dqnlm.config.run_config import save_run_config
from dqnlm.errors import UserError
from dqnlm.utils import interrupts
from dqnlm.utils.signals import listening_to_signals
from tests.helpers import processes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("train", ...)` in an empty folder -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMP_LINE", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        return (code, *capfd.readouterr())

    return call


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `builder.start` was called with; seed 13 is a mistake, 14 a crash, 15 an interruption, 16 a failed run."""
    import dqnlm.builder.launch

    calls: list[dict[str, Any]] = []

    def start(config: dict[str, Any], directory: Path, *, choices: Any, command_line: list[str]) -> dict[str, Any]:
        calls.append({"config": config, "directory": directory, "choices": choices, "command_line": command_line})
        if config["seed"] == 13:
            raise UserError("env.horizon: 64 tokens are too many for this text")
        if config["seed"] == 14:
            raise ZeroDivisionError("a bug")
        save_run_config(config, directory / "config.yaml")
        (directory / "manifest.json").write_text("{}")
        return {"status": {15: "interrupted", 16: "failed"}.get(config["seed"], "finished")}

    monkeypatch.setattr(dqnlm.builder.launch, "start", start)
    return calls


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_help_and_version(run: Run) -> None:
    """Bug: a command is missing from the help."""
    code, out, err = run("--help")
    assert code == 0 and not err and all(f"  {name} " in out for name in cli.COMMANDS)
    assert run()[1] == out
    assert run("--version")[1].startswith("dqnlm ")
    assert "+experiment=NAME" in run("train", "--help")[1] and "Powered by Hydra" not in run("train", "--help")[1]


def test_help_imports_nothing_heavy() -> None:
    """Bug: help and completion take seconds, because torch, datasets or Hydra are imported."""
    heavy = "{'torch', 'datasets', 'hydra', 'omegaconf', 'numpy', 'rich'}"
    for command in ("--help", "configs"):
        code = f"import sys; from dqnlm.cli import main; main(['{command}']); sys.exit(len({heavy} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_every_command_has_its_module_with_main() -> None:
    """Bug: the table names a module that does not exist."""
    import importlib

    for module, _ in cli.COMMANDS.values():
        assert callable(importlib.import_module(module).main)


def test_unknown_command(run: Run) -> None:
    """Bug: a misspelt command ends in a traceback or in a run."""
    code, out, err = run("trian")
    assert code == 2 and not out and "did you mean dqnlm train?" in err
    assert "type dqnlm train +experiment=x seed=1" in run("+experiment=x", "seed=1")[2]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--experiment", "shakespeare"], "type +experiment=shakespeare"),
        (["--experiment=shakespeare"], "type +experiment=shakespeare"),
        (["--config", "mine.yaml"], "--config-dir DIR"),
        (["--resume", "latest"], "type dqnlm resume latest"),
        (["--resume"], "type dqnlm resume RUN"),
        (["--dry-run"], "--cfg job --resolve"),
        (["--seed", "1"], "seed=1"),
        (["--batch-size=3"], "batch_size=3"),
        (["--multirn"], "did you mean --multirun?"),
        (["--experimental-rerun", "x.pickle"], "manifest.json"),
        (["gru"], "did you mean network=gru?"),
        (["smoke"], "did you mean +debug=smoke?"),
        (["lr", "0.1"], "'lr' is not key=value"),
        (["-m", "--cfg", "job"], "leave out -m"),
        (["--resolve"], "--cfg job --resolve"),
        (["--cfg", "jobs"], "invalid choice"),
        (["--config-dir", "nowhere"], "no such folder"),
        (["--config-path", "nowhere"], "no such folder"),
        (["env.horizn=5"], "did you mean env.horizon?"),
        (["seed=0", "-m", "env.horizn=1,2"], "did you mean env.horizon?"),
        (["-m", "env.horizon=8,abc"], "'abc' is not an integer (command line: env.horizon=abc)"),
        (["-m", "network=gru,transfromer"], "did you mean network=transformer?"),
        (["-m", "optimizer.lr=interval(0,1)"], "list the values"),
        (["-m", "seed=range(0)"], "seed=range(0): a sweep over no value"),
        (["-m", "gamma=0,0.5", "trainer.rollouts=range(5,1)"], "a sweep over no value"),
        (["-m", "gamma=0,2"], "gamma is a discount, between 0 and 1, not 2"),
        (["-m", "trainer.batch_size=32,0", "seed=0,1"], "trainer.batch_size must be at least 1, not 0"),
        (["-m", "evaluation.every=5,0"], "evaluation.every must be"),
        (["-m", "hydra.verbose=true,false"], "cannot change Hydra's own settings"),
        (["--cfg", "job", "env.horizon=abc"], "is not an integer"),
        (["output_dir=/proc/nothing"], "output_dir: cannot make a folder"),
    ],
)
def test_mistakes_end_in_one_message_and_write_nothing(
    run: Run, started: list[Any], tmp_path: Path, arguments: list[str], part: str
) -> None:
    """Bug: a mistake starts a run, leaves files behind, or shows a traceback or Hydra's own words."""
    code, out, err = run("train", *arguments)
    assert code == 2, err
    assert part in err and err.startswith("error: ") and err.count("error:") == 1
    assert not out and "Traceback" not in err and "HYDRA_FULL_ERROR" not in err
    assert not started and not files(tmp_path)


def test_a_run_gets_a_folder_of_its_own_and_the_whole_configuration(
    run: Run, started: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Bug: folder shared, settings lost on the way, paths that depend on the working directory, stray output."""
    (tmp_path / "my.txt").write_text("x")
    code, out, err = run("train", "network=gru", "env.horizon=1e1", "data=text_file", "data.path=my.txt")
    assert (code, out, err) == (0, "", "")
    call = started[0]
    assert call["config"]["env"]["horizon"] == 10 and call["choices"]["network"] == "gru"
    assert call["config"]["data"]["path"] == str(tmp_path / "my.txt")
    assert call["config"]["output_dir"] == str(tmp_path / "outputs")
    assert call["command_line"] == ["dqnlm", "train", "network=gru", "env.horizon=1e1", "data=text_file",
                                    "data.path=my.txt"]  # fmt: skip
    assert call["directory"].parent.parent == tmp_path / "outputs" and call["directory"].name.endswith("-train")
    assert type(call["config"]["env"]) is dict
    run("train", "+debug=smoke")
    assert started[1]["directory"] != call["directory"] and started[1]["directory"].name.endswith("-smoke")
    assert not [name for name in files(tmp_path) if name.endswith(".log")]


def test_folder_named_by_the_user(run: Run, started: list[dict[str, Any]], tmp_path: Path) -> None:
    """Bug: a second run overwrites the first; quotes, commas or spaces in a path break Hydra's grammar."""
    folder = tmp_path / "it's, a run=1"
    quoted = str(folder).replace("'", "\\'")
    assert run("train", f"hydra.run.dir='{quoted}'")[0] == 0
    assert started[0]["directory"] == folder
    code, _, err = run("train", f"hydra.run.dir='{quoted}'")
    assert code == 2 and "already contains a run" in err and len(started) == 1


def test_output_dir_with_any_name(run: Run, started: list[dict[str, Any]], tmp_path: Path) -> None:
    """Bug: an output folder with spaces or quotes is read as several settings."""
    assert run("train", "output_dir=\"a 'b', c\"")[0] == 0
    assert started[0]["directory"].parent.parent == tmp_path / "a 'b', c"


@pytest.mark.parametrize(("seed", "code", "kept"), [(13, 2, False), (14, 1, True), (15, 130, True), (16, 1, True)])
def test_exit_codes_of_a_run(run: Run, started: list[Any], tmp_path: Path, seed: int, code: int, kept: bool) -> None:
    """Bug: a refused run leaves a folder; a crash hides its traceback; the code does not tell what happened."""
    found, _, err = run("train", f"seed={seed}")
    assert found == code and len(started) == 1
    assert ("Traceback" in err) == (seed == 14)
    assert ("error: env.horizon: 64 tokens" in err) == (seed == 13)
    assert bool(files(tmp_path)) == kept


def test_sweep(run: Run, started: list[dict[str, Any]], tmp_path: Path) -> None:
    """Bug: jobs share a folder or a name does not tell them apart; fixed settings clutter the names."""
    code, out, _ = run("train", "env.horizon=12", "-m", "network=gru,window_mlp", "seed=0,1")
    assert code == 0
    assert [call["directory"].name for call in started] == [
        "0-network=gru,seed=0", "1-network=gru,seed=1", "2-network=window_mlp,seed=0", "3-network=window_mlp,seed=1",
    ]  # fmt: skip
    assert len({call["directory"].parent for call in started}) == 1
    assert all(call["config"]["env"]["horizon"] == 12 for call in started)
    assert started[3]["config"]["seed"] == 1 and started[3]["choices"]["network"] == "window_mlp"
    assert "job 3: 3-network=window_mlp,seed=1" in out


SWEEPS = [("13,1", 2, 2), ("14,13,1", 1, 3), ("16,1", 1, 2), ("1,15,2", 130, 2)]


@pytest.mark.parametrize(("seeds", "code", "jobs"), SWEEPS)
def test_sweep_goes_on_after_failed_jobs_but_not_after_an_interruption(
    run: Run, started: list[Any], seeds: str, code: int, jobs: int
) -> None:
    """Bug: one failed job ends the sweep, or is forgotten at its end; Ctrl-C goes on to the next job."""
    found, _, err = run("train", "-m", f"seed={seeds}")
    assert found == code and len(started) == jobs
    failed = sum(seed in ("13", "14", "16") for seed in seeds.split(","))
    assert (f"error: {failed} of {jobs} jobs failed" in err) == (code != 130)


def test_cfg_prints_the_configuration_and_reserves_nothing(run: Run, started: list[Any], tmp_path: Path) -> None:
    """Bug: looking at a configuration makes a folder or starts a run."""
    code, out, _ = run("train", "--cfg", "job", "--resolve", "env.horizon=12")
    assert code == 0 and yaml.safe_load(out)["env"]["horizon"] == 12
    assert run("train", "--cfg", "job", "--package", "env")[1].startswith("# @package env")
    assert not started and not files(tmp_path)


def test_config_dir_reaches_the_job(run: Run, started: list[dict[str, Any]], tmp_path: Path) -> None:
    """Bug: options of the user's own folder pass the check and are unknown in the job, or the manifest forgets them."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\n# own: x\nenv:\n  horizon: 12\n")
    assert run("train", "--config-dir", "mine", "+experiment=own")[0] == 0
    call = started[0]
    assert call["config"]["env"]["horizon"] == 12 and call["directory"].name.endswith("-own")
    assert call["command_line"][2:4] == ["--config-dir", str(tmp_path / "mine")]
    assert "own" in run("configs", "experiment", "--config-dir", "mine")[1]


def test_expand_takes_every_combination_up_to_the_limit() -> None:
    """Bug: the check before a sweep misses jobs, or a large sweep is checked for hours."""
    request = parse(["-m", "seed=range(0,3)", "network=gru,transformer", "env.horizon=8"])
    assert len(expand(request, 64)) == 6 and expand(request, 64)[0] == ["seed=0", "network=gru", "env.horizon=8"]
    assert len(expand(request, 4)) == 4
    assert parse(["a=1", "-m", "b=2"]).overrides == ["a=1", "b=2"]


def test_configs_lists_every_file(run: Run) -> None:
    """Bug: an option that exists is not shown."""
    out = run("configs")[1]
    for path in catalogue.packaged_root().rglob("*.yaml"):
        assert f"\n  {path.stem} " in out or f"/{path.stem} " in out or f"{path.stem}  The root" in out, path
    assert run("configs", "network/gru")[1] == (catalogue.packaged_root() / "network" / "gru.yaml").read_text()
    assert run("configs", "train")[1].startswith("# The root")
    assert run("configs", "netwrk")[0] == 2 and "did you mean network/gru?" in run("configs", "gru")[2]
    assert "did you mean network=gru?" in run("configs", "network/gruu")[2]


def test_info(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bug: the report downloads, makes folders, or cannot be read by a program."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DQNLM_DATA_DIR", raising=False)
    report = json.loads(run("info", "--json")[1])
    assert report["versions"]["torch"] and report["devices"]["cpu"]["cores"] == os.cpu_count()
    assert report["data"]["tiny_shakespeare"] is None and "DQNLM_OFFLINE" in report["data"]["reason"]
    assert report["output"] == report["output"] | {"folder": str(tmp_path / "outputs"), "runs": 0, "writable": True}
    assert not files(tmp_path) and "DQNLM_OFFLINE" not in os.environ
    assert "tiny Shakespeare is not here" in run("info")[1]


def test_completion(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: Hydra's completion script does not know the sub-commands."""
    assert "complete" in run("-sc", "install=bash")[1]
    monkeypatch.setenv("COMP_LINE", "dqnlm r")
    assert run("-sc", "query=bash")[1].split() == ["resume", "rate", "report", "runs"]
    monkeypatch.setenv("COMP_LINE", "dqnlm train network=g")
    assert run("-sc", "query=bash")[1].split() == ["network=gru"]
    monkeypatch.setenv("COMP_LINE", "dqnlm resume x")
    assert run("-sc", "query=bash")[:2] == (0, "")


def test_user_error_interrupt_and_broken_pipe(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: Ctrl-C, or `dqnlm configs | head`, shows a traceback."""
    import dqnlm.commands.configs as command

    monkeypatch.setattr(command, "main", lambda argv: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("configs") == (130, "", "\ninterrupted\n")
    piped = subprocess.run(
        f"{sys.executable} -m dqnlm configs | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert piped.stderr == "" and piped.stdout.count("\n") == 1


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4, 1.0, 2.0])
def test_interrupt_in_the_first_seconds(tmp_path: Path, delay: float) -> None:
    """Bug: Ctrl-C while Hydra or torch is imported shows a traceback, or leaves an empty run behind."""
    code = """
import contextlib, sys
from dqnlm import cli
from dqnlm.utils import interrupts
usual = interrupts.remembering
@contextlib.contextmanager
def announced():
    with usual():
        print("up", flush=True)
        yield
interrupts.remembering = announced
sys.exit(cli.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, "train", "+debug=smoke", "data=bundled", "max_rounds=null", "trainer.rollouts=99999"]
    with processes.started(command, cwd=tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "interrupted" in (out + err).lower()
    runs = {path.parent for path in tmp_path.rglob("config.yaml") if path.parent.name != ".hydra"}
    assert all((run / "manifest.json").exists() for run in runs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_program_was_started_to_ignore_stays_ignored(number: signal.Signals) -> None:
    """Bug: Ctrl-C for the command in the foreground ends a run that a script started in the background."""
    noted: list[int] = []
    usual = signal.signal(number, signal.SIG_IGN)
    try:
        with listening_to_signals(noted.append):
            signal.raise_signal(number)
        assert noted == [] and signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, usual)
    with listening_to_signals(noted.append):
        signal.raise_signal(number)
    assert noted == [number]


def test_an_interrupt_that_becomes_an_error_is_one_still(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: Ctrl-C inside a library that answers with an error of its own is shown as a mistake of the user."""

    def swallowed(arguments: list[str]) -> int:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise UserError("the configuration does not compose")

    monkeypatch.setattr(cli, "_dispatch", swallowed)
    assert cli.main(["train"]) == 130 and "compose" not in capsys.readouterr().err


def test_an_interrupt_that_a_library_swallows_is_not_lost() -> None:
    """Bug: Ctrl-C while something is imported is printed, forgotten, and the run begins."""
    with interrupts.remembering():
        interrupts.raise_if_forgotten()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), listening_to_signals(lambda number: None):
            raise AssertionError("the run began")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupts.remembering():
        interrupts.raise_if_forgotten()  # another program's interrupt is not this one's


@pytest.mark.parametrize("words", [["configs"], ["generate", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lost_output_is_one_message_and_a_code(tmp_path: Path, words: list[str], unbuffered: str) -> None:
    """Bug: a full disk behind stdout ends in a traceback, or in code 0 without a word."""
    (tmp_path / "out").write_text("")
    with (tmp_path / "out").open() as no_output:  # opened for reading alone
        done = subprocess.run(
            [sys.executable, "-m", "dqnlm", *words], stdout=no_output, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: standard output cannot be written: Bad file descriptor")
    assert done.stderr.count("\n") == 1


def test_closed_streams_are_the_null_device() -> None:
    """Bug: `dqnlm chat RUN <&-` or `dqnlm runs >&-` ends in an AttributeError of None."""
    code = "from dqnlm.utils import terminal; terminal.prepare(); print(terminal.read_line()); terminal.flush_output()"
    done = subprocess.run(f'"{sys.executable}" -c "{code}" <&- >&-', shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_words_that_are_no_text_in_the_locale_are_refused(run: Run) -> None:
    """Bug: a name with an accent under LC_ALL=C ends in a UnicodeEncodeError where the run's files are written."""
    code, _, err = run("generate", "d\udcc3\udca9")
    assert code == 2 and err.startswith("error: 'd\\udcc3\\udca9': ") and err.count("\n") == 1
    assert "no runs below" in run("generate", "nothing", "--prompt", "\udcc3")[2]  # bytes may be typed as text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume"], "required: run\n"), (["generate"], "required: run\n"),
        (["generate", "x", "--seed", "99999999999999999999"], "--seed: 99999999999999999999 is beyond the seeds"),
    ],
)  # fmt: skip
def test_what_is_missing_or_too_large_on_a_command_line(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    """Bug: key=value is said to be required, which it is not; a seed of more than 64 bits ends in a traceback."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2 and said in capsys.readouterr().err
