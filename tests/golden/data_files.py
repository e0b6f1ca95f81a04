"""The files that the runs on record read, the same on every machine."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from tests.helpers import runs as tools


def _text(path: Path) -> None:
    tools.write_text(path)


def _log(path: Path) -> None:
    """Prompts of three digits and a letter; two lines an answer, each of which earns 1 where it is the prompt's letter."""
    draw, rows = random.Random(0), []
    for number in range(100, 160):
        letter = draw.choice("abcd")
        for _ in range(4):
            said = [draw.choice([letter, *"abcd"]) for _ in range(2)]
            reward = sum(line == letter for line in said)
            rows.append({"prompt": f"{number}{letter}\n", "completion": "\n".join(said), "reward": reward})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _pairs(path: Path) -> None:
    """Parallel files; an answer is its prompt written backwards."""
    draw = random.Random(0)
    path.mkdir()
    for part in ("train", "val", "test"):
        prompts = ["".join(draw.choices("abcd", k=draw.randint(1, 5))) for _ in range(40)]
        (path / f"{part}.x").write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
        (path / f"{part}.y").write_text("".join(f"{prompt[::-1]}\n" for prompt in prompts), encoding="utf-8")


def _talk(path: Path) -> None:
    said = [f"so {i} __eou__ yes {i} __eou__ and __eou__ no {i} __eou__\n" for i in range(12)]
    path.write_text("".join(said), encoding="utf-8")


def _model(path: Path) -> None:
    from tests.helpers import pretrained as pretrained_models

    pretrained_models.write(path, alphabet="0123456789abcd\n")


WRITERS: dict[str, Callable[[Path], None]] = {
    "text.txt": _text, "log.jsonl": _log, "pairs": _pairs, "talk.txt": _talk, "model": _model,
}  # fmt: skip


def write(folder: Path, names: tuple[str, ...]) -> None:
    """Writes the named files into `folder`."""
    for name in names:
        WRITERS[name](folder / name)
