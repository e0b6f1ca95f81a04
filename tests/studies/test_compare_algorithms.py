"""Comparison of presets: real runs of seconds, runs that fail, runs that are read again, and the tables' numbers."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dqnlm import cli
from dqnlm.reporting.tables import figure_text
from dqnlm.runs.directory import list_runs
from studies import compare_algorithms, compare_tables


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return compare_algorithms


class Ended:
    """A process that has ended."""

    def __init__(self, code: int) -> None:
        self.code, self.terminated = code, False

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.terminated = True

    def wait(self) -> int:
        return self.code


def train_here(job: Any) -> Ended:
    """As `launch`, in this process."""
    said = (job.folder / "stderr.log").open("w")
    with said, contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        return Ended(cli.main(["train", *job.arguments]))


def leave(folder: Path, value: float = 1.5, status: str = "finished", name: str = "00-00-00-x", **figures: Any) -> Path:
    """A run's folder with no more than a summary; 2 seconds of training."""
    run = folder / "2026-01-01" / name
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    last = {"eval/return": value, **figures}
    summary = {"status": status, "last": last, "best": {"eval/return": value + 1}, "totals": {"wall_s": 2.0}}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def leave_run(job: Any) -> Ended:
    """A process that trained in no time; its return is its seed."""
    leave(job.folder, float(job.blank.seed), name=f"00-00-0{len(list_runs(job.folder))}-x")
    return Ended(0)


def never(job: Any) -> Ended:
    raise AssertionError(f"trained again: {job.arguments}")


def rows(text: str) -> list[list[str]]:
    """Cells of all Markdown tables, without their heads."""
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]
    return [line for line in lines if line[0] not in ("task", "---") and not line[0].startswith("---")]


def test_two_presets_are_trained_and_read_again(script: ModuleType, tmp_path: Path, capsys: Any) -> None:
    """Bug: the wrong run or figure is read, a finished run is trained again, or a run of other settings is taken for it."""
    options = (
        "--tasks debug/smoke --algorithms dqn,double_dqn --seeds 0 --override trainer.rollouts=2 data.characters=20000"
    )
    command = [*options.split(), "--output-dir", str(tmp_path), "--png", str(tmp_path / "a.png"), "--reuse"]
    assert script.main([*command, "--markdown", str(tmp_path / "a.md")], train_here) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "a.md").read_text() == text
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    for name, row in zip(("dqn", "double_dqn"), rows(text)[2:], strict=True):
        (run,) = list_runs(tmp_path / "debug-smoke" / name / "0")
        manifest, summary = (json.loads((run / f"{file}.json").read_text()) for file in ("manifest", "summary"))
        assert manifest["choices"]["algorithm"] == name and manifest["choices"]["experiment"] == "debug/smoke"
        value, wall_s = summary["last"]["eval/return"], summary["totals"]["wall_s"]
        assert row == ["debug/smoke", name, "0", figure_text(value), f"{wall_s:.1f} s"]
    assert script.main(command, never) == 0 and capsys.readouterr().out == text
    with pytest.raises(AssertionError, match="trained again"):
        script.main([*command, "--override", "learner.gamma=0.25"], never)
    assert "trained again, as learner.gamma differ" in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_the_others_go_on(script: ModuleType, tmp_path: Path, capsys: Any) -> None:
    """Bug: one mistake ends hours of runs, its reason is lost, it counts as a value, or the exit code says that all is well.

    The failing process is a real one. Values 1 and 2 of `dqn` have mean 1.5; of its interval the ends are the values.
    """

    def start(job: Any) -> Any:
        return script.launch(job) if job.blank.algorithm == "dqnn" else leave_run(job)

    command = ["--tasks", "debug/smoke", "--algorithms", "dqnn,dqn", "--seeds", "1,2", "--output-dir", str(tmp_path)]
    assert script.main([*command, "--jobs", "2"], start) == 1
    table = rows(capsys.readouterr().out)
    assert table[0] == ["debug/smoke", "dqnn", "0 of 2", "-", "-", "-", "-"]
    assert table[1] == ["debug/smoke", "dqn", "2", "1.5000", "1.5000", "1.0000 to 2.0000", "2.0 s"]
    assert [row[3].split(":")[0] for row in table[2:4]] == ["failed", "failed"] and "dqnn" in table[2][3]
    assert table[4:] == [["debug/smoke", "dqn", "1", "1.0000", "2.0 s"], ["debug/smoke", "dqn", "2", "2.0000", "2.0 s"]]


def job_in(script: ModuleType, folder: Path, *further: str) -> Any:
    command = ["--tasks", "t", "--algorithms", "a", "--seeds", "0", "--output-dir", str(folder), *further]
    (job,) = script.plan(script.parse(command))
    job.folder.mkdir(parents=True)
    return job


def test_the_run_that_was_not_there_before_is_read(script: ModuleType, tmp_path: Path) -> None:
    """Bug: without --reuse an older run in the same folder is taken for the new one."""
    job = job_in(script, tmp_path)
    old = leave(job.folder, 1.0, name="23-59-59-x")
    leave(job.folder, 2.0, name="00-00-01-x")
    result = script.close(job, 0, {old}, "eval/return", "last")
    assert (result.value, result.wall_s, result.error) == (2.0, 2.0, None)
    assert script.close(job, 0, {old}, "eval/return", "best").value == 3.0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("note: x\nerror: no data\n  fetch it\n", "no data"),
        ("Traceback:\n  line\nValueError: 7\n", "ValueError: 7"),
        ("", "exit code 3"),
    ],
)
def test_the_reason_of_a_failure(script: ModuleType, tmp_path: Path, said: str, told: str) -> None:
    """Bug: a note or the word Traceback is shown instead of what went wrong."""
    job = job_in(script, tmp_path)
    (job.folder / "stderr.log").write_text(said)
    assert script.close(job, 3, set(), "eval/return", "last").error == told


