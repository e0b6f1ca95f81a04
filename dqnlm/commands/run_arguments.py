"""Arguments common to every command that reads a policy from a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_run_arguments(parser: argparse.ArgumentParser, device: bool = True) -> None:
    """Adds the arguments for the run, its checkpoint, the output folder, permitted code and the device.
    """
    parser.add_argument("run", help="a run's folder, `latest`, or a unique prefix of its name")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a step (default: best)")
    if device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    parser.add_argument(
        "--allow-targets", action="append", default=[], metavar="MODULE", help="permit code of the run outside dqnlm"
    )
    parser.add_argument(
        "--base", metavar="FOLDER", help="where the pretrained model of a LoRA run is now (default: where it was trained from)"
    )
    parser.add_argument("--output-dir", default="outputs", help="where runs are (default: outputs)")


def parse_run_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; places of the run's files, as settings, may stand anywhere behind the run."""
    parser.add_argument(
        "places", nargs="*", metavar="key=PATH", help="where a file or folder of the run lies now, such as data.path=FILE"
    )
    return parser.parse_intermixed_args(argv)
