#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Numbers about the structure of the package, and what each of them must be.

    scripts/python scripts/structure.py

Root files: Python files directly in dqnlm/. Import circles: groups of modules that import one another, directly or through
others, imports for types alone included. Kinds of data: `isinstance` with a class of data, or an evaluator of one, outside
dqnlm/tasks. Unread settings: keyword-only parameters of a `_target_` in configs/ that its own class or function does not
read; settings of a settings class must be read from an instance somewhere.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE, CONFIGS = CHECKOUT / "dqnlm", CHECKOUT / "configs"
KINDS = {
    "Corpus", "Pairs", "Log", "Trajectories", "NoData", "TextEvaluator", "PairEvaluator", "LogEvaluator", "EpisodeEvaluator",
    "Continuation", "Prompted", "Logged", "Dialogue", "TextTask", "AnswersTask", "LogTask", "EnvironmentTask", "Prompts",
    "Completions", "CompletionEvaluator", "PromptsTask",
}  # fmt: skip


def trees(root: Path = PACKAGE) -> dict[str, ast.Module]:
    """Module below the package -> its syntax tree."""
    paths = sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)
    return {".".join(p.relative_to(root).with_suffix("").parts): ast.parse(p.read_text(encoding="utf-8")) for p in paths}


def imports(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports anywhere."""
    graph: dict[str, set[str]] = {}
    for module, tree in modules.items():
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        own = {name.removeprefix("dqnlm.") for name in names if name.startswith("dqnlm.")}
        graph[module] = (own & modules.keys()) - {module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules each of which reaches the others."""
    reached = {module: _reachable(module, graph) for module in graph}
    groups = {frozenset({m, *(o for o in reached[m] if m in reached[o])}) for m in graph}
    return [set(group) for group in groups if len(group) > 1]


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen, left = set(), [start]
    while left:
        for other in graph[left.pop()] - seen:
            seen.add(other)
            left.append(other)
    return seen


def asked_kinds(modules: dict[str, ast.Module]) -> list[str]:
    """`isinstance` on a kind of data outside the tasks, as module:line."""
    found = []
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                if names & KINDS and not module.startswith("tasks."):
                    found.append(f"{module}:{node.lineno}")
    return found


def targets() -> set[str]:
    """All `_target_` of configs/."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "_target_" in node:
                yield node["_target_"]
            for part in node.values():
                yield from walk(part)

    return {found for path in CONFIGS.rglob("*.yaml") for found in walk(yaml.safe_load(path.read_text(encoding="utf-8")))}


def definition(target: Any) -> ast.AST:
    """The body of a function, or of a class's constructor (its own, or the nearest inherited one)."""
    function = target.__init__ if inspect.isclass(target) else target
    found: ast.AST = ast.parse(Path(inspect.getfile(function)).read_text(encoding="utf-8"))
    for name in function.__qualname__.split("."):
        kinds = (ast.ClassDef, ast.FunctionDef)
        found = next(n for n in ast.iter_child_nodes(found) if isinstance(n, kinds) and n.name == name)
    return found


def loaded(tree: ast.AST) -> set[str]:
    """Names that are read anywhere below."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def unread_settings(modules: dict[str, ast.Module]) -> list[str]:
    """Settings that their owner does not read, as target.setting."""
    attributes = {
        n.attr for tree in modules.values() for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)
    }  # fmt: skip
    found = []
    for name in sorted(targets()):
        module, _, attribute = name.rpartition(".")
        target = getattr(importlib.import_module(module), attribute)
        kind = inspect.Parameter.KEYWORD_ONLY
        settings = {p.name for p in inspect.signature(target).parameters.values() if p.kind is kind}
        is_record = hasattr(target, "__dataclass_fields__")
        read = attributes if is_record else loaded(definition(target)) if settings else set()
        found += [f"{name}.{setting}" for setting in sorted(settings - read)]
    return found


def numbers() -> dict[str, tuple[int, int, list[str]]]:
    """What is counted -> (number, the most it may be, examples)."""
    modules = trees()
    files = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    root = [path.name for path in PACKAGE.glob("*.py")]
    long = [f"{path.relative_to(CHECKOUT)} ({lines})" for path, lines in files.items() if lines > 400]
    found = [" <-> ".join(sorted(group)) for group in circles(imports(modules))]
    kinds, unread = asked_kinds(modules), unread_settings(modules)
    return {
        "Python files in the root": (len(root), 8, root),
        "import circles": (len(found), 0, found),
        "files over 400 lines": (len(long), 0, long),
        "isinstance on kinds of data outside the tasks": (len(kinds), 0, kinds),
        "settings that their owner does not read": (len(unread), 0, unread),
    }


def main() -> int:
    """Prints the numbers; 1 where one is too large."""
    parser = argparse.ArgumentParser(description="Numbers about the structure of the package.")
    parser.parse_args()
    code = 0
    for what, (number, most, examples) in numbers().items():
        too_many = number > most
        code |= too_many
        print(f"{number:>4}  (at most {most})  {what}" + (f": {', '.join(examples[:8])}" if too_many else ""))
    return code


if __name__ == "__main__":
    sys.exit(main())
