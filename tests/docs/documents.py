"""The documents of the repository, taken apart: fenced blocks, command lines, inline code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
DOCUMENTS = (*ENGLISH, "README.zh.md")
_NAMED = re.compile(r"`([\w./-]+\.(?:py|ya?ml|jsonl|txt))`\s*[:\uff1a]$")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        language: what stands behind the opening fence.
        file: the file that the text before the block names (a line that ends in "`NAME`:"); None where it names none.
        line: number of the opening fence.
        text: what is between the fences.
    """

    language: str
    file: str | None
    line: int
    text: str


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks, in order."""
    found: list[Block] = []
    opening, inside, before = None, [], ""
    for number, line in enumerate(markdown.splitlines(), 1):
        if line.startswith("```") and opening is None:
            opening, inside = (line[3:].strip(), number), []
        elif line.startswith("```") and opening is not None:
            named = _NAMED.search(before)
            found.append(Block(opening[0], named[1] if named else None, opening[1], "\n".join(inside) + "\n"))
            opening, before = None, ""
        elif opening is not None:
            inside.append(line)
        elif line.strip():
            before = line.strip()
    assert opening is None, f"the block that begins in line {opening} has no end"
    return found


def commands(block: Block) -> list[str]:
    """The command lines of a bash block; a backslash joins lines, comments are left out."""
    joined = block.text.replace("\\\n", " ").splitlines()
    return [without_comment(line) for line in joined if without_comment(line)]


def without_comment(line: str) -> str:
    """A line of shell up to ` #`, where that stands outside quotes."""
    quote = ""
    for place, letter in enumerate(line):
        if letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        elif letter == "#" and not quote and (place == 0 or line[place - 1].isspace()):
            return line[:place].strip()
    return line.strip()


def inline(markdown: str) -> list[str]:
    """What stands between single backticks outside the fenced blocks."""
    outside = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", outside)


def words(line: str) -> tuple[dict[str, str], list[str]]:
    """(variables set in front, the words) of one simple command."""
    found = shlex.split(line)
    variables = {}
    while found and re.fullmatch(r"[A-Z_]+=.*", found[0]):
        name, value = found.pop(0).split("=", 1)
        variables[name] = value
    return variables, found
