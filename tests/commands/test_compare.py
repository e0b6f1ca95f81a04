"""`dqnlm compare`: real runs of seconds, runs that fail, runs that are read again, and the tables' numbers.

Where a test is not about training, a recorder stands in for it (`Recorder`), as in test_cli.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.commands.compare_plan import Job, Plan, Task, make_plan, parse_task, sweeps
from dqnlm.commands.compare_sweeps import Comparison
from dqnlm.config.run_config import save_run_config
from dqnlm.errors import UserError
from dqnlm.reporting.comparison import Result, make_cells, read_result
from dqnlm.reporting.tables import figure_text
from dqnlm.runs.directory import list_runs
from dqnlm.utils.redirection import printing_to

Run = Callable[..., tuple[int, str, str]]
ONE = shlex.split("--tasks debug/smoke --algorithms dqn")
TWO = shlex.split("--tasks debug/smoke --algorithms dqn,double_dqn")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run("--tasks", ...)` in an empty folder -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["compare", *arguments])
        return (code, *capfd.readouterr())

    return call


class Recorder:
    """Stands in for training: writes what a run leaves, of 2 seconds; its return is its seed unless `returns` has it."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str, int]] = []  # experiment, algorithm, seed
        self.fails: dict[int, BaseException | str] = {}  # seed -> what is raised, or another status than finished
        self.returns: dict[int, float] = {}

    def __call__(
        self, config: dict[str, Any], directory: Path, *, choices: dict[str, Any], command_line: list[str]
    ) -> dict[str, Any]:
        seed = config["seed"]
        self.started.append((choices["experiment"], choices["algorithm"], seed))
        print("a panel of the run")
        ending = self.fails.get(seed, "finished")
        if isinstance(ending, BaseException):
            raise ending
        save_run_config(config, directory / "config.yaml")
        (directory / "manifest.json").write_text(json.dumps({"choices": choices, "seed": seed}))
        return leave_summary(directory, self.returns.get(seed, float(seed)), ending)


def leave_summary(run: Path, value: float, status: str = "finished") -> dict[str, Any]:
    """Of 2 seconds; the best return is one more than the last."""
    best = {"eval/return": value + 1}
    summary = {"status": status, "last": {"eval/return": value}, "best": best, "totals": {"wall_s": 2.0}}
    run.mkdir(parents=True, exist_ok=True)
    (run / "summary.json").write_text(json.dumps(summary))
    return summary


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr("dqnlm.builder.launch.start", made)
    return made


