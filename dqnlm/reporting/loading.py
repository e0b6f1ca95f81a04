"""Reads a run directory: settings, log points, samples, and status. Needs neither torch nor datasets.

Settings and metrics of a run of an earlier version are given by their names of today (`dqnlm.config.moved`).
A process that is killed while writing can leave the last line of a JSONL file without its line break. Such a line is
left out with a note; anything else that cannot be read is an error that names the file and the line.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqnlm.config.moved import renewed_config, renewed_metric, renewed_metrics
from dqnlm.config.sections import require_whole
from dqnlm.errors import UserError
from dqnlm.utils.files import require_regular
from dqnlm.utils.parsing import json_value, yaml_value

TAIL_BYTES = 256 * 1024  # of metrics.jsonl, enough for some hundred log points
LIVE_SECONDS = 600  # a folder without a summary whose metrics changed within this time is taken to be running

Point = dict[str, Any]
# Directions for runs of versions whose manifests do not list their metrics.
BEFORE_METRICS_WERE_DECLARED = [
    *({"name": f"eval/{name}", "higher_is_better": True} for name in ("accuracy", "return", "chrf", "bleu")),
    *({"name": f"eval/nll{end}", "higher_is_better": False} for end in ("", "_softmax", "_best")),
]


@dataclass(frozen=True)
class RunData:
    """The contents of one run directory.

    Attributes:
        path: the folder.
        name: `<date>/<time>-<experiment>`.
        status: finished, interrupted, failed; without a summary running or unknown.
        config: the resolved settings, nested; empty when they cannot matter to the caller.
        manifest: recorded at the start (command line, versions, data).
        points: log points in file order; figures are numbers, or text for a few.
        samples: generated texts in file order, each {"step", "kind", "prompt", "text"}.
        notes: sentences about irregularities of the files.
    """

    path: Path
    name: str
    status: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    points: list[Point]
    samples: list[Point]
    notes: list[str]

    def metric_names(self) -> list[str]:
        """Names of the numeric metrics that were ever logged, `group/name`, in order of first appearance."""
        names = {key: None for point in self.points for key, value in point.items() if "/" in key and is_number(value)}
        return list(names)

    def series(self, figure: str, axis: str = "step") -> tuple[list[float], list[float]]:
        """(x, y) of the log points that carry both; non-finite y are left out (`odd_values` counts them)."""
        pairs = [
            (float(point[axis]), float(point[figure]))
            for point in self.points
            if is_number(point.get(axis)) and is_number(point.get(figure)) and math.isfinite(point[figure])
        ]
        return [x for x, _ in pairs], [y for _, y in pairs]

    def last(self, key: str) -> Any:
        """The latest value of a metric or counter, or None where it was never logged."""
        return next((point[key] for point in reversed(self.points) if point.get(key) is not None), None)

    def best(self, figure: str) -> tuple[float, float] | None:
        """(step, value) of the best finite value, by the direction that the run's evaluator declared.

        None where there is no value, and for figures of which neither more nor less is better.
        """
        steps, values = self.series(figure)
        better = self.higher_is_better(figure)
        if not values or better is None:
            return None
        pick = max if better else min
        index = pick(range(len(values)), key=values.__getitem__)
        return steps[index], values[index]

    def declared(self) -> list[dict[str, Any]]:
        """The metrics of the run's evaluator, see `dqnlm.metrics.Metric`."""
        declared: list[dict[str, Any]] = self.manifest.get("metrics", BEFORE_METRICS_WERE_DECLARED)
        return declared

    def metric(self, name: str) -> dict[str, Any]:
        """The evaluator's declaration of a metric, see `dqnlm.metrics.Metric`; {} for others."""
        return next((metric for metric in self.declared() if metric["name"] == name), {})

    def higher_is_better(self, figure: str) -> bool | None:
        """The direction of a metric; None where neither more nor less is better."""
        if figure.startswith("loss/"):
            return False
        if figure == "rollout/return":
            return True
        better: bool | None = self.metric(figure).get("higher_is_better")
        return better

    def odd_values(self) -> dict[str, int]:
        """The number of values of each metric that are infinite or not a number."""
        counts: dict[str, int] = {}
        for point in self.points:
            for key, value in point.items():
                if is_number(value) and not math.isfinite(value):
                    counts[key] = counts.get(key, 0) + 1
        return counts


