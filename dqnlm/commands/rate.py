"""`dqnlm rate RUN`: shows a run's samples one by one and stores the user's ratings, for training.

Each rating is one line {"prompt", "completion", "reward", ...} of a JSONL file that `data=logged` and `data=trajectories` read,
written at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.commands.rated_training import command_on_text, training_command, typed
from dqnlm.commands.run_arguments import add_run_arguments, parse_run_arguments, seed_number
from dqnlm.data.trajectories.ratings import SCORES, Ratings, Sample
from dqnlm.errors import UserError
from dqnlm.utils.terminal import read_line

if TYPE_CHECKING:
    from dqnlm.agent.policy import Policy

KEYS = "score 1 to 5, s = skip, u = undo the last, q = quit: "


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm rate",
        description="Shows texts of a run's policy one by one and stores your score of each as training data. "
        "Texts that are in the file already are not shown again.",
        epilog=f"keys: {KEYS.removesuffix(': ')}. Where standard input is no terminal, one key a line is read.\n\n"
        + examples("dqnlm rate latest"), formatter_class=HelpFormatter,
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--prompt",
        help="text that the samples continue (default: a line break; held-out prompts where the run has such)",
    )
    parser.add_argument("--n", type=int, default=20, help="samples to show (default: 20)")
    parser.add_argument("--max-tokens", type=int, default=200, help="tokens of each (default: 200)")
    parser.add_argument("--temperature", type=float, help="of the declared policy, as in dqnlm generate")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the first sample; the next has the next (default: 0)")
    parser.add_argument(
        "--scale", choices=("unit", "raw"), default="unit",
        help="reward of the scores 1 to 5: unit = 0 to 1 in steps of a quarter, raw = 1 to 5 (default: unit)",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="FILE", help="ratings, appended (default: ratings.jsonl in the run's folder)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Asks until the samples end, the input ends or the user quits. Returns the exit code, 0.

    Raises:
        UserError: no such run, a run that generates no text, a file that cannot be added to, or a number out of range.
        KeyboardInterrupt: Ctrl-C, after the summary; all ratings given are in the file.
    """
    arguments = parse_run_arguments(_parser(), argv)

    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.reporting.names import run_name
    from dqnlm.runs.directory import find_run
    from dqnlm.tasks.select import task_class

    for name, value in (("--max-tokens", arguments.max_tokens), ("--n", arguments.n)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    folder = find_run(arguments.run, arguments.output_dir)
    ratings = Ratings(Path(arguments.output) if arguments.output else folder / "ratings.jsonl", arguments.scale)
    policy, config = load_policy_and_config(
        folder, arguments.checkpoint, arguments.output_dir, arguments.device, arguments.allow_targets,
        arguments.base, arguments.places,
    )  # fmt: skip
    name = run_name(folder, Path(arguments.output_dir))
    origin = {"run": name, "checkpoint": arguments.checkpoint, "step": policy.step}
    print(f"{name}, checkpoint {arguments.checkpoint} (step {policy.step}); ratings go to {ratings.path}")
    before = len(ratings.rewards)
    stop = task_class(config).completion_end
    prompts = _prompts(arguments, policy, config, stop)
    try:
        session(samples(policy, arguments, prompts, set(ratings.rewards), stop), ratings, origin, read_key)
    finally:
        _conclude(ratings, len(ratings.rewards) - before, folder, config)
    return 0


def _prompts(arguments: argparse.Namespace, policy: Policy, config: dict[str, Any], stop: str | None) -> list[str]:
    """The prompt that was given, else those of the run's held-out part, else a line break."""
    import torch

    from dqnlm.builder.loading import load_data
    from dqnlm.builder.places import require_there
    from dqnlm.runs.directory import RunDirectory, find_run
    from dqnlm.tasks.select import task_class

    if arguments.prompt is not None:
        return [arguments.prompt if stop is None else arguments.prompt.rstrip(stop) + stop]
    kind = task_class(config)
    if not kind.has_heldout_prompts:
        return ["\n"]
    run = RunDirectory(find_run(arguments.run, arguments.output_dir))
    require_there(run, config, lambda words: f"{shlex.join(['dqnlm', 'rate', str(run.path)])} {words}")
    data = load_data(policy, config)
    return kind(config, data, torch.device("cpu")).heldout_prompts()


def samples(
    policy: Policy,
    arguments: argparse.Namespace,
    prompts: list[str],
    seen: set[tuple[str, str]],
    stop: str | None = None,
) -> Iterator[Sample]:
    """Generates texts that differ from `seen` and one another, with `n` seeds, each up to `stop`, in turn over prompts.

    Raises:
        UserError: the policy is greedy, so that all samples of a prompt would be the same.
    """
    kind = policy.default if arguments.temperature is None else policy.declared
    if kind == "greedy" and arguments.n > len(prompts):
        raise UserError(
            "this run writes greedily (no text has fitted a temperature to its Q), so all samples of a prompt would be the "
            f"same: give --temperature, in units of its returns, or --n {len(prompts)}"
        )
    for number, seed in enumerate(range(arguments.seed, arguments.seed + arguments.n)):
        prompt = prompts[number % len(prompts)]
        [text] = policy.generate(
            prompt, arguments.max_tokens, policy=kind, temperature=arguments.temperature, seed=seed
        )
        text = text.split(stop)[0] if stop else text
        if text and (prompt, text) not in seen:
            seen.add((prompt, text))
            yield Sample(prompt, text, seed)


def session(texts: Iterator[Sample], ratings: Ratings, origin: dict[str, Any], key_of: Callable[[], str]) -> None:
    """Shows each sample and executes the key; `key_of` returns one key, or nothing at the end of the input."""
    answered: list[tuple[Sample, bool]] = []  # and whether it was rated, not skipped
    again: list[Sample] = []  # what undo has brought back, next one last
    while True:
        sample = again.pop() if again else next(texts, None)
        if sample is None and not answered:
            print(
                "nothing to rate: all these samples are in the file already" if ratings.rewards else "nothing to rate"
            )
            return
        key = _ask(sample, key_of)
        if key == "u":
            again += [] if sample is None else [sample]
            if not answered:
                print("nothing to undo in this session")
                continue
            last, rated = answered.pop()
            if rated:
                ratings.undo(last)
            again.append(last)
        elif key == "q" or sample is None:
            return
        else:
            if key in SCORES:
                ratings.append(sample, key, origin)
            answered.append((sample, key in SCORES))


def _ask(sample: Sample | None, key_of: Callable[[], str]) -> str:
    """Reads one of the keys; the end of the input counts as q."""
    if sample is None:
        print("\nthat was the last sample", flush=True)
    else:
        print(f"\n{'-' * 40} seed {sample.seed}\n{sample.prompt}{sample.completion}\n{'-' * 40}", flush=True)
    while True:
        print(KEYS if sample is not None else "u = undo the last, q = quit: ", end="", flush=True)
        key = key_of()
        print(key.strip() if key.isprintable() or key.endswith("\n") else "")
        if not key:
            return "q"
        if key.strip().lower() in (*SCORES, "s", "u", "q"):
            return key.strip().lower()


def read_key() -> str:
    """Reads a single key press on a terminal, else a line of standard input; empty at its end. See `read_line`."""
    try:
        import termios
        import tty
    except ImportError:  # not on Windows
        return read_line()
    if not sys.stdin.isatty():
        return read_line()
    descriptor = sys.stdin.fileno()
    usual = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)  # also forgets keys pressed before the text was shown; Ctrl-C still interrupts
        key = os.read(descriptor, 1)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, usual)
    return "" if key == b"\x04" else key.decode("ascii", "replace")  # Ctrl-D ends the input


def _conclude(ratings: Ratings, new: int, folder: Path, config: dict[str, Any]) -> None:
    """Prints the number of ratings, their mean, and the command that trains on them."""
    from dqnlm.tasks.select import task_class

    count = len(ratings.rewards)
    if not count:
        return
    mean = sum(ratings.rewards.values()) / count
    print(f"\n{count} ratings in {ratings.path} ({new} of this session), mean reward {mean:.3f}")
    command = command_on_text(ratings, typed(folder)) if task_class(config).has_text else training_command(ratings.path, folder)
    print(f"to train on them: {command}")