def rows(text: str) -> list[list[str]]:
    """Cells of all Markdown tables, without their heads."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [line for line in cells if line[0] != "algorithm" and not line[0].startswith("---")]


def test_two_presets_are_trained_and_read_again(run: Run, tmp_path: Path) -> None:
    """Bug: the wrong run or figure is read, a run prints over the tables, or a finished one is trained again."""
    options = [*TWO, "--seeds", "0", "trainer.rollouts=2", "data.characters=20000", "--output-dir", "out", "--reuse"]
    code, out, err = run(*options, "--png", "a.png", "--markdown", "a.md", "--csv", "a.csv", "--json", "a.json")
    assert code == 0 and out.startswith("\ndebug/smoke\nalgorithm") and "NOT SHAKESPEARE" not in out + err
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    runs = {
        json.loads((r / "manifest.json").read_text())["choices"]["algorithm"]: r for r in list_runs("out/debug-smoke")
    }
    for name, row, line in zip(("dqn", "double_dqn"), rows(Path("a.md").read_text()), csv_rows("a.csv"), strict=True):
        summary = json.loads((runs[name] / "summary.json").read_text())
        value, wall_s = summary["last"]["eval/return"], summary["totals"]["wall_s"]
        shown = figure_text(value)
        assert row == [name, "1", shown, shown, "-", f"{wall_s:.1f} s", shown]
        assert (line["algorithm"], float(line["value"]), line["run"]) == (name, value, str(tmp_path / runs[name]))
        assert f"{name}, seed 0: trained, eval/return {shown}, {wall_s:.1f} s\n" in err
    recorded = json.loads(Path("a.json").read_text())
    assert [cell["finished"] for cell in recorded["comparison"]] == [1, 1] and len(recorded["runs"]) == 2
    (log,) = Path("out").rglob("sweep.log")
    assert "NOT SHAKESPEARE" in log.read_text()
    code, again, err = run(*options)
    assert (code, again) == (0, out) and err.count(": read, ") == 2 and len(list_runs("out/debug-smoke")) == 2


def csv_rows(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_only_runs_of_other_settings_are_trained_again(run: Run, recorder: Recorder) -> None:
    """Bug: a run of other settings is taken for this one, or one that is finished is trained again."""
    Path("text.txt").write_text("words and words")
    own = ["data=text_file", "data.path=text.txt"]  # a run keeps the path whole
    assert run(*ONE, *own, "--seeds", "1")[0] == 0
    recorder.started.clear()
    assert run(*ONE, *own, "--seeds", "1,2", "--reuse")[0] == 0
    assert recorder.started == [("debug/smoke", "dqn", 2)]
    recorder.started.clear()
    code, _, err = run(*ONE, *own, "--seeds", "1", "--reuse", "gamma=0.25")
    assert code == 0 and len(recorder.started) == 1
    assert "debug/smoke, dqn, seed 1: trained again, as gamma differ from the finished run" in err


@pytest.mark.slow
def test_without_reuse_the_new_runs_are_read(run: Run, recorder: Recorder) -> None:
    """Bug: an older run of the same folder is taken for the new one. The best return is one more than the last."""
    for value in (5.0, 7.0):
        recorder.returns = {1: value}
        out = run(*ONE, "--seeds", "1")[1]
        assert out.count(f" {value:.4f}") == 3  # mean, interquartile mean and the run itself
    assert "8.0000" in run(*ONE, "--seeds", "1", "--at", "best", "--reuse")[1]


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_go_on(run: Run, recorder: Recorder) -> None:
    """Bug: one failure ends hours of runs, its reason is lost, it counts as a value, or the exit code says that all is well.

    Values 1 and 2 have mean 1.5; the ends of their interval are the values.
    """
    recorder.fails = {7: UserError("no data\n  fetch it"), 8: ZeroDivisionError("a bug"), 9: "failed"}
    code, _, err = run(*ONE, "--seeds", "7,1,8,2,9", "--markdown", "a.md")
    assert code == 1 and len(recorder.started) == 5
    assert rows(Path("a.md").read_text()) == [
        ["dqn", "2 of 5", "1.5000", "1.5000", "1.0000 to 2.0000", "2.0 s", "-, 1.0000, -, 2.0000, -"]
    ]
    assert "Traceback" not in err and "error: 3 of 5 runs failed" in err
    for seed, told in ((7, "no data"), (8, "ZeroDivisionError: a bug"), (9, "status failed")):
        assert f"\n  debug/smoke, dqn, seed {seed}: {told}\n" in err
        assert f"- debug/smoke, dqn, seed {seed}: {told}\n" in Path("a.md").read_text()
    (log,) = Path("outputs").rglob("sweep.log")
    assert log.read_text().count("Traceback") == 1


def test_a_job_that_leaves_nothing_is_a_failure(run: Run, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a process that a launcher lost (killed for memory) makes a KeyError, or is left out of the count."""

    def lost(*_: Any) -> int:
        print("Killed by the kernel", file=sys.stderr)
        return 1

    monkeypatch.setattr("dqnlm.commands.compare_sweeps.run_sweep", lost)
    code, _, err = run(*ONE, "--seeds", "1")
    assert code == 1 and err.count("it did not end as a run does") == 2 and '"Killed by the kernel"' in err


@pytest.mark.slow
def test_ctrl_c_ends_it_and_leaves_what_finished(run: Run, recorder: Recorder) -> None:
    """Bug: Ctrl-C goes on to the next run or the next task, or what was finished is trained again afterwards."""
    tasks = ["--tasks", "a=debug/smoke", "b=debug/smoke", "--algorithms", "dqn", "--seeds", "1,2"]
    recorder.fails = {2: "interrupted"}
    code, out, err = run(*tasks)
    assert code == 130 and not out and "--reuse" in err and [seed for *_, seed in recorder.started] == [1, 2]
    assert "1/4  a, dqn, seed 1: trained" in err
    recorder.started, recorder.fails = [], {2: KeyboardInterrupt()}
    assert run(*tasks, "--reuse")[0] == 130 and [seed for *_, seed in recorder.started] == [2]
    recorder.started, recorder.fails = [], {}
    code, out, err = run(*tasks, "--reuse")
    assert code == 0 and [seed for *_, seed in recorder.started] == [2, 1, 2] and err.count(": read, ") == 1