def is_number(value: Any) -> bool:
    """True for int and float, not for bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def load_run(path: Path, name: str) -> RunData:
    """Reads a whole run.

    Raises:
        UserError: config.yaml or manifest.json is missing, or a file is damaged; names the file and the line.
    """
    notes: list[str] = []
    config = read_config(path / "config.yaml")
    manifest = read_manifest(path)
    points = read_lines(path / "metrics.jsonl", notes)
    samples = read_lines(path / "samples.jsonl", notes)
    if not points:
        notes.append("metrics.jsonl holds no log point yet")
    run = RunData(path, name, read_status(path, read_summary(path)), config, manifest, points, samples, notes)
    notes += [f"{figure}: {count} values are infinite or not a number and are left out of the curves"
              for figure, count in run.odd_values().items()]  # fmt: skip
    steps = [point["step"] for point in points if is_number(point.get("step"))]
    if any(later < earlier for earlier, later in itertools.pairwise(steps)):
        notes.append("metrics.jsonl runs backwards in places: lines of two processes may be mixed")
    return run


def read_config(path: Path) -> dict[str, Any]:
    """The resolved settings of a run as nested plain values, without Hydra's own part.

    Raises:
        UserError: missing, not YAML (with the line), no mapping, or without a part that every run has (a file cut short
            may still be YAML).
    """
    try:
        config = yaml_value(_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} should hold a mapping of settings but holds {type(config).__name__}.")
    renewed = renewed_config({str(key): value for key, value in config.items() if key != "hydra"})
    require_whole(renewed, path)
    return renewed


def read_lines(path: Path, notes: list[str]) -> list[Point]:
    """The objects of a JSONL file; a last line without its line break that cannot be read is left out and noted.

    A missing file gives an empty list: runs write these files with the first log point.

    Raises:
        UserError: a line is no JSON object.
    """
    if not path.exists():
        return []
    return list(_objects(path, _bytes(path), 1, notes))


def read_tail(path: Path, notes: list[str], tail_bytes: int = TAIL_BYTES) -> list[Point]:
    """As `read_lines`, of about the last `tail_bytes` bytes only; line numbers in messages count from there."""
    if not path.exists():
        return []
    require_regular(path)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - tail_bytes - 1))
            content = stream.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if size > tail_bytes:
        # The first line is a fragment unless the byte before the tail is a line break, which split then removes.
        _, _, content = content.partition(b"\n")
    return list(_objects(path, content, 1 if size <= tail_bytes else None, notes))


def read_summary(path: Path) -> dict[str, Any] | None:
    """summary.json of a run, or None while there is none.

    Raises:
        UserError: it is damaged.
    """
    if not (path / "summary.json").exists():
        return None
    summary = _with(path / "summary.json", _IN_SUMMARY)
    if isinstance(summary.get("best_metric"), str):
        summary["best_metric"] = renewed_metric(summary["best_metric"])
    return summary | {key: renewed_metrics(summary[key]) for key in ("last", "best") if isinstance(summary.get(key), dict)}


def read_status(path: Path, summary: dict[str, Any] | None, now: float | None = None) -> str:
    """The status of a run.

    The summary has it, unless the metrics were written after it within the last minutes: then the run was resumed.
    Without a summary the run is `running` when its metrics (or its manifest, before the first log point) changed within
    `LIVE_SECONDS`, else `unknown`: it was killed, or its machine stopped.
    """
    now = time.time() if now is None else now
    metrics, manifest, ended = path / "metrics.jsonl", path / "manifest.json", path / "summary.json"
    written = max((file.stat().st_mtime for file in (metrics, manifest) if file.exists()), default=0.0)
    live = now - written < LIVE_SECONDS
    if summary is None:
        return "running" if live else "unknown"
    # A second of grace: the files of a copied folder are written in any order.
    if live and metrics.exists() and metrics.stat().st_mtime > ended.stat().st_mtime + 1.0:
        return "running"
    return str(summary.get("status", "unknown"))


# What readers rely on; a key that is missing or null is one that an earlier version did not write.
_IN_MANIFEST: dict[str, type] = {"choices": dict, "data": dict, "metrics": list, "known": dict, "command_line": list, "seed": int}
_IN_SUMMARY: dict[str, type] = {"status": str, "totals": dict, "last": dict, "best": dict, "best_metric": str, "notes": list}


def read_manifest(run: Path) -> dict[str, Any]:
    """manifest.json of a run folder.

    Raises:
        UserError: missing or damaged.
    """
    return _with(run / "manifest.json", _IN_MANIFEST)


def _with(path: Path, types: dict[str, type]) -> dict[str, Any]:
    found = read_json(path)
    for key, kind in types.items():
        if found.get(key) is not None and not isinstance(found[key], kind):
            raise UserError(f"{path}: {key} should be a JSON {_NAMES[kind]}. The file is damaged.")
    return found


_NAMES = {dict: "object", list: "array", str: "string", int: "number"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object.

    Raises:
        UserError: missing or damaged, with the line.
    """
    try:
        value = json_value(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}). The file is damaged.") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). The file is damaged.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold a JSON object but holds {type(value).__name__}.")
    return value


def _objects(path: Path, content: bytes, first_line: int | None, notes: list[str]) -> Iterator[Point]:
    lines = content.split(b"\n")
    unfinished = lines.pop()  # empty when the file ends with a line break, as a whole file does
    for index, line in enumerate(lines):
        number = f"line {first_line + index}" if first_line else f"line {len(lines) - index} from the end"
        yield renewed_metrics(_object(line, f"{path}, {number}"))
    if unfinished:
        try:
            yield renewed_metrics(_object(unfinished, str(path)))
        except UserError:
            notes.append(f"the last line of {path.name} was cut off, as by a crash, and is left out")


def _object(line: bytes, where: str) -> Point:
    advice = "The file is damaged there; a copy of the run, or `dqnlm resume`, which rewrites it, may help."
    try:
        value = json_value(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}). {advice}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: should be a JSON object but is {type(value).__name__}. {advice}")
    return value


def _bytes(path: Path) -> bytes:
    require_regular(path)
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing, so {path.parent} is no complete run folder. `dqnlm runs` lists the runs."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: byte {error.start} is not UTF-8. The file is damaged.") from error
