"""What a user installs holds everything that the repository has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from dqnlm.utils.documents import documents_folder, named_in
from tests.helpers.paths import ROOT

needs_checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="tests run outside a checkout")


def repository_files(folder: str, pattern: str, prefix: str = "") -> set[str]:
    return {f"{prefix}{path.relative_to(ROOT / folder).as_posix()}" for path in (ROOT / folder).rglob(pattern)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("dqnlm", "configs", "docs", "pyproject.toml", "README.md", "LICENSE"):  # building leaves folders behind
        if (ROOT / name).exists():
            subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    if not (source / "README.md").exists():
        (source / "README.md").write_text("x")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"]
    subprocess.run([*command, str(folder / "made"), str(source)], check=True, capture_output=True)
    (found,) = (folder / "made").glob("*.whl")
    return found


@pytest.mark.fault("YAML missing from the built wheel")
@needs_checkout
def test_wheel_holds_every_yaml_every_module_and_every_document(wheel: Path) -> None:
    """Bug: the wheel misses YAML files, a package that nobody listed, a document, or the licence under which it may be used."""
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    yamls = {name.removeprefix("dqnlm/configs/") for name in names if name.endswith(".yaml")}
    assert yamls == repository_files("configs", "*.yaml") and "train.yaml" in yamls
    code = [name for name in names if name.endswith(".py") and not name.startswith(("dqnlm/configs/", "dqnlm/docs/"))]
    assert {name.removeprefix("dqnlm/") for name in code} == repository_files("dqnlm", "*.py")
    documents = {name.removeprefix("dqnlm/docs/") for name in names if name.startswith("dqnlm/docs/")}
    wanted = repository_files("docs", "*.md") | repository_files("docs", "*.svg")
    wanted |= repository_files("docs/examples", "*.py", "examples/")
    assert documents - {"make_architecture.py"} == wanted and "examples/judge.py" in documents
    assert "dqnlm/py.typed" in names
    (information,) = (name.removesuffix("METADATA") for name in names if name.endswith(".dist-info/METADATA"))
    assert archive.read(f"{information}licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: MIT\n" in archive.read(f"{information}METADATA").decode()


@needs_checkout
def test_a_checkout_has_its_documents_too() -> None:
    """Bug: an editable installation, in which the documents lie beside the package, says that they are not installed."""
    assert documents_folder() == ROOT / "docs"
    assert named_in("see docs/data_forms.md") == f"docs/ is {ROOT / 'docs'}" and named_in("see there") is None


class Installed:
    """The wheel in an environment of its own, whose other packages are those of this one; commands run from `folder`."""

    def __init__(self, wheel: Path, root: Path) -> None:
        self.folder, self._bin = root / "anywhere", root / "venv" / "bin"
        self.folder.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "venv")], check=True)
        install = [sys.executable, "-m", "pip", "--python", str(self._bin / "python"), "install", "--quiet", "--no-deps"]
        subprocess.run([*install, "--no-index", str(wheel)], check=True, capture_output=True)
        (self.packages,) = (root / "venv" / "lib").glob("python*/site-packages")
        # A line of a .pth file adds a folder, and does not read the .pth files in it: those of an editable installation.
        (self.packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    def python(self, code: str) -> str:
        return self._run([str(self._bin / "python"), "-c", code])

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        """What `dqnlm WORDS` prints."""
        return self._run([str(self._bin / "dqnlm"), *words], stdin)

    def _run(self, command: list[str], stdin: str | None = None) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DQNLM_DATA"))}
        environment |= {"DQNLM_OFFLINE": "1", "XDG_CACHE_HOME": str(self.folder / "cache"), "NO_COLOR": "1"}
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, env=environment, input=stdin
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert str(ROOT) not in done.stdout.replace(sysconfig.get_path("purelib"), ""), "the checkout was used"
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


SMOKE = ("device=cpu", "threads=1", "progress=false", "evaluation.samples=1")


@pytest.mark.slow
@needs_checkout
def test_an_installed_wheel_finds_its_own_files(installed: Installed) -> None:
    """Bug: code, configuration or documents of the checkout are used, or are not found without it."""
    place = installed.python(
        "import dqnlm, importlib.metadata as m; from dqnlm.config import catalogue\n"
        "print(dqnlm.__file__, catalogue.packaged_root(), m.version('dqnlm'))"
    )
    assert place.startswith(f"{installed.packages}/dqnlm/__init__.py {installed.packages}/dqnlm/configs ")
    assert "train" in installed("--help") and installed("--version").startswith("dqnlm ")
    listed = installed("configs")
    assert "+experiment=OPTION" in listed and f"docs/ is {installed.packages}/dqnlm/docs" in listed
    assert "gamma" in installed("configs", "train") and "_target_" in installed("configs", "network/gru")
    told = json.loads(installed("info", "--json"))
    assert told["docs"] == f"{installed.packages}/dqnlm/docs" and Path(told["docs"], "data_forms.md").is_file()
    assert "docs" in installed("info")


@pytest.mark.slow
@needs_checkout
def test_an_installed_wheel_trains_and_reads_its_runs(installed: Installed) -> None:
    """Bug: a command that works in the checkout alone."""
    words = ("+experiment=shakespeare", "data=bundled", "data.characters=20000", "+debug=smoke", *SMOKE)
    installed("train", *words)
    (run,) = (installed.folder / "outputs").glob("*/*")
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
    assert json.loads((run / "manifest.json").read_text())["git_commit"] is None
    assert "accuracy" in installed("eval", "latest")
    assert len(installed("generate", "latest", "--prompt", "A", "--max-tokens", "20")) > 1
    assert installed("chat", "latest", "--max-tokens", "5", stdin="To be\n")
    installed("inspect", "latest", "--text", "To be, or not")
    installed("report", "latest")
    assert run.name in installed("runs")
    pages = sorted(path.name for path in installed.folder.rglob("*.html"))
    assert "inspect.html" in pages and len(pages) >= 2
    installed("resume", "latest", "trainer.rollouts=12")
    out = installed("train", "-m", *words, "seed=0,1", "hydra.sweep.dir=sweep")
    assert "0-seed=0" in out and "1-seed=1" in out
    installed("report", "sweep")


@pytest.mark.slow
@needs_checkout
def test_an_installed_wheel_has_the_examples(installed: Installed) -> None:
    """Bug: the recipe with a log and a judge of the README needs the checkout."""
    docs = json.loads(installed("info", "--json"))["docs"]
    run_it = f"import runpy; runpy.run_path({docs + '/examples/make_log.py'!r}, run_name='__main__')"
    (installed.folder / "log.jsonl").write_text(installed.python(run_it))
    small = ("network.layers=1", "network.width=16", "network.heads=2", "network.context=80", "trainer.offline_rounds=2")
    small = (*small, "evaluation.every=2", "trainer.log_every=1", "reward=function")
    judge = f"reward.path={docs}/examples/judge.py:score"
    installed("train", "+experiment=logged", "data.path=log.jsonl", *small, judge, *SMOKE, "hydra.run.dir=log")
    assert json.loads((installed.folder / "log" / "summary.json").read_text())["status"] == "finished"


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
@pytest.mark.slow
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
