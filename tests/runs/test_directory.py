"""Folders of runs: never shared, found again by short names, refused with what to type."""

from __future__ import annotations

import os
import threading
from datetime import datetime
from pathlib import Path

import pytest

from dqnlm.errors import UserError
from dqnlm.runs.directory import RunDirectory, find_run, list_runs, require_unused, reserve, safe_name

NOON = datetime(2026, 11, 20, 12, 0, 0)


def make_run(folder: Path, manifest: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    if manifest:
        (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Three runs on two days and a sweep of two jobs; manifests get newer in this order."""
    root = tmp_path / "outputs"
    names = ["2026-11-19/09-00-00-shakespeare", "2026-11-20/10-00-00-shakespeare", "2026-11-20/11-00-00-train",
             "2026-11-20/12-00-00-sweep/2-seed=1", "2026-11-20/12-00-00-sweep/10-seed=2"]  # fmt: skip
    for age, name in enumerate(names):
        os.utime(make_run(root / name) / "manifest.json", (1000 + age, 1000 + age))
    (root / "2026-11-20" / "13-00-00-empty").mkdir()
    return root


def test_reserve_same_second_gives_different_folders_to_every_thread(tmp_path: Path) -> None:
    """Bug: two runs started in the same second share a folder (Hydra's default)."""
    start, found = threading.Barrier(8), []

    def work() -> None:
        start.wait()
        found.append(reserve(tmp_path, "benchmark/nanogpt_cpu", NOON))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    base = "12-00-00-benchmark-nanogpt_cpu"
    assert sorted(folder.name for folder in found) == sorted([base, *(f"{base}-{n}" for n in range(2, 9))])
    assert {folder.parent for folder in found} == {tmp_path / "2026-11-20"}


def test_reserve_where_a_file_stands_is_a_user_error(tmp_path: Path) -> None:
    """Bug: a folder that cannot be made ends in a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="output_dir: cannot make a folder"):
        reserve(tmp_path / "file", "x")


def test_require_fresh_refuses_a_run_and_a_sweep_but_not_hydras_own_files(tmp_path: Path) -> None:
    """Bug: hydra.run.dir=OLD overwrites a finished run without a word; a failed start blocks the folder for ever."""
    make_run(tmp_path / "old", manifest=False)
    make_run(tmp_path / "sweep" / "0-seed=0")
    for name in ("old", "sweep"):
        with pytest.raises(UserError, match=r"already contains a run\n.*dqnlm resume"):
            require_unused(tmp_path / name)
    make_run(tmp_path / "refused" / ".hydra", manifest=False)
    assert require_unused(tmp_path / "refused") == tmp_path / "refused"
    assert require_unused(tmp_path / "new" / "deep").is_dir()


def test_list_runs_finds_jobs_of_sweeps_in_the_order_of_their_numbers(outputs: Path) -> None:
    """Bug: jobs of a sweep are invisible, or job 10 comes before job 2."""
    names = [run.relative_to(outputs).as_posix() for run in list_runs(outputs)]
    assert names == [
        "2026-11-19/09-00-00-shakespeare", "2026-11-20/10-00-00-shakespeare", "2026-11-20/11-00-00-train",
        "2026-11-20/12-00-00-sweep/2-seed=1", "2026-11-20/12-00-00-sweep/10-seed=2",
    ]  # fmt: skip
    assert list_runs(outputs / "missing") == []


def test_runs_and_sweeps_without_a_date_are_found_and_hidden_folders_are_not(outputs: Path) -> None:
    """Bug: the run that hydra.run.dir=outputs/NAME makes is not found, and its `.hydra` is listed as a damaged run."""
    make_run(outputs / "bar" / "0-seed=1")
    make_run(outputs / "foo")
    for run in ("foo", "2026-11-20/11-00-00-train"):
        make_run(outputs / run / ".hydra", manifest=False)
    for hidden in (".trash/2026-11-20/run", "2026-11-20/.old", "2026-11-20/12-00-00-sweep/.copy"):
        make_run(outputs / hidden, manifest=False)
    names = [run.relative_to(outputs).as_posix() for run in list_runs(outputs)]
    assert len(names) == 7 and names[-2:] == ["bar/0-seed=1", "foo"]
    assert find_run("latest", outputs) == find_run("fo", outputs) == outputs / "foo"
    assert find_run("bar/0", outputs) == find_run("0-seed", outputs) == outputs / "bar" / "0-seed=1"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("latest", "2026-11-20/12-00-00-sweep/10-seed=2"),
        ("2026-11-19", "2026-11-19/09-00-00-shakespeare"),
        ("10-00", "2026-11-20/10-00-00-shakespeare"),
        ("2026-11-20/11", "2026-11-20/11-00-00-train"),
        ("12-00-00-sweep/2", "2026-11-20/12-00-00-sweep/2-seed=1"),
    ],
)
def test_find_run_by_short_name(outputs: Path, name: str, found: str) -> None:
    """Bug: a unique beginning, with or without the date, does not find the run."""
    assert find_run(name, outputs) == outputs / found


def test_find_run_takes_a_folder_and_a_sweep_of_one(outputs: Path, tmp_path: Path) -> None:
    """Bug: a path is taken for a name; a sweep's folder is taken for a run."""
    run = outputs / "2026-11-20" / "11-00-00-train"
    assert find_run(str(run), tmp_path / "elsewhere") == run
    with pytest.raises(UserError, match="a sweep of 2 runs; choose one"):
        find_run(str(outputs / "2026-11-20" / "12-00-00-sweep"), outputs)
    with pytest.raises(UserError, match="holds no run"):
        find_run(str(outputs / "2026-11-20" / "13-00-00-empty"), outputs)


def test_find_run_exact_name_wins_over_longer_ones(outputs: Path) -> None:
    """Bug: `...-train` cannot be reached once `...-train-2` exists."""
    make_run(outputs / "2026-11-20" / "11-00-00-train-2")
    assert find_run("11-00-00-train", outputs).name == "11-00-00-train"


def test_find_run_messages(outputs: Path, tmp_path: Path) -> None:
    """Bug: an ambiguous or unknown name picks some run, or says nothing of those that exist."""
    with pytest.raises(UserError) as ambiguous:
        find_run("1", outputs)
    assert "can mean 4 runs" in str(ambiguous.value) and "10-00-00-shakespeare" in str(ambiguous.value)
    with pytest.raises(UserError) as unknown:
        find_run("shakespear", outputs)
    assert "did you mean 2026-11-" in str(unknown.value)
    with pytest.raises(UserError, match=r"no runs below .*\n.*dqnlm train"):
        find_run("latest", tmp_path / "nothing")


def test_latest_needs_a_manifest(outputs: Path) -> None:
    """Bug: `latest` is a run that was refused before it began."""
    make_run(outputs / "2026-11-21" / "08-00-00-train", manifest=False)
    assert find_run("latest", outputs).name == "10-seed=2"


def test_safe_name_and_paths() -> None:
    """Bug: an option in a folder, or a value with a slash, makes a deeper folder; a long sweep overflows a name."""
    assert safe_name("benchmark/nanogpt_cpu") == "benchmark-nanogpt_cpu"
    assert safe_name("data.path=/a b/c.txt,seed=1") == "data.path=-a-b-c.txt,seed=1"
    assert safe_name("../..") == "run" and len(safe_name("x" * 500)) == 80
    run = RunDirectory(Path("r"))
    assert [run.config.name, run.manifest.name, run.metrics.name, run.samples.name, run.checkpoints.name,
            run.summary.name, run.log.name, run.tensorboard.name] == [
        "config.yaml", "manifest.json", "metrics.jsonl", "samples.jsonl", "checkpoints", "summary.json", "train.log",
        "tensorboard"]  # fmt: skip
