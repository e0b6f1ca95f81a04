"""Every run of `runs.py` leaves the figures, samples and weights on record: a change of the code's form changes no number.

See `compare.py` for what is compared on another platform than that of the record, and `reference.py` to record anew.
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.golden import compare, driver, reference
from tests.golden.runs import RUNS, Run


def check(expected: dict[str, Any], actual: dict[str, Any], run: Run) -> None:
    """Fails with the run, the place of the first difference and both values."""
    content = reference.load()
    same = reference.is_of_this_platform(content, run)
    if not same:
        here, there = driver.platform(run.packages), content["platform"] | content["packages"]
        warnings.warn(
            f"{run.name}: only the first line of figures was compared, roughly: the record is of {there}, this is {here}",
            stacklevel=2,
        )
    found = compare.difference(expected, actual, same)
    assert found is None, f"run {run.name}: {found}"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_is_what_it_was(run: Run, tmp_path: Path) -> None:
    """Bug: any change of behaviour in a change of form: a default, an order of random draws, a sign, a lost update."""
    for package in run.packages:
        pytest.importorskip(package)
    check(reference.load()["runs"][run.recorded_as], reference.measure(run, tmp_path / "place"), run)


def test_the_command_line_does_the_same(tmp_path: Path) -> None:
    """Bug: a run is composed, named or started otherwise by `dqnlm train` than by the functions below it."""
    run = RUNS[0]
    driver.prepare(run, tmp_path / "place")
    left = driver.record(driver.train_by_command(run, tmp_path / "place"))
    check(reference.load()["runs"][run.recorded_as], left, run)


RECORD: dict[str, Any] = {
    "metrics": [{"step": 1, "loss": 0.5, "note": "a"}, {"step": 2, "loss": math.nan}],
    "samples": [{"text": "b"}],
    "tensors": {"network": ["float32 [2] 0a", "float32 [2] 0b"]},
}


def changed(*path: Any, value: Any) -> dict[str, Any]:
    result: Any = copy.deepcopy(RECORD)
    node = result
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return result


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (changed("metrics", 1, "loss", value=0.5), r"line 2 \(step 2\): loss is 0.5, on record nan"),
        (changed("metrics", 0, "loss", value=math.nextafter(0.5, 1)), r"line 1 .*: loss is 0.50*1, on record 0.5"),
        (changed("metrics", 0, "more", value=1), "more is not on record"),
        (changed("metrics", 0, value={"step": 1, "loss": 0.5}), "note is on record only"),
        (changed("metrics", value=RECORD["metrics"][:1]), "metrics has 1 lines, on record are 2"),
        (changed("samples", 0, "text", value="c"), "samples, line 1 .*: text is 'c', on record 'b'"),
        (changed("tensors", "network", 1, value="float32 [2] 0c"), r"network: number 2 is float32 \[2\] 0c, on record"),
        (changed("tensors", "network", value=RECORD["tensors"]["network"][::-1]), "the same, in another order"),
    ],
)
def test_every_difference_is_seen(actual: dict[str, Any], message: str) -> None:
    """Bug: a comparison that cannot fail, or one that does not say where."""
    found = compare.difference(RECORD, actual, True)
    assert found is not None and re.search(message, found), found
    assert compare.difference(RECORD, copy.deepcopy(RECORD), True) is None


def test_elsewhere_the_first_line_is_compared_roughly() -> None:
    """Bug: last bits that fail on another processor, or a rough comparison that passes anything."""
    near, far = changed("metrics", 0, "loss", value=0.5004), changed("metrics", 0, "loss", value=0.501)
    assert compare.difference(RECORD, near, False) is None and compare.difference(RECORD, far, False) is not None
    assert compare.difference(RECORD, changed("metrics", 0, "loss", value=math.nan), False) is not None
    assert compare.difference(RECORD, changed("metrics", 1, "loss", value=3.0), False) is None


def test_renamed_figures_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: a figure that got another name is taken for lost, or its value is no longer looked at."""
    monkeypatch.setattr(compare, "renewed_metric", lambda name: {"loss": "td_loss"}.get(name, name))
    monkeypatch.setattr(compare, "ADDED", frozenset({"fresh"}))
    line = {"step": 1, "td_loss": 0.5, "note": "a", "fresh": 7}
    assert compare.difference(RECORD, changed("metrics", value=[line, {"step": 2, "td_loss": math.nan}]), True) is None
    wrong = changed("metrics", value=[line | {"td_loss": 0.4}, {"step": 2, "td_loss": math.nan}])
    assert "td_loss is 0.4" in str(compare.difference(RECORD, wrong, True))
