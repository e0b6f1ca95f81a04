"""`dqnlm info`: versions, devices, data and output folder, as an overview and for bug reports."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.errors import UserError
from dqnlm.utils.documents import documents_folder

PACKAGES = ("torch", "hydra-core", "omegaconf", "datasets", "rich", "tqdm", "numpy", "tensorboard", "matplotlib")


def main(argv: list[str]) -> int:
    """Prints the report, or JSON with --json. Returns 0."""
    parser = argparse.ArgumentParser(
        prog="dqnlm info", description="Versions, devices, and the data that is found.", formatter_class=HelpFormatter,
        epilog=examples("dqnlm info", "dqnlm info --json"),
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--output-dir", default="outputs", metavar="DIR", help="where runs are (default: %(default)s)")
    arguments = parser.parse_args(argv)
    report = collect(Path(arguments.output_dir))
    print(json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else as_text(report))
    return 0


def collect(output_dir: Path) -> dict[str, Any]:
    """Collects versions, devices, data, output, documents as plain values."""
    return {"versions": versions(), "devices": devices(), "data": data(), "output": output(output_dir), "docs": docs()}


def docs() -> str | None:
    """The folder of the documents; None where they are not installed."""
    folder = documents_folder()
    return None if folder is None else str(folder)


def versions() -> dict[str, str | None]:
    """Versions of dqnlm, Python, the system and each package; None where it is not installed."""
    found: dict[str, str | None] = {"dqnlm": importlib.metadata.version("dqnlm"), "python": platform.python_version()}
    found["system"] = platform.platform()
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def devices() -> dict[str, Any]:
    """CPU threads, and name and memory (bytes) of each CUDA device; `auto` is the device chosen by `device: auto`."""
    import torch

    cuda = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        cuda.append({"name": properties.name, "memory_bytes": properties.total_memory, "device": f"cuda:{index}"})
    return {
        "cpu": {"cores": os.cpu_count(), "torch_threads": torch.get_num_threads()},
        "cuda": cuda,
        "auto": "cuda" if cuda else "cpu",
    }


def data() -> dict[str, Any]:
    """The source of tiny Shakespeare, without downloading it."""
    from dqnlm.data.text.sources import tiny_shakespeare

    with _offline():
        try:
            source = tiny_shakespeare(path=None, bundled_fallback=False, bundled_characters=1, bundled_seed=0)
        except UserError as error:
            return {"tiny_shakespeare": None, "reason": str(error)}
    return {"tiny_shakespeare": source.origin, "sha256": source.sha256, "characters": len(source.text)}


@contextmanager
def _offline() -> Iterator[None]:
    saved = os.environ.get("DQNLM_OFFLINE")
    os.environ["DQNLM_OFFLINE"] = "1"
    try:
        yield
    finally:
        if saved is None:
            del os.environ["DQNLM_OFFLINE"]
        else:
            os.environ["DQNLM_OFFLINE"] = saved


def output(output_dir: Path) -> dict[str, Any]:
    """The output folder: number of runs, whether it is writable, free disk space in bytes."""
    from dqnlm.runs.directory import list_runs

    folder = output_dir.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return {
        "folder": str(folder),
        "runs": len(list_runs(folder)),
        "writable": existing.is_dir() and os.access(existing, os.W_OK),
        "free_bytes": shutil.disk_usage(existing).free,
    }


def as_text(report: dict[str, Any]) -> str:
    """The report as text."""
    devices, data, output = report["devices"], report["data"], report["output"]
    lines = [f"{name:<12}{version or 'not installed'}" for name, version in report["versions"].items()]
    lines += ["", f"{'cpu':<12}{devices['cpu']['cores']} cores, {devices['cpu']['torch_threads']} torch threads"]
    lines += [f"{d['device']:<12}{d['name']}, {d['memory_bytes'] / 2**30:.1f} GiB" for d in devices["cuda"]]
    lines += [] if devices["cuda"] else [f"{'cuda':<12}none"]
    lines += [f"{'auto':<12}device=auto trains on {devices['auto']}", ""]
    if data["tiny_shakespeare"]:
        lines.append(f"{'data':<12}tiny Shakespeare at {data['tiny_shakespeare']}, {data['characters']:,} characters")
    else:
        lines.append(f"{'data':<12}tiny Shakespeare is not here: a run downloads it, or takes the bundled corpus")
        lines += [f"{'':<12}{line.strip()}" for line in data["reason"].splitlines() if line.startswith("  - ")]
    free = f"{output['free_bytes'] / 2**30:.1f} GiB free"
    state = "" if output["writable"] else ", NOT writable"
    lines.append(f"{'outputs':<12}{output['folder']}: {output['runs']} runs, {free}{state}")
    lines.append(f"{'docs':<12}{report['docs'] or 'not installed'}")
    return "\n".join(lines)