def test_what_is_no_result(script: ModuleType, tmp_path: Path) -> None:
    """Bug: a diverged, interrupted or unmeasured run becomes a number in a mean."""
    job = job_in(script, tmp_path)
    cases = {
        "nan": (leave(job.folder, float("nan"), name="1"), "eval/return is nan"),
        "missing": (leave(job.folder, name="2"), "no figure eval/nats in last; of evaluation there are: eval/return"),
        "interrupted": (leave(job.folder, status="interrupted", name="3"), "not finished: interrupted"),
    }
    for name, (run, told) in cases.items():
        result = script.read(job, run, "eval/nats" if name == "missing" else "eval/return", "last")
        assert told in result.error and result.value != result.value


def test_ending_it_ends_the_processes(script: ModuleType, tmp_path: Path, capsys: Any) -> None:
    """Bug: after Ctrl-C runs go on unseen, each on a core."""
    started: list[Any] = []

    class Running(Ended):
        def poll(self) -> int | None:
            if self.code == 1:  # the second one
                raise KeyboardInterrupt
            return None

    def start(job: Any) -> Ended:
        started.append(Running(len(started)))
        return started[-1]

    command = ["--tasks", "t", "--algorithms", "a", "--seeds", "0,1,2", "--jobs", "2", "--output-dir", str(tmp_path)]
    assert script.main(command, start) == 130
    assert [process.terminated for process in started] == [True, True] and "--reuse" in capsys.readouterr().err


def test_tasks_and_overrides(script: ModuleType, tmp_path: Path) -> None:
    """Bug: a list is cut at its comma, or a task's settings reach another task or lose against the common ones."""
    assert script.parse_task("cartpole") == script.Task("cartpole", "cartpole")
    assert script.parse_task("g2=random_walks,env.graph_seed=2,objective=[td,cql],data.best=1") == script.Task(
        "g2", "random_walks", ("env.graph_seed=2", "objective=[td,cql]", "data.best=1")
    )
    options = "--tasks a=x,k=1 b=y --algorithms dqn --seeds 7 --override k=0 --task-override b:k=2"
    first, second = script.plan(script.parse([*options.split(), "--output-dir", str(tmp_path)]))
    common = ("algorithm=dqn", "seed=7", "threads=1", "logger=none", "trainer.progress=false", "k=0")
    assert first.arguments == ("+experiment=x", *common, "k=1", f"output_dir='{tmp_path / 'a' / 'dqn' / '7'}'")
    assert second.arguments == ("+experiment=y", *common, "k=2", f"output_dir='{tmp_path / 'b' / 'dqn' / '7'}'")


@pytest.mark.parametrize(
    ("further", "told"),
    [
        (["--tasks", "x,k=1", "x,k=2"], "x is named twice"),
        (["--tasks", "x,y"], "EXPERIMENT"),
        (["--seeds", "0-2"], "whole numbers"),
        (["--seeds", "0,1,0"], "0 is named twice"),
        (["--algorithms", ","], "nothing is named"),
        (["--task-override", "z:k=1"], "one of the tasks x"),
        (["--jobs", "0"], "at least one"),
        (["--png", "no/such/folder/a.png"], "a folder that exists"),
    ],
)
def test_mistakes_end_before_anything_is_trained(
    script: ModuleType, capsys: Any, further: list[str], told: str
) -> None:
    """Bug: found after the training, or shown as a traceback."""
    assert script.main(["--tasks", "x", "--algorithms", "dqn", *further], never) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error


def test_tasks_of_one_experiment_are_also_taken_together(script: ModuleType) -> None:
    """Bug: figures of different scale are averaged, or a task with one seed makes an interval that ignores it.

    Task g1 has 0, 0, 0, 0 and g2 has 4, 4, 4, 4: the middle half of all 8 is 0, 0, 4, 4, of mean 2, in each stratified
    resample. With one value of g2 alone the mean is 4 / 5, and of 0, 0, 0, 0, 4 one is left out at each end: 0.
    """
    tables = compare_tables

    def cells(experiments: tuple[str, str], seeds: int) -> list[Any]:
        tasks = zip(("g1", "g2"), experiments, (0.0, 4.0), (4, seeds), strict=True)
        made: list[Any] = tables.make_cells(
            [
                tables.Result(task, experiment, "dqn", seed, value)
                for task, experiment, value, n in tasks
                for seed in range(n)
            ]
        )
        return made

    whole = cells(("walks", "walks"), 4)
    assert [cell.task for cell in whole] == ["g1", "g2", "all tasks"]
    assert (whole[2].mean, whole[2].iqm, whole[2].interval) == (2.0, 2.0, (2.0, 2.0))
    (*_, part) = cells(("walks", "walks"), 1)
    assert (part.mean, part.iqm, part.interval) == (0.8, 0.0, None)
    assert [cell.task for cell in cells(("walks", "cartpole"), 4)] == ["g1", "g2"]