@pytest.mark.parametrize(
    ("value", "status", "metric", "told"),
    [
        (float("nan"), "finished", "eval/return", "eval/return is nan"),
        (1.0, "interrupted", "eval/return", "the run is not finished: interrupted"),
        (1.0, "finished", "eval/nll", "no metric eval/nll in its last evaluation"),
    ],
)
def test_what_is_no_result(tmp_path: Path, value: float, status: str, metric: str, told: str) -> None:
    """Bug: a diverged, interrupted or unmeasured run becomes a number in a mean."""
    leave_summary(tmp_path, value, status)
    result = read_result(Result("t", "t", "dqn", 0), tmp_path, metric, "last")
    assert result.error == told and result.value != result.value


def test_a_metric_that_no_run_has(run: Run, recorder: Recorder) -> None:
    """Bug: a misspelt figure looks as if every run had failed."""
    code, out, err = run(*ONE, "--seeds", "1", "--metric", "eval/retrun")
    assert code == 2 and not out and "did you mean eval/return?" in err and "--reuse" in err


def test_tasks_and_overrides(tmp_path: Path) -> None:
    """Bug: a list is cut at its comma, or a task's settings reach another task or lose against the common ones."""
    assert parse_task("cartpole") == Task("cartpole", "cartpole")
    assert parse_task("g2=random_walks,env.graph_seed=2,objective=[td,cql],data.best=1") == Task(
        "g2", "random_walks", ("env.graph_seed=2", "objective=[td,cql]", "data.best=1")
    )
    plan = make_plan(["a=x,k=1", "b=y"], "dqn", "7", ["k=0", "logger=tensorboard"], tmp_path, None)
    first, second = (plan.request(task, ["dqn", "cql"], [7, 8]) for task in plan.tasks)
    common = ["algorithm=dqn,cql", "seed=7,8", "threads=1", "logger=tensorboard", "progress=false"]
    assert first.multirun and first.overrides == ["+experiment=x", *common, "k=1", f"output_dir='{tmp_path / 'a'}'"]
    assert second.overrides == ["+experiment=y", *common, "k=0", f"output_dir='{tmp_path / 'b'}'"]


