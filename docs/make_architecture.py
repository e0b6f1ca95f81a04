"""Draws docs/architecture.svg: the packages of dqnlm, read from the import statements, each above all that it imports.

    python docs/make_architecture.py            writes the picture
    python docs/make_architecture.py --check    exit code 1 where the picture is not what the code gives

An arrow A -> B means that A imports B. Arrows that follow from two others are left out (the transitive reduction), and so are
imports for types alone. Needs nothing but Python.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "dqnlm"
PICTURE = Path(__file__).resolve().parent / "architecture.svg"
ENTRY = ("__init__", "__main__", "configs")  # doors to the program, not parts of it
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 104, 34, 20, 44, 16  # pixels

Graph = dict[str, set[str]]


def _imports_of_types(tree: ast.AST) -> set[int]:
    """The nodes below `if TYPE_CHECKING:`, by id."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {id(node) for block in blocks for node in ast.walk(block)}


def imported_packages(source: str) -> set[str]:
    """The names directly below `dqnlm` that a file imports: `from dqnlm.ops import losses` -> {"ops"}."""
    tree = ast.parse(source)
    skipped, names = _imports_of_types(tree), set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "dqnlm":
            names |= {f"dqnlm.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("dqnlm.")}


def read(root: Path = ROOT) -> Graph:
    """Package (or module of the root folder) -> the others that it imports."""
    graph: Graph = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).parts[0].removesuffix(".py")
        if name not in ENTRY:
            graph.setdefault(name, set()).update(imported_packages(path.read_text(encoding="utf-8")))
    return {name: (others & graph.keys()) - {name} for name, others in graph.items()}


def floors(graph: Graph) -> list[list[str]]:
    """Packages in rows, each above all that it imports; the lowest row imports nothing.

    Raises:
        ValueError: packages import one another in a circle.
    """
    rows: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(graph):
        row = sorted(name for name, others in graph.items() if name not in placed and others <= placed)
        if not row:
            raise ValueError(f"a circle of imports among {sorted(graph.keys() - placed)}")
        rows.append(row)
        placed.update(row)
    return rows


def reduced(graph: Graph) -> list[tuple[str, str]]:
    """The imports that do not follow from others."""
    below: Graph = {}
    for row in floors(graph):
        for name in row:
            below[name] = set().union(graph[name], *(below[other] for other in graph[name]))
    return sorted(
        (name, other)
        for name, others in graph.items()
        for other in others
        if not any(other in below[between] for between in others)
    )


def _places(rows: list[list[str]]) -> dict[str, tuple[float, float]]:
    """The upper left corner of each box; the row that imports most is at the top."""
    widest = max(len(row) for row in rows)
    places = {}
    for height, row in enumerate(reversed(rows)):
        offset = (widest - len(row)) * (BOX_WIDTH + GAP_X) / 2
        for index, name in enumerate(row):
            x = MARGIN + offset + index * (BOX_WIDTH + GAP_X)
            places[name] = (x, MARGIN + height * (BOX_HEIGHT + GAP_Y))
    return places


def draw(graph: Graph) -> str:
    """The picture as SVG."""
    rows = floors(graph)
    places = _places(rows)
    width = 2 * MARGIN + max(len(row) for row in rows) * (BOX_WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="14">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for name, other in reduced(graph):
        (x1, y1), (x2, y2) = places[name], places[other]
        start, end = (x1 + BOX_WIDTH / 2, y1 + BOX_HEIGHT), (x2 + BOX_WIDTH / 2, y2)
        bend = (end[1] - start[1]) / 2
        lines.append(
            f'<path d="M{start[0]:g} {start[1]:g} C{start[0]:g} {start[1] + bend:g} {end[0]:g} {end[1] - bend:g} '
            f'{end[0]:g} {end[1]:g}" fill="none" stroke="#7a8ba0" stroke-width="1.2"/>'
        )
    for name, (x, y) in sorted(places.items()):
        lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" fill="#eef3fa" stroke="#3b5b88"/>'
        )
        lines.append(
            f'<text x="{x + BOX_WIDTH / 2:g}" y="{y + 22:g}" text-anchor="middle" fill="#14243c">{name}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def main(arguments: list[str]) -> int:
    picture = draw(read())
    if arguments == ["--check"]:
        return int(not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != picture)
    PICTURE.write_text(picture, encoding="utf-8")
    print(f"wrote {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
