"""Folders of runs as commit 083d77c wrote them, killed after their second checkpoint: what is on users' disks must go on.

    PYTHONPATH=tests python -m golden.saved      writes those of `SAVED` that have no archive yet

The archives that there are stay as they are, since they stand for runs of the past; a later version's can be added.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import driver
from tests.golden.runs import SAVED, Run

FOLDER = Path(__file__).parent / "saved_runs"


def archive(run: Run) -> Path:
    return FOLDER / f"{run.name}.tar.xz"


def pack(run: Run, place: Path) -> None:
    """Trains in `place` until the kill, and keeps the run's folder with its last checkpoint and its best policy."""
    driver.prepare(run, place)
    with contextlib.chdir(place), driver.without_data_folder():
        driver.begin_and_kill(run)
        for older in sorted((driver.FOLDER / "checkpoints").glob("step-*"))[:-1]:
            shutil.rmtree(older)
        (driver.FOLDER / "summary.json").unlink(missing_ok=True)  # which no killed process has written
        manifest = driver.FOLDER / "manifest.json"
        manifest.write_text(manifest.read_text(encoding="utf-8").replace(f"{place}/", ""), encoding="utf-8")
        with tarfile.open(archive(run), "w:xz") as tar:
            tar.add(driver.FOLDER, filter=_nobodys)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def unpack(run: Run, place: Path) -> None:
    """The run's folder and its data in `place`."""
    driver.prepare(run, place)
    with tarfile.open(archive(run)) as tar:
        tar.extractall(place, filter="data")


def finish(run: Run, place: Path) -> dict[str, Any]:
    """Resumes the unpacked run by the command line; what it left, of its figures only those after the resume."""
    before = driver.count_lines(place / driver.FOLDER)
    with contextlib.chdir(place), driver.without_data_folder():
        assert driver.command("resume", str(driver.FOLDER)) == 0
    return driver.record(place / driver.FOLDER, before)


def main() -> None:
    """Writes the archives that are missing."""
    with tempfile.TemporaryDirectory() as folder:
        for run in SAVED:
            if not archive(run).exists():
                pack(run, Path(folder) / run.name)
                print(f"wrote {archive(run)}, {archive(run).stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
