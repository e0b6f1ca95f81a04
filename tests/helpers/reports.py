"""Made-up run folders for the tests of `dqnlm report` and `dqnlm runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dqnlm.config.sections import sections

CONFIG: dict[str, Any] = {
    **{key: {} for key in sections()},  # what no test of reports reads
    "seed": 0,
    "output_dir": "outputs",
    "data": {"_target_": "dqnlm.data.text.sources.build_text_file", "tokenizer": "character", "heldout_fraction": 0.1},
    "network": {"_target_": "dqnlm.networks.transformer.Transformer", "layers": 4, "width": 128},
    "gamma": 0.5, "learner": {"_target_": "dqnlm.agent.learner.Learner"},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with dotted keys replaced."""
    config: dict[str, Any] = json.loads(json.dumps(base))
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return config


def make_run(
    folder: Path,
    changes: dict[str, Any] | None = None,
    *,
    points: list[dict[str, Any]] | None = None,
    samples: list[dict[str, Any]] | None = None,
    summary: dict[str, Any] | None = None,
    sha256: str = "ab" * 32,
    choices: dict[str, Any] | None = None,
) -> Path:
    """Writes a run folder; JSON is YAML, so that config.yaml needs no writer of its own."""
    folder.mkdir(parents=True)
    config = merged(CONFIG, changes or {})
    (folder / "config.yaml").write_text(json.dumps(config))
    manifest = {
        "command_line": ["dqnlm", "train", "+experiment=shakespeare"],
        "seed": config["seed"],
        "choices": {"network": "transformer", "experiment": "shakespeare"} | (choices or {}),
        "data": {"name": "made up", "sha256": sha256},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    lines(folder / "metrics.jsonl", rising() if points is None else points)
    lines(folder / "samples.jsonl", samples or [])
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    """One object a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def point(step: int, **figures: float) -> dict[str, Any]:
    """A log point; `eval_accuracy` stands for eval/accuracy."""
    counters = {"step": step, "env_steps": step * 8, "transitions": step * 64, "wall_s": step * 0.5}
    return counters | {name.replace("_", "/", 1): value for name, value in figures.items()}


def rising(top: float = 0.4, steps: int = 5) -> list[dict[str, Any]]:
    """Accuracy that rises to `top`, a loss that falls; every second point has an evaluation."""
    points = []
    for number in range(steps):
        share = number / (steps - 1)
        points.append(point(number * 100, loss_td=1.0 - 0.5 * share))
        if number % 2 == 0:
            points[-1] |= {"eval/accuracy": top * share, "eval/nll": 3.0 - share}
    return points


FINISHED = {
    "status": "finished", "last": {"eval/accuracy": 0.4}, "best": {"eval/accuracy": 0.41, "eval/return": 7.5},
    "best_metric": "eval/accuracy", "totals": {},
}  # fmt: skip
