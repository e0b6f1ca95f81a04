"""`dqnlm runs`: what the list says of runs in every state, and that it stays quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dqnlm.commands.runs import main
from dqnlm.errors import UserError
from tests.helpers.reports import FINISHED, make_run, point, rising


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    main([*arguments, "--json"])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def age(run: Path, seconds: float) -> None:
    """Makes every file of a run this much older."""
    for file in run.iterdir():
        os.utime(file, (time.time() - seconds,) * 2)


def test_status_of_runs_in_every_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards a killed run that is shown as running for ever, and a resumed one shown as interrupted."""
    day = tmp_path / "2026-01-01"
    make_run(day / "10-00-00-a", summary=FINISHED)
    make_run(day / "10-00-01-b", summary={"status": "interrupted"})
    make_run(day / "10-00-02-c")
    age(make_run(day / "10-00-03-d"), 3600)
    resumed = make_run(day / "10-00-04-e", summary={"status": "interrupted"})
    os.utime(resumed / "summary.json", (time.time() - 60,) * 2)
    rows = listed(capsys, "--output-dir", str(tmp_path))
    assert [row["status"] for row in rows] == ["finished", "interrupted", "running", "unknown", "running"]
    assert [row["name"] for row in rows][:2] == ["2026-01-01/10-00-00-a", "2026-01-01/10-00-01-b"]


def test_figures_come_from_the_last_line_that_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards empty cells because the newest log point holds no evaluation, and a stale step."""
    points = [point(100, eval_accuracy=0.1), point(200, eval_accuracy=0.2), point(300, loss_td=0.5)]
    make_run(tmp_path / "d" / "1", points=points, summary=FINISHED)
    [row] = listed(capsys, "--output-dir", str(tmp_path))
    assert (row["step"], row["wall_s"], row["eval/accuracy"], row["best"]) == (300, 150.0, 0.2, 0.41)
    assert row["eval/return"] is None and row["experiment"] == "shakespeare"


def test_best_is_of_the_figure_that_the_run_goes_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: the accuracy of a run that is judged by its return; a figure guessed where the summary does not name it."""
    make_run(tmp_path / "d" / "1", summary=FINISHED | {"best_metric": "eval/return"})
    make_run(tmp_path / "d" / "2", summary={key: value for key, value in FINISHED.items() if key != "best_metric"})
    rows = listed(capsys, "--output-dir", str(tmp_path))
    assert [(row["best"], row["best_metric"]) for row in rows] == [(7.5, "eval/return"), (None, None)]
    main(["--output-dir", str(tmp_path)])
    assert "7.500" in (output := capsys.readouterr().out) and "eval/return" in output


def test_damaged_run_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards one broken folder that makes the whole list fail, and one whose damage is not told."""
    make_run(tmp_path / "d" / "1", summary=FINISHED)
    broken = make_run(tmp_path / "d" / "2")
    (broken / "summary.json").write_text("{")
    main(["--output-dir", str(tmp_path)])
    output = capsys.readouterr().out
    assert "finished" in output and "damaged" in output and "summary.json, line 1: not JSON" in output


def test_sort_puts_missing_values_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards a crash on comparing None with a number, and an unknown column taken in silence."""
    for name, top in (("1", 0.3), ("2", 0.1), ("4", float("nan"))):
        make_run(tmp_path / "d" / name, points=rising(top), summary=FINISHED)
    make_run(tmp_path / "d" / "3", points=[], summary={"status": "failed"})
    rows = listed(capsys, "--output-dir", str(tmp_path), "--sort", "eval/accuracy")
    assert [row["name"] for row in rows] == ["d/3", "d/4", "d/2", "d/1"]
    assert rows[1]["eval/accuracy"] is None  # not a number has no place in JSON
    with pytest.raises(UserError, match=r"Did you mean eval/nll\?"):
        main(["--sort", "nl"])


def test_empty_folder_says_how_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards an empty table that leaves a beginner alone."""
    main(["--output-dir", str(tmp_path / "none")])
    assert "dqnlm train +experiment=shakespeare" in capsys.readouterr().out
    assert listed(capsys, "--output-dir", str(tmp_path)) == []


def test_imports_neither_torch_nor_datasets_nor_matplotlib(tmp_path: Path) -> None:
    """Guards a list that takes seconds because something heavy is imported on the way."""
    make_run(tmp_path / "d" / "1", summary=FINISHED)
    program = (
        "import sys; from dqnlm.commands.runs import main; "
        f"main(['--output-dir', {str(tmp_path)!r}]); "
        "heavy = {'torch', 'datasets', 'matplotlib', 'numpy', 'hydra'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