def test_what_is_missing_makes_as_few_sweeps_as_it_can() -> None:
    """Bug: a sweep of all combinations trains runs that are there, or each missing run is a sweep of its own."""
    a, b = Task("a", "a"), Task("b", "b")
    missing = [
        Job(a, "dqn", 1),
        Job(a, "cql", 0),
        Job(a, "cql", 1),
        Job(a, "c51", 0),
        Job(a, "c51", 1),
        Job(b, "dqn", 1),
    ]
    assert sweeps(missing) == [(a, ["dqn"], [1]), (a, ["cql", "c51"], [0, 1]), (b, ["dqn"], [1])]
    assert sweeps(Plan((a, b), ("dqn", "cql"), (0, 1), (), Path("x")).jobs()) == [
        (a, ["dqn", "cql"], [0, 1]), (b, ["dqn", "cql"], [0, 1]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("further", "told"),
    [
        (["--tasks", "debug/smoke,k=1", "debug/smoke,k=2"], "debug-smoke is named twice"),
        (["--tasks", "x,y"], "EXPERIMENT"),
        (["--tasks", "cartpol"], "did you mean cartpole?"),
        (["--tasks", "cartpole", "env.horizon=2"], "for a setting of all runs, type env.horizon=2"),
        (["--algorithms", "double_dqnn"], "did you mean algorithm=double_dqn?"),
        (["--algorithms", ","], "nothing is named"),
        (["--seeds", "0-2"], "whole numbers"),
        (["--seeds", "0,1,0"], "0 is named twice"),
        (["learner.gama=0.5"], "did you mean gamma?"),
        (["env.horizon=8,16"], "--tasks a=EXPERIMENT,env.horizon=VALUE"),
        (["seed=3"], "give it with --seeds"),
        (["hydra.sweep.dir=x"], "below --output-dir"),
        (["hydra/launcher=jobblib"], "hydra/launcher"),
        (["--png", "no/such/folder/a.png"], "there is no folder no/such/folder"),
        (["--json", "."], "is a folder"),
    ],
)
def test_mistakes_end_before_anything_is_trained(
    run: Run, recorder: Recorder, tmp_path: Path, further: list[str], told: str
) -> None:
    """Bug: found after the training, or shown as a traceback; nothing may be written."""
    usual = {"--tasks": "debug/smoke", "--algorithms": "dqn"}
    given = [word for flag in usual if flag not in further for word in (flag, usual[flag])]
    code, out, err = run(*further, *given)
    assert code == 2 and not out and err.startswith("error: ") and told in err and "Traceback" not in err
    assert not recorder.started and not list(tmp_path.iterdir())


def test_the_examples_of_the_help_work_as_typed(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bug: an example with a preset, an experiment or a flag that is no more. All is composed, nothing trained."""
    counts: list[int] = []

    def results(comparison: Comparison, reuse: bool) -> list[Result]:
        jobs = comparison.plan.jobs()
        counts.append(len(jobs))
        return [dataclasses.replace(job.blank(), value=float(job.seed)) for job in jobs]

    monkeypatch.setattr(Comparison, "run", results)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["compare", "--help"])
    examples = [line for line in capfd.readouterr().out.splitlines() if line.startswith("  dqnlm compare --")]
    for example in examples:
        assert run(*shlex.split(example, comments=True)[2:])[0] == 0, example
    assert counts == [3 * 3, 2 * 2 * 5, 2 * 2 * 3, 2 * 2, 2 * 2]
    assert Path("comparison.png").exists() and len(csv_rows("runs.csv")) == 4


def test_tasks_of_one_experiment_are_also_taken_together() -> None:
    """Bug: figures of different scale are averaged, or a task with one seed makes an interval that ignores it.

    Task g1 has 0, 0, 0, 0 and g2 has 4, 4, 4, 4: the middle half of all 8 is 0, 0, 4, 4, of mean 2, in each stratified
    resample. With one value of g2 alone the mean is 4 / 5, and of 0, 0, 0, 0, 4 one is left out at each end: 0.
    """

    def cells(experiments: tuple[str, str], seeds: int) -> list[Any]:
        tasks = zip(("g1", "g2"), experiments, (0.0, 4.0), (4, seeds), strict=True)
        return make_cells([Result(t, e, "dqn", seed, value) for t, e, value, n in tasks for seed in range(n)])

    whole = cells(("walks", "walks"), 4)
    assert [cell.task for cell in whole] == ["g1", "g2", "all tasks"]
    assert (whole[2].mean, whole[2].iqm, whole[2].interval) == (2.0, 2.0, (2.0, 2.0))
    (*_, part) = cells(("walks", "walks"), 1)
    assert (part.mean, part.iqm, part.interval) == (0.8, 0.0, None)
    assert [cell.task for cell in cells(("walks", "cartpole"), 4)] == ["g1", "g2"]


def test_what_children_print_goes_to_the_file_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: runs in processes of a launcher print over the progress; or the terminal stays silent afterwards."""
    with pytest.raises(ZeroDivisionError), printing_to(tmp_path / "log") as shown:
        print("own")
        subprocess.run([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], check=True)
        print("progress", file=shown)
        raise ZeroDivisionError
    print("after")
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out", "own"]
    assert capfd.readouterr() == ("after\n", "progress\n")


@pytest.mark.slow
def test_a_launcher_with_processes(run: Run) -> None:
    """Bug: runs of a launcher of Hydra are not found, since they end in other processes and in any order."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.rollouts=1", "data.characters=20000"]
    code, out, err = run(*TWO, "--seeds", "0", *launcher)
    assert code == 0 and err.count(": trained, ") == 2 and out.startswith("\ndebug/smoke\nalgorithm")
