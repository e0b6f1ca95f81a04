"""Arguments common to every command that reads a policy from a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dqnlm.agent.policy import Policy


GREATEST_SEED = 2**62  # of 64 bits with a sign, with room for those counted on from it


def seed_number(text: str) -> int:
    """A seed typed. Raises argparse.ArgumentTypeError where a generator of 64 bits does not take it."""
    seed = int(text)
    if abs(seed) >= GREATEST_SEED:
        raise argparse.ArgumentTypeError(f"{text} is beyond the seeds of generators, {GREATEST_SEED:,}")
    return seed


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds the weights of several rewards."""
    parser.add_argument(
        "--weights", metavar="NAME=NUMBER,...",
        help="runs on several rewards (data.rewards): act by the sum of their Qs with these weights; a reward that is not named "
        "has 0 (default: policy.weights of the run)",
    )  # fmt: skip


def set_weights(policy: Policy, text: str | None) -> None:
    """Gives the policy the weights typed.

    Raises:
        UserError: they are no NAME=NUMBER, or of rewards that the run has not learned.
    """
    from dqnlm.agent.reward_weights import read_weights, weights_of

    if text is not None:
        policy.weights = weights_of(read_weights(text, "--weights"), policy.spec.reward_names, "--weights")


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
        "places", nargs="*", default=[], metavar="key=PATH",
        help="where a file or folder of the run lies now, such as data.path=FILE",
    )  # fmt: skip
    return parser.parse_intermixed_args(argv)
