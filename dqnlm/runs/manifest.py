"""manifest.json: origin of a run (command line, versions, seed, device, commit, data)."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dqnlm.metrics import Metric
from dqnlm.utils import user_code

PACKAGES = ("dqnlm", "torch", "hydra-core", "omegaconf", "datasets", "numpy")
OF_PRETRAINED = ("transformers", "peft", "tokenizers", "safetensors")  # and of runs on a pretrained model


def manifest(
    *,
    seed: int,
    choices: dict[str, Any],
    command_line: list[str],
    device: torch.device,
    data: dict[str, Any],
    places: dict[str, str],
    metrics: Sequence[Metric],
    known: dict[str, dict[str, float]],
    is_pretrained: bool,
) -> dict[str, Any]:
    """The content of manifest.json.

    Args:
        seed: of the run.
        choices: group -> option, as chosen on the command line.
        command_line: as typed.
        device: where the run computes.
        data: source, sizes and fingerprint of the data, as plain values.
        places: setting that names a file or folder -> sha256 of what it holds.
        metrics: of evaluations: their names, labels and directions, which reports read.
        known: name -> metrics of what is known without learning, which reports show beside the run.
        is_pretrained: the network's trunk is a model of transformers, whose packages are then listed too.
    """
    return {
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command_line": command_line,
        "choices": choices,
        "seed": seed,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in (*PACKAGES, *(OF_PRETRAINED if is_pretrained else ()))},
        "git_commit": _git_commit(),
        "own_code": user_code.checksums(),
        "data": data,
        "places": places,
        "metrics": [metric._asdict() for metric in metrics],
        "known": known,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parents[2]  # the checkout that holds dqnlm/
    if not (here / ".git").exists():
        return None
    result = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
