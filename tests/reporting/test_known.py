"""The page of a run: curves first, what is known without learning, and short names of groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dqnlm.builder import launch
from dqnlm.config import composition, validation
from dqnlm.reporting.compare import group_runs
from dqnlm.reporting.html import build_page
from dqnlm.reporting.loading import RunData, load_run
from tests.helpers import runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known")
    runs.start(folder / "run", runs.write_text(folder / "text.txt"))
    return folder / "run"


def test_the_page_shows_what_the_terminal_shows(trained: Path) -> None:
    """Bug: the baselines stand in the terminal alone, or the curves below a long table."""
    known = json.loads((trained / "manifest.json").read_text())["known"]
    assert {"uniform", "unigram", "bigram"} <= set(known) and known["bigram"]["eval/nll"] < known["uniform"]["eval/nll"]
    page = build_page([load_run(trained, "run")], "eval/accuracy")
    places = [page.index(part) for part in ("<h2>Curves", "<h2>Metrics", "<h2>Known without learning", "bigram", "<h2>Samples")]
    assert (places == sorted(places) and "at 6 updates" in page) or "at 12 updates" in page


@pytest.mark.parametrize("known", [{}, {"a": 3}, {"a": {"eval/return": "x"}}, None])
def test_odd_or_old_manifests(trained: Path, known: object) -> None:
    """Bug: a run of before, or a damaged manifest, has no page."""
    run = load_run(trained, "run")
    run.manifest["known"] = known
    assert ("Known without learning" in build_page([run], "eval/accuracy")) is (known == {"a": {"eval/return": "x"}})


def test_tasks_with_a_known_optimum(tmp_path: Path) -> None:
    """Bug: only texts have them."""
    words = ["+experiment=maze", "+debug=smoke", "device=cpu", "logger=none"]
    composed, choices = composition.compose(words)
    from dqnlm.runs.directory import RunDirectory

    trainer = launch.build(validation.validate(composed, choices, words), RunDirectory(tmp_path))
    known = trainer.components.evaluator.known()
    assert known["optimal"]["eval/return"] > known["random"]["eval/return"]


def test_an_algorithm_that_tells_runs_apart_is_the_label(trained: Path) -> None:
    """Bug: the legend of two algorithms lists ten settings a line."""
    found: list[RunData] = []
    for name in ("dqn", "c51"):
        run = load_run(trained, name)
        run.manifest["choices"] = {**run.manifest["choices"], "algorithm": name, "head": name, "target": name}
        found.append(run)
    assert [group.label for group in group_runs(found)] == ["algorithm=dqn", "algorithm=c51"]
