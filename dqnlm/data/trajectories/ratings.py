"""Human ratings of texts, stored as trajectories: one line {"prompt", "completion", "reward", ...} each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dqnlm.data.trajectories.files import read_file
from dqnlm.errors import UserError
from dqnlm.utils.files import require_regular, write_bytes_atomic

SCORES = "12345"
Scale = Literal["unit", "raw"]


class Sample(NamedTuple):
    """A text to be rated, and the seed of its sampling."""

    prompt: str
    completion: str
    seed: int


def reward_of(score: str, scale: Scale) -> float:
    """Maps ratings 1 .. 5 to 0, .25, .5, .75, 1 (unit), or to themselves (raw)."""
    return float(score) if scale == "raw" else (int(score) - 1) / (len(SCORES) - 1)


class Ratings:
    """The file of ratings. Lines are only appended; `undo` removes the last one of this session.

    Attributes:
        path: the file, which need not be there yet.
        rewards: (prompt, completion) -> reward, of all its lines.
    """

    def __init__(self, path: Path, scale: Scale) -> None:
        """Reads the existing file.

        Raises:
            UserError: a file that holds no trajectories, that cannot be read, or with rewards of the other scale.
        """
        if not path.name.endswith(".jsonl") or not path.parent.is_dir():
            raise UserError(f"--output {path}: name a file that ends in .jsonl, in a folder that is there")
        self.path, self.scale, self._lines = path, scale, list[bytes]()
        require_regular(path)
        with _naming(path):
            content = path.read_bytes() if path.exists() else b""
        items = read_file(str(path))[0] if content.strip() else []
        self.rewards = {(item.prompt, item.completion): sum(item.rewards) for item in items}
        self._begin = b"" if content.endswith(b"\n") or not content else b"\n"  # a last line without its end
        known = {reward_of(score, scale) for score in SCORES}
        other = next((reward for reward in self.rewards.values() if reward not in known), None)
        if other is not None:
            raise UserError(
                f"{path} holds the reward {other:g}, which --scale {scale} does not give, so that a score would mean two "
                "things: choose the other scale, or another file with --output"
            )

    def append(self, sample: Sample, score: str, origin: dict[str, Any]) -> None:
        """Appends one line, flushed to the disk. `origin` holds further fields of the line.

        Raises:
            UserError: the file cannot be written.
        """
        reward, now = reward_of(score, self.scale), datetime.now(UTC).isoformat(timespec="seconds")
        record = {"prompt": sample.prompt, "completion": sample.completion, "reward": reward}
        record |= origin | {"seed": sample.seed, "time": now}
        line = self._begin + json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with _naming(self.path), self.path.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        self._begin = b""
        self._lines.append(line)
        self.rewards[sample.prompt, sample.completion] = reward

    def undo(self, sample: Sample) -> None:
        """Removes the last line, which is that of `sample`, atomically.

        Raises:
            UserError: another program has written to the file since, or it cannot be written.
        """
        with _naming(self.path):
            content = self.path.read_bytes()
            if not content.endswith(self._lines[-1]):
                raise UserError(f"{self.path} has been changed by another program: nothing was undone")
            line = self._lines.pop()
            write_bytes_atomic(self.path, content.removesuffix(line))
        self._begin = b"\n" if line.startswith(b"\n") else b""
        del self.rewards[sample.prompt, sample.completion]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns disk errors into UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Mend that, or choose another file with --output.") from error
