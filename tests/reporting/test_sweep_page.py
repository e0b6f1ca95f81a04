"""The page about a sweep: importance by hand, parallel coordinates, the table and the command to copy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dqnlm import cli
from dqnlm.reporting import importance as shares
from dqnlm.reporting.parallel import make_axis, parallel_svg
from dqnlm.reporting.sweep import OVERRIDES, JobData, SweepData, is_sweep, load_sweep, varied
from dqnlm.reporting.sweep_table import sentences
from tests.helpers import runs as tools


def test_importance_by_hand() -> None:
    """Bug: a share above 1, or of the standard deviation; the correction of epsilon with the wrong count.

    Means 2 and 6 around 4: between 16, in all 20, within 4. Epsilon: (16 - 1 * 4 / 2) / 20.
    """
    found = shares.importance("gamma", ["a", "a", "b", "b"], [1.0, 3.0, 5.0, 7.0])
    assert found.levels == [("a", 2, 2.0), ("b", 2, 6.0)]
    assert found.eta == pytest.approx(0.8) and found.epsilon == pytest.approx(0.7)


def test_importance_that_is_not_defined() -> None:
    """Bug: a division by zero, or the share 1 of a setting with another value in each job."""
    assert shares.importance("x", ["1", "2", "3"], [1.0, 2.0, 3.0]).eta is None
    assert shares.importance("x", ["1", "1", "2"], [4.0, 4.0, 4.0]).eta is None


def test_many_numbers_become_ranges() -> None:
    """Bug: each value of a search is a level of its own, which explains everything."""
    values = [str(i / 10) for i in range(16)]
    found = shares.importance("lr", values, [float(i // 4) for i in range(16)])
    assert [count for _, count, _ in found.levels] == [4, 4, 4, 4] and found.eta == pytest.approx(1.0)
    assert found.levels[0][0] == "0 to 0.3"


def test_the_same_value_in_two_ways_does_not_vary() -> None:
    """Bug: 1e-3 beside 0.001 is a setting that differs."""
    jobs = [JobData(str(i), {"lr": text, "gamma": str(i)}, "finished") for i, text in enumerate(["1e-3", "0.001", "0.0010"])]
    assert varied(jobs) == ["gamma"]


def test_places_on_an_axis() -> None:
    """Bug: numbers are placed as words, or a range over decades is squeezed into a point."""
    assert make_axis("x", ["1", "3", "2"]).places == {"1": 0.0, "3": 1.0, "2": 0.5}
    logarithmic = make_axis("lr", ["0.0001", "0.01", "0.001"])
    assert logarithmic.is_logarithmic and logarithmic.places["0.001"] == pytest.approx(0.5)
    assert make_axis("algorithm", ["dqn", "ilql"]).places == {"dqn": 0.25, "ilql": 0.75}


def sweep_of(best: list[float | None]) -> SweepData:
    jobs = [
        JobData(f"{i}-gamma={i / 10}", {"gamma": str(i / 10)}, "finished" if value is not None else "crash", "", "eval/x", value)
        for i, value in enumerate(best)
    ]
    return SweepData(Path("/s"), ["dqnlm", "train", "-m", "gamma=0.0,0.1"], jobs, ["gamma"], "eval/x")


def test_each_job_has_a_line_and_the_best_is_thick() -> None:
    """Bug: a job without a value is left out, or drawn to a value that it has not."""
    svg = parallel_svg(sweep_of([0.1, None, 0.4]))
    lines = re.findall(r"<polyline[^>]*>", svg)
    assert len(lines) == 3 and svg.count('stroke-width="4"') == 1 and svg.count("stroke-dasharray") == 1
    assert 'stroke-width="4"' in lines[-1]  # above the others
    assert parallel_svg(SweepData(Path("/s"), None, [], [], "")) == ""


def test_few_jobs_are_told() -> None:
    """Bug: shares of four jobs are shown as if they meant something."""
    assert any("Only 4 finished jobs" in line for line in sentences(sweep_of([0.1, 0.2, 0.3, 0.4])))


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: the page of a sweep needs its jobs by name, hides the failed one, or its command is not that of the best job."""
    tools.write_text(tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    settings = tools.tiny(Path("text.txt"), "trainer.rollouts=2")
    # env.prompt_length=99 is more than the network reads: that job is refused.
    code = cli.main(["train", "-m", *settings, "seed=0,1", "env.prompt_length=1,99", "hydra.sweep.dir=s"])
    assert code == 2
    capsys.readouterr()
    assert cli.main(["report", "s"]) == 0
    out, page = capsys.readouterr().out, Path("s/report.html").read_text()
    assert ("<svg" in page and "network.context" in page and "Importance" in page) or "Jobs" in page
    sweep = load_sweep(Path("s"))
    best = sweep.best()
    assert best is not None and best.command() in out and [job.status for job in sweep.jobs].count("mistake") == 2
    assert json.loads(Path("s/sweep.json").read_text())["command"][:3] == ["dqnlm", "train", "-m"]
    assert cli.main(["report", "s", "s/0-env.prompt_length=1,seed=0"]) == 2


def test_a_hidden_folder_is_no_job(tmp_path: Path) -> None:
    """Bug: a job's hidden copy makes a folder of one run a sweep of two."""
    for job in ("0-seed=1", ".0-seed=1"):
        (tmp_path / job / OVERRIDES).parent.mkdir(parents=True)
        (tmp_path / job / OVERRIDES).write_text("[]\n")
    assert not is_sweep(tmp_path)
    assert [job.name for job in load_sweep(tmp_path).jobs] == ["0-seed=1"]
