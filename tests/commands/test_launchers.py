"""Jobs of a sweep in processes of their own, and the launchers that start them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from dqnlm.commands import job_process, launchers, train_sweep
from dqnlm.errors import UserError
from tests.helpers import runs as tools
from tests.helpers.paths import ROOT
from tests.helpers.processes import started


def test_how_a_process_ends() -> None:
    """Bug: a job that was killed ends the launcher's process too, or counts as finished."""
    assert job_process.run(len, [[]]) == 0
    assert job_process.run(os._exit, [3]) == 3
    assert job_process.run(signal.raise_signal, [signal.SIGKILL]) == -signal.SIGKILL


def test_what_is_noted_of_an_end(tmp_path: Path) -> None:
    """Bug: the table shows a killed job as running for ever."""
    for code, outcome in ((-9, "killed"), (130, "interrupted"), (1, "crash")):
        job = tmp_path / str(code)
        train_sweep.note_end(job, code)
        assert train_sweep.outcome_of(job) == outcome
    train_sweep.note_outcome(tmp_path / "done", "finished", "")
    train_sweep.note_end(tmp_path / "done", 0)
    assert train_sweep.outcome_of(tmp_path / "done") == "finished"


def test_settings_without_which_a_launcher_fails() -> None:
    """Bug: Ray's launcher opens a port for its dashboard; submitit makes a folder named %j; what the user typed is replaced."""
    assert launchers.further_settings(["hydra/launcher=ray"], {}) == [f"+{launchers.RAY_INIT}.include_dashboard=false"]
    assert f"+{launchers.RAY_INIT}.object_store_memory=null" in launchers.further_settings(
        ["hydra/launcher=ray"], {"RAY_ADDRESS": "auto"}
    )
    assert launchers.further_settings(["hydra/launcher=submitit_local"], {}) == [
        f"{launchers.SUBMITIT_FOLDER}=${{hydra.sweep.dir}}/.submitit"
    ]
    assert launchers.further_settings(["hydra/launcher=submitit_local", f"{launchers.SUBMITIT_FOLDER}=x"], {}) == []
    assert launchers.further_settings(["seed=0"], {}) == []


def test_a_plugin_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: Hydra's list of options in place of what to install."""
    monkeypatch.setattr(launchers, "_is_installed", lambda module: False)
    with pytest.raises(UserError, match=r"pip install 'dqnlm\[joblib\]'"):
        launchers.require(["hydra/launcher=joblib"])


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "package"), [("joblib", "joblib"), ("ray", "ray"), ("submitit_local", "submitit")])
def test_eight_jobs_one_fails_one_is_killed(launcher: str, package: str, tmp_path: Path) -> None:
    """Bug: a launcher loses all jobs with one of them; a second start trains again what is finished.

    Jobs 3 and 7 are refused (their episodes are longer than the network reads), job 6 is killed in the middle of its training.
    """
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason=f"the extra for {launcher} is not installed")
    text = tools.write_text(tmp_path / "text.txt")
    words = [
        "train", "-m", *tools.tiny(text, "trainer.rollouts=6", "checkpoint.every=2"), f"hydra/launcher={launcher}",
        "seed=0,1", "env.prompt_length=1,2,3,99", f"hydra.sweep.dir={tmp_path / 's'}",
    ]  # fmt: skip
    if launcher == "joblib":
        words.append("hydra.launcher.n_jobs=2")
    victim = "6-env.prompt_length=3,seed=1"
    code, said = _run(words, tmp_path, kill=tmp_path / "s" / victim)
    ended = {path.name: found["outcome"] for path, found in train_sweep.outcomes(tmp_path / "s").items()}
    assert code != 0 and sorted(ended.values()) == sorted(["finished"] * 5 + ["mistake"] * 2 + ["killed"]), (ended, said)
    assert ended[victim] == "killed" and f"{victim}: its process was killed by signal 9 (SIGKILL)" in said
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("[0-5]-*/metrics.jsonl")}
    code, said = _run(words, tmp_path)
    finished = [job for job, outcome in ended.items() if outcome == "finished"]
    assert {p: p.stat().st_mtime_ns for p in before if p.parent.name in finished}.items() <= before.items()
    assert "resumed " in (tmp_path / "s" / victim / "train.log").read_text()
    ended = {path.name: found["outcome"] for path, found in train_sweep.outcomes(tmp_path / "s").items()}
    assert ended[victim] == "finished" and sorted(ended.values()) == sorted(["finished"] * 6 + ["mistake"] * 2)
    assert json.loads((tmp_path / "s" / victim / "summary.json").read_text())["totals"]["rollouts"] == 6


def _run(words: list[str], place: Path, kill: Path | None = None) -> tuple[int, str]:
    """The sweep's command; the process of a job is killed once the job has a checkpoint after its first update."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with started([sys.executable, "-m", "dqnlm", *words], cwd=place, env=environment) as process:
        deadline = time.monotonic() + 300
        while kill is not None and time.monotonic() < deadline and process.poll() is None:
            if any(int(step.name[5:]) > 0 for step in kill.glob("checkpoints/step-*")):
                os.kill(json.loads((kill / ".lock").read_text())["pid"], signal.SIGKILL)
                break
            time.sleep(0.01)
        out, error = process.communicate(timeout=400)
    return process.returncode, out + error
