"""Imports run one way. The layers of the package, lowest first; a module may import its own layer and those below."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import dqnlm

ROOT = Path(dqnlm.__file__).parent
# A name is a module, or a package with all that is in it. Every module of the package must belong to one layer.
LAYERS: list[list[str]] = [
    ["errors", "types"],
    ["utils", "ops", "problems"],
    ["config", "metrics", "networks", "heads", "buffers", "partners", "rewards", "data"],
    ["objectives", "envs"],
    ["agent"],
    ["evaluation", "runs"],
    ["tasks"],
    ["training"],
    ["builder", "reporting"],
    ["benchmarks"],
    ["commands"],
    ["__init__", "__main__", "cli"],  # __init__ opens a door to `load_policy`
]
# Packages of one layer that must not know one another; what one of them needs of another, the builder hands over.
STRANGERS = ["networks", "envs", "buffers", "data", "rewards", "heads", "partners"]
# An environment asks a reward, or a partner, through its protocol.
ALLOWED_BETWEEN_STRANGERS = {("envs", "rewards"), ("envs", "partners")}
KNOW_HYDRA = {
    "config.composition", "config.messages", "config.own_experiment", "config.run_config", "commands.train",
    "commands.train_arguments",
}  # fmt: skip


@functools.cache
def modules() -> dict[str, Path]:
    """`networks.base` -> its file."""
    files = [path for path in ROOT.rglob("*.py") if "configs" not in path.relative_to(ROOT).parts]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


@functools.cache
def imported(path: Path) -> tuple[set[str], set[str]]:
    """(modules of this package, other top-level packages) that a file imports anywhere, for types alone excepted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    known = modules()
    own = set()
    for name in names:
        parts = name.split(".")[1:]
        if name.split(".")[0] == "dqnlm":
            candidates = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
            own.add(next((c for c in candidates if c in known), "__init__"))
    return own, {name.split(".")[0] for name in names} - {"dqnlm"}


def layer(module: str) -> int:
    """The number of a module's layer.

    Raises:
        AssertionError: it has none.
    """
    found = [number for number, names in enumerate(LAYERS) if {module, module.split(".")[0]} & set(names)]
    assert len(found) == 1, f"{module} belongs to {len(found)} layers: say in this test which"
    return found[0]


def test_no_module_imports_from_a_layer_above() -> None:
    """Bug: a circle of imports begins with one line that nobody sees."""
    found = [(module, other) for module, path in modules().items() for other in imported(path)[0]]
    wrong = [f"{module} imports {other}" for module, other in found if layer(other) > layer(module)]
    assert not wrong, "\n".join(wrong)
    named = {name for names in LAYERS for name in names}
    assert named <= {part for module in modules() for part in (module, module.split(".")[0])}, (
        "a layer of something gone"
    )


def test_networks_environments_and_buffers_never_import_one_another() -> None:
    """Bug: an environment that knows a network cannot be used without it."""
    wrong = []
    for module, path in modules().items():
        group = module.split(".")[0]
        for other in imported(path)[0]:
            pair = (group, other.split(".")[0])
            if (
                group in STRANGERS
                and pair[1] in STRANGERS
                and pair[0] != pair[1]
                and pair not in ALLOWED_BETWEEN_STRANGERS
            ):
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_only_the_configuration_knows_hydra_and_omegaconf() -> None:
    """Bug: a DictConfig below the builder: slow attribute access, and errors in Hydra's words in the middle of a run."""
    found = {module for module, path in modules().items() if imported(path)[1] & {"hydra", "omegaconf"}}
    assert found and found <= KNOW_HYDRA, found - KNOW_HYDRA


def test_parts_do_not_know_the_program_around_them() -> None:
    """Bug: a network, loss or environment that reads the configuration, prints, or needs a run folder."""
    program = {"config", "runs", "training", "evaluation", "builder", "commands", "cli"}
    parts = {"types", "ops", "problems", "objectives", "agent", *STRANGERS}
    for module, path in modules().items():
        if module.split(".")[0] in parts:
            own, others = imported(path)
            assert not program & {name.split(".")[0] for name in own}, module
            assert not {"rich", "tqdm", "argparse"} & others, module


def test_the_walk_finds_imports(tmp_path: Path) -> None:
    """Bug: the walk finds nothing, so that all tests of this file pass."""
    file = tmp_path / "module.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nimport dqnlm.networks.base\nfrom dqnlm.runs import checkpoint\n"
        "from dqnlm import load_policy\n"
        "if TYPE_CHECKING:\n    from dqnlm.training.trainer import Parts\n"
        "def f():\n    from dqnlm.data.text.corpora import Corpus\n    import hydra.core\n"
    )
    own, others = imported(file)
    assert own == {"networks.base", "runs.checkpoint", "__init__", "data.text.corpora"} and others == {"typing", "hydra"}
    assert len(modules()) > 60 and "networks.base" in modules()
