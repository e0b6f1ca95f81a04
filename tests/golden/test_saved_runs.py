"""Runs that an earlier version left on disk are resumed, scored, asked and exported by this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dqnlm.config.moved import GROUPS
from dqnlm.reporting import compare, loading
from dqnlm.reporting.loading import RunData
from tests.golden import driver, reference, saved
from tests.golden.runs import SAVED, Run
from tests.golden.test_golden import check

RUN = pytest.mark.parametrize("run", SAVED, ids=lambda run: run.name)
PROMPTS = {"teacher": "the ", "walks_ilql": "b", "pretrained": "100a\n", "pairs": "abc\n"}


@pytest.fixture
def place(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with the unpacked run in it; the present folder of the test."""
    for package in run.packages:
        pytest.importorskip(package)
    saved.unpack(run, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.delenv("DQNLM_DATA_DIR", raising=False)
    return tmp_path / "place"


@RUN
def test_it_goes_on_as_it_would_have(run: Run, place: Path) -> None:
    """Bug: a moved class, a renamed setting or another form of the saved state makes old runs unreadable, or other runs."""
    check(reference.load()["saved"][run.name], saved.finish(run, place), run)
    assert json.loads((place / driver.FOLDER / "summary.json").read_text())["status"] == "finished"


@RUN
def test_it_is_scored_and_writes(run: Run, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bug: resuming reads old runs, and the other commands do not."""
    folder = str(driver.FOLDER)
    assert driver.command("eval", folder, "--json") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert any(name.startswith("eval/") for name in figures)
    assert driver.command("generate", folder, "--prompt", PROMPTS[run.name], "--max-tokens", "4") == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("run", [run for run in SAVED if run.name == "teacher"], ids=lambda run: run.name)
def test_a_run_without_a_test_part_is_scored_on_its_validation_part(
    run: Run, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bug: a run of before there was a test part is refused, or its figures are given as those of a test."""
    folder = str(driver.FOLDER)
    assert driver.command("eval", folder) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "validation part" in said and "this run has no test part" in said
    assert driver.command("eval", folder, "--part", "test") == 2
    assert not (place / driver.FOLDER / "test_looks.json").exists()


@pytest.mark.parametrize("run", [run for run in SAVED if run.name == "pretrained"], ids=lambda run: run.name)
def test_it_is_exported(run: Run, place: Path) -> None:
    """Bug: weights of an old run that the export no longer finds by their names."""
    assert driver.command("export", str(driver.FOLDER), "exported", "--behaviour") == 0
    from transformers import AutoModelForCausalLM

    _, info = AutoModelForCausalLM.from_pretrained(place / "exported", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize("run", [run for run in SAVED if run.name == "teacher"], ids=lambda run: run.name)
def test_reports_show_it_by_the_names_of_today(run: Run, place: Path) -> None:
    """Bug: an old run beside a new one as if other settings and other metrics had been used."""
    before = (place / driver.FOLDER / "metrics.jsonl").read_text()
    assert "eval/nats" in before and "declared_policy" in (place / driver.FOLDER / "config.yaml").read_text()
    loaded = loading.load_run(place / driver.FOLDER, "old")
    assert "eval/nll" in loaded.metric_names() and not any("nats" in name for name in loaded.metric_names())
    assert loaded.config["policy"]["kind"] and "declared_policy" not in loaded.config["trainer"]
    assert len(loaded.points) == len(before.splitlines())


@pytest.mark.parametrize("run", [run for run in SAVED if run.name == "teacher"], ids=lambda run: run.name)
def test_a_report_of_old_and_new_shows_no_renamed_setting(run: Run, place: Path) -> None:
    """Bug: some fifty columns of settings that differ by name alone, so that seeds of one setting are not grouped."""
    old = loading.load_run(place / driver.FOLDER, "old")
    changed = RunData(old.path, "new", old.status, old.config, dict(old.manifest), old.points, old.samples, [])
    changed.manifest["choices"] = dict.fromkeys(GROUPS, "standard") | old.manifest["choices"]
    assert compare.differing([old, changed]) == []
