"""A sweep that is started again keeps finished jobs, resumes what was begun, and tries the others again."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dqnlm import cli
from dqnlm.commands import train_sweep
from dqnlm.reporting.sweep import NOT_BEGUN, STOPPED, JobData, SweepData
from dqnlm.training.trainer import Trainer
from tests.helpers import runs as tools

Sweep = Callable[..., tuple[int, str, str]]
JOBS = ["0-seed=0", "1-seed=1", "2-seed=2"]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Sweep:
    """`sweep("seed=0,1,2")` runs the sweep in the folder `s`: code, stdout, stderr."""
    tools.write_text(tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    # A job counts settings that never change here in its name, unless they are typed alike each time.
    settings = tools.tiny(Path("text.txt"), "trainer.rollouts=4", "checkpoint.every=2")

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()  # of a sweep that was killed
        code = cli.main(["train", "-m", *settings, *words, "hydra.sweep.dir=s"])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def weights(job: Path) -> dict[str, Any]:
    last = sorted((job / "checkpoints").glob("step-*"))[-1]
    found: dict[str, Any] = torch.load(last / "policy.pt", weights_only=True)["network"]
    return found


@pytest.mark.slow
def test_started_again(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: finished jobs are trained again, or their files are touched; one that was killed starts anew or is lost.

    Job 0 finishes, job 1 is killed after its first checkpoint, and job 2 never begins. Job 1 must end where a run that
    nobody killed ends.
    """
    with monkeypatch.context() as patch:
        def kill_the_second(self: Trainer, phase: Any, original: Any = Trainer.train_round) -> None:
            if self.components.directory.path.name == JOBS[1] and self.rounds_done == 3:
                raise tools.Killed
            original(self, phase)

        patch.setattr(Trainer, "train_round", kill_the_second)
        with pytest.raises(tools.Killed):
            sweep("seed=0,1,2")
    assert not Path("s", JOBS[2]).exists() and not Path("s", JOBS[1], train_sweep.OUTCOME).exists()
    Path("s", JOBS[1], "summary.json").unlink(missing_ok=True)  # which no killed process has written
    before = {path: path.read_bytes() for path in Path("s", JOBS[0]).rglob("*") if path.is_file() and ".hydra" not in path.parts}
    code, out, err = sweep("seed=0,1,2")
    assert code == 0, err
    assert [f"{JOBS[0]}, finished before", f"{JOBS[1]}, resumed", JOBS[2]] == [
        line.split(": ", 1)[1] for line in out.splitlines() if line.startswith("job ") and ": " in line
    ]
    assert before == {path: path.read_bytes() for path in before}
    shutil.move("s", "first")
    assert sweep("seed=0,1,2")[0] == 0
    for job in JOBS:
        old, new = weights(Path("first", job)), weights(Path("s", job))
        assert all(torch.equal(old[name], new[name]) for name in new), job
    table = [line for line in out.splitlines() if line.startswith(tuple(JOBS))]
    assert len(table) == 3 and all("finished" in line for line in table) and "best eval/" in out


@pytest.mark.slow
def test_a_failed_job_is_tried_again(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a job that failed once counts as done; what it left stands in the way of its new start."""
    with monkeypatch.context() as patch:

        def fail(self: Trainer, phase: Any, original: Any = Trainer.train_round) -> None:
            if self.components.directory.path.name == "1-seed=1":
                raise RuntimeError("no more of this")
            original(self, phase)

        patch.setattr(Trainer, "train_round", fail)
        code, _, err = sweep("seed=0,1")
    assert code == 1 and "1 of 2 jobs failed" in err and "hydra.sweep.dir=" in err
    shutil.rmtree("s/1-seed=1/checkpoints")
    code, out, err = sweep("seed=0,1")
    assert code == 0, err
    assert "0-seed=0, finished before" in out and "1-seed=1," not in out
    steps = [json.loads(line)["step"] for line in Path("s/1-seed=1/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps.count(2) == 1, steps


def test_another_command_is_refused(sweep: Sweep) -> None:
    """Bug: jobs of two sweeps are mixed in one folder, and their numbers do not tell them apart."""
    assert sweep("seed=0,1")[0] == 0
    code, _, err = sweep("seed=0,1,2")
    assert code == 2 and "holds the sweep of another command" in err and "seed=0,1 hydra.sweep.dir=" in err


@pytest.mark.slow
def test_a_job_whose_settings_changed_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    """Bug: a file of the user's own options was changed, and the rest of a run is trained by other settings in silence."""
    (tmp_path / "options" / "experiment").mkdir(parents=True)
    own = tmp_path / "options" / "experiment" / "own.yaml"
    own.write_text("# @package _global_\n# own: x\ngamma: 0.5\n")
    words = ["--config-dir", "options", "+experiment=own", "seed=0,1"]
    assert sweep(*words)[0] == 0
    Path("s/1-seed=1/summary.json").unlink()
    own.write_text("# @package _global_\n# own: x\ngamma: 0.25\n")
    code, _, err = sweep(*words)
    assert code == 2 and "1-seed=1 was trained with other settings: gamma differ" in err and "0-seed=0 was trained" in err


def test_the_best_value_is_what_a_search_gets(sweep: Sweep) -> None:
    """Bug: a sweeper that searches is given the last value, or none; a job without a value ends the search."""
    assert sweep("seed=0,1")[0] == 0
    job = Path("s/0-seed=0")
    name, value = train_sweep.best_of(job)
    summary = json.loads((job / "summary.json").read_text())
    assert (name, value) == (summary["best_metric"], summary["best"][summary["best_metric"]])
    (job / "summary.json").unlink()
    assert str(train_sweep.best_of(job)[1]) == "nan"


def test_a_launcher_that_fails_leaves_a_sweep_to_go_on_with(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a killed worker process ends the sweep without the command that goes on, or counts as success."""
    with monkeypatch.context() as patch:
        patch.setattr("dqnlm.commands.train.run_sweep", lambda *_: 1)
        code, out, _ = sweep("seed=0,1")
    assert code == 1 and "not complete; to go on: dqnlm train -m" in out and "hydra.sweep.dir=" in out
    assert sweep("seed=0,1")[0] == 0


def test_a_sweep_ends_with_its_best_job_and_a_command_that_works(sweep: Sweep) -> None:
    """Bug: the end of a sweep leaves its user to find out where it is, which job was the best, and what to type next."""
    code, out, _ = sweep("gamma=0,0.5")
    lines = out.splitlines()
    folder = next(line.removeprefix("folder ") for line in lines if line.startswith("folder "))
    best = next(line for line in lines if line.startswith("best by eval/accuracy: "))
    values = {job: train_sweep.best_of(Path(folder) / job)[1] for job in ("0-gamma=0", "1-gamma=0.5")}
    assert code == 0 and max(values.values()) == values[best.split(": ")[1].split(", ")[0]]
    words = shlex.split(lines[-1].split(": ")[1])
    assert words[0] == "dqnlm" and cli.main(words[1:]) == 0


def test_jobs_that_a_stop_leaves_are_no_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a sweep that a signal stopped says that the jobs failed which it had not begun."""
    jobs = [JobData("0", {}, "mistake", "no"), JobData("1", {}, STOPPED), JobData("2", {}, NOT_BEGUN)]
    monkeypatch.setattr(train_sweep, "load", lambda folder: SweepData(folder, None, jobs, [], ""))
    assert train_sweep.report(tmp_path, complete=False) == 2
    shown = capsys.readouterr()
    assert "2 of 3 jobs are left: 1 (stopped), 2 (not begun)" in shown.out
    assert shown.err == "error: 1 of 3 jobs failed\n  0: no\n"
