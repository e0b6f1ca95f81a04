"""What holds for the documents as texts: length, links, the same commands in both languages, the options that they name."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dqnlm.config import catalogue
from tests.docs import documents
from tests.docs.documents import ROOT

_spec = importlib.util.spec_from_file_location("make_architecture", ROOT / "docs" / "make_architecture.py")
assert _spec is not None and _spec.loader is not None
make_architecture = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_architecture)

GRAPH = make_architecture.read()
READMES = ("README.md", "README.zh.md")
AXES = (
    "algorithm",
    "bootstrap",
    "returns",
    "head",
    "projection",
    "buffer",
    "objective",
    "target",
    "exploration",
    "optimizer",
)


@pytest.mark.parametrize("document", READMES)
def test_readme_is_short(document: str) -> None:
    """Bug: the README grows back into a manual."""
    assert len(documents.read(document).splitlines()) <= 160


def test_both_readmes_have_the_same_commands() -> None:
    """Bug: a command or setting renamed in one language alone."""
    both = [
        [
            (block.language, documents.commands(block))
            for block in documents.blocks(documents.read(document))
            if block.language
        ]
        for document in READMES
    ]
    assert both[0] == both[1] and sum(len(lines) for _, lines in both[0]) > 15


def test_readmes_name_the_same_options_numbers_and_files() -> None:
    """Bug: a table row, a link or a measured number that only one language has."""
    codes = [set(documents.inline(documents.read(document))) - {"docs/"} for document in READMES]
    assert codes[0] == codes[1], codes[0] ^ codes[1]
    numbers = [sorted(re.findall(r"\d+(?:[.,]\d+)+", documents.read(document))) for document in READMES]
    assert numbers[0] == numbers[1]
    links = [set(re.findall(r"\]\((docs/[^)]*)\)", documents.read(document))) for document in READMES]
    assert links[0] == links[1] and len(links[0]) >= 5


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Bug: a link to a file or a heading that is gone."""
    text = documents.read(document)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{document}: {target}"


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_decimals_have_a_digit_before_the_point(document: str) -> None:
    """Bug: `.05` for 0.05."""
    text = re.sub(r"^```.*?^```$", "", documents.read(document), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"(?:^|[\s(+±-])\.\d+", text)


def test_every_option_of_each_axis_is_described() -> None:
    """Bug: a new algorithm, head or exploration rule that docs/algorithms.md does not have; or one that is gone."""
    text = documents.read("docs/algorithms.md")
    for group in AXES:
        for option, _ in catalogue.options(group):
            assert f"`{option}`" in text, f"docs/algorithms.md does not describe {group}={option}"


@pytest.mark.parametrize("document", documents.DOCUMENTS)
def test_options_that_are_named_exist(document: str) -> None:
    """Bug: `algorithm=NAME` or `+experiment=NAME` of an option that was renamed."""
    groups = {*catalogue.groups(), "experiment"}
    for code in documents.inline(documents.read(document)):
        for group, option in re.findall(r"(?:^|[\s+])(\w+)=([a-z_/0-9]+)\b", code):
            if group in groups:
                assert option in {name for name, _ in catalogue.options(group)}, f"{document}: {code}"


def test_picture_of_the_packages_is_current() -> None:
    """Bug: packages were added or their imports changed, and docs/architecture.svg shows the old ones."""
    drawn = make_architecture.draw(GRAPH)
    assert drawn == make_architecture.PICTURE.read_text(encoding="utf-8"), "run: python docs/make_architecture.py"


def test_every_package_is_described() -> None:
    """Bug: a package that docs/architecture.md does not explain, or one that is gone."""
    described = set(re.findall(r"^\| `(\w+)` \|", documents.read("docs/architecture.md"), re.MULTILINE))
    assert described == GRAPH.keys()


def test_arrows_are_the_imports(tmp_path: Path) -> None:
    """Bug: an import inside a function is missed, one for types alone is drawn, or one that follows from others."""
    for name, source in {
        "low": "",
        "middle": "from dqnlm.low import x\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dqnlm.high import y\n",
        "high": "def f():\n    import dqnlm.middle.part\n    from dqnlm import low\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
    graph = make_architecture.read(tmp_path)
    assert graph == {"low": set(), "middle": {"low"}, "high": {"middle", "low"}}
    assert make_architecture.floors(graph) == [["low"], ["middle"], ["high"]]
    assert make_architecture.reduced(graph) == [("high", "middle"), ("middle", "low")]
    with pytest.raises(ValueError, match="circle"):
        make_architecture.floors({"a": {"b"}, "b": {"a"}})


def test_the_script_runs_alone(tmp_path: Path) -> None:
    """Bug: the script needs the checkout as the working folder, or says that an old picture is current."""
    for name in ("ops", "heads"):
        shutil.copytree(ROOT / "dqnlm" / name, tmp_path / "dqnlm" / name)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "make_architecture.py", tmp_path / "docs")
    script = [sys.executable, str(tmp_path / "docs" / "make_architecture.py")]
    assert subprocess.run(script, check=False, cwd="/", capture_output=True).returncode == 0
    assert subprocess.run([*script, "--check"], check=False, cwd="/").returncode == 0
    (tmp_path / "dqnlm" / "new.py").write_text("from dqnlm.heads import base\n")
    assert subprocess.run([*script, "--check"], check=False, cwd="/").returncode == 1


def test_examples_are_those_of_the_files() -> None:
    """Bug: the reward in docs/examples/ is another one than the one that the documents show and measured."""
    source = documents.read("docs/examples/my_reward.py")
    for document in (*READMES, "docs/tutorial.md"):
        assert source in [block.text for block in documents.blocks(documents.read(document))], document
