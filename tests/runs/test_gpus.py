"""One GPU a job: pure choices, and marks that end with their process."""

from __future__ import annotations

from pathlib import Path

import pytest

from dqnlm.runs import gpus


def test_what_is_visible() -> None:
    """Bug: a job takes a GPU that its queue did not give it."""
    assert gpus.visible({}, lambda: 3) == ["0", "1", "2"]
    assert gpus.visible({gpus.VISIBLE: "2,GPU-a"}, lambda: 9) == ["2", "GPU-a"]
    assert gpus.visible({gpus.VISIBLE: "1,-1,0"}, lambda: 9) == ["1"] and gpus.visible({gpus.VISIBLE: ""}, lambda: 9) == []


def test_the_least_used_in_turn() -> None:
    """Bug: all jobs take the first GPU; a machine with one GPU is told to choose."""
    assert [gpus.least_used(["0", "1"], {}, job) for job in range(4)] == ["0", "1", "0", "1"]
    assert gpus.least_used(["0", "1", "2"], {"0": 1, "1": 2, "2": 1}, 2) == "2"
    assert gpus.least_used(["0"], {}, 0) is None and gpus.least_used([], {}, 0) is None


def test_two_jobs_have_two_gpus(tmp_path: Path) -> None:
    """Bug: a mark that is not seen by the next job, or that outlives its own."""
    first: dict[str, str] = {}
    second: dict[str, str] = {gpus.VISIBLE: "0,1"}
    with gpus.one_gpu(0, "auto", lambda: 2, first, tmp_path) as one, gpus.one_gpu(0, "cuda", lambda: 2, second, tmp_path) as two:
        assert (one, two) == ("0", "1") and first[gpus.VISIBLE] == "0" and second[gpus.VISIBLE] == "1"
    assert gpus.VISIBLE not in first and second[gpus.VISIBLE] == "0,1"
    with gpus.one_gpu(0, "auto", lambda: 2, first, tmp_path) as again:
        assert again == "0"


@pytest.mark.parametrize(("device", "count"), [("cpu", 4), ("cuda:1", 4), ("auto", 1), ("auto", 0)])
def test_nothing_changes(device: str, count: int, tmp_path: Path) -> None:
    """Bug: a run that names its device is moved to another."""
    environment: dict[str, str] = {}
    with gpus.one_gpu(1, device, lambda: count, environment, tmp_path) as chosen:
        assert chosen is None and environment == {}
