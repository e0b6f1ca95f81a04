"""What a user installs holds everything that the repository has."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

needs_checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="tests run outside a checkout")


def repository_files(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob(pattern)}


@pytest.mark.fault("YAML missing from the built wheel")
@needs_checkout
def test_wheel_holds_every_yaml_and_every_module(tmp_path: Path) -> None:
    """Bug: the wheel misses YAML files, a package that nobody listed, or the licence under which it may be used."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("dqnlm", "configs", "pyproject.toml", "README.md", "LICENSE"):  # a copy: building leaves folders behind
        if (ROOT / name).exists():
            subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    if not (source / "README.md").exists():
        (source / "README.md").write_text("x")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"]
    subprocess.run([*command, str(tmp_path / "wheel"), str(source)], check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    yamls = {name.removeprefix("dqnlm/configs/") for name in names if name.endswith(".yaml")}
    assert yamls == repository_files("configs", "*.yaml") and "train.yaml" in yamls
    modules = {name.removeprefix("dqnlm/") for name in names if name.endswith(".py") and "configs/" not in name}
    assert modules == repository_files("dqnlm", "*.py")
    assert "dqnlm/py.typed" in names
    (information,) = (name.removesuffix("METADATA") for name in names if name.endswith(".dist-info/METADATA"))
    assert archive.read(f"{information}licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: MIT\n" in archive.read(f"{information}METADATA").decode()


@pytest.mark.fault("an ignore file that hides configs/env")
@needs_checkout
def test_git_ignores_no_file_of_the_project() -> None:
    """Bug: a line `env/` or `data/` of .gitignore hides configs/env/ or dqnlm/data/."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    paths = [
        str(path.relative_to(ROOT)) for folder in ("dqnlm", "configs", "tests", "scripts", "studies")
        for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml") and "__pycache__" not in path.parts
    ]  # fmt: skip
    found = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout == ""


@needs_checkout
def test_the_command_runs_beside_a_folder_of_its_name_and_finds_code_there(tmp_path: Path) -> None:
    """Bug: started from the folder that holds a checkout named dqnlm, the command takes that folder for the package."""
    (tmp_path / "dqnlm").mkdir()
    (tmp_path / "mine.py").write_text("def bootstrap(): ...\n")
    command = [str(Path(sys.executable).parent / "dqnlm"), "train", "bootstrap._target_=mine.nothing"]
    assert 'bin/dqnlm" "$@"' in (ROOT / "scripts" / "dqnlm").read_text()
    done = subprocess.run(
        [*command, "+allow_targets=[mine]"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "mine has no nothing" in done.stderr


@needs_checkout
@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="not the environment that scripts/setup makes")
def test_a_script_beside_a_checkout_imports_the_package(tmp_path: Path) -> None:
    """Bug: a script in the folder that holds a checkout named dqnlm imports that folder, an empty namespace package."""
    for folder in ("dqnlm/dqnlm", "dqnlm/configs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dqnlm" / "dqnlm" / "__init__.py").write_text("")
    (tmp_path / "mine.py").write_text(
        "from importlib.resources import files\n"
        "from dqnlm import load_policy\n"
        "from dqnlm.config import catalogue\n"
        "print(load_policy.__module__, files('dqnlm.configs').joinpath('train.yaml').is_file(), catalogue.packaged_root())\n"
    )
    for command in (["mine.py"], ["-m", "mine"], ["-c", "import mine"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == f"dqnlm.builder.loading True {ROOT / 'configs'}\n", done.stderr
