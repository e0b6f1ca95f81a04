"""`dqnlm generate RUN`: generates text, token by token, on the terminal."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.commands.run_arguments import add_run_arguments, add_weights, parse_run_arguments, seed_number, set_weights

if TYPE_CHECKING:
    from dqnlm.agent.policy import Policy

LINE_BREAK = "\n"  # ends a prompt and an answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm generate", description="Writes text with a run's policy.",
        epilog=examples(
            "dqnlm generate latest --prompt 'ROMEO:' --max-tokens 500", "echo -n 'To be' | dqnlm generate latest --prompt-file -",
        ),
        formatter_class=HelpFormatter,
    )  # fmt: skip
    add_run_arguments(parser)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", help="text to continue (default: a line break, or a letter that the run knows)")
    prompt.add_argument("--prompt-file", metavar="FILE", help="read the prompt from a file; - for standard input")
    parser.add_argument("--max-tokens", type=int, default=300, help="tokens to write (default: 300)")
    parser.add_argument(
        "--policy", choices=("greedy", "boltzmann", "probability"), help="default: the run's declared policy"
    )
    parser.add_argument(
        "--temperature", type=float,
        help="boltzmann: in return units (default: fitted on held-out text); "
        "probability: power 1/T (default: 1); lower is bolder",
    )  # fmt: skip
    add_weights(parser)
    parser.add_argument("--top-k", type=int, help="choose among the k best tokens only")
    parser.add_argument("--n", type=int, default=1, help="texts to write (default: 1)")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the choices (default: 0)")
    parser.add_argument(
        "--stop", help="end a text before this string (default: a line break where the run answers prompts)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Prints the prompt and its continuation; several texts are separated by a line."""
    arguments = parse_run_arguments(_parser(), argv)

    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.errors import UserError

    for name, value in (("--max-tokens", arguments.max_tokens), ("--n", arguments.n)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    typed = _prompt(arguments)
    policy, config = load_policy_and_config(
        arguments.run, arguments.checkpoint, arguments.output_dir, arguments.device, arguments.allow_targets,
        arguments.base, arguments.places,
    )  # fmt: skip
    set_weights(policy, arguments.weights)
    prompt, stop = _default(policy) if typed is None else typed, arguments.stop
    if _answers(config):
        prompt, stop = _question(typed or ""), LINE_BREAK if stop is None else stop
    kind = arguments.policy or policy.default
    print(f"{arguments.run}, checkpoint {arguments.checkpoint} (step {policy.step}), policy {kind}", file=sys.stderr)
    for number in range(arguments.n):
        if number:
            print("\n" + "-" * 40)
        text = pieces(policy, prompt, arguments, number)  # finds mistakes before anything is printed
        sys.stdout.write(prompt)
        for piece in until(text, stop):
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()
    return 0


def _answers(config: dict[str, Any]) -> bool:
    """Whether the run answers prompts, each ended by a line break."""
    from dqnlm.tasks.select import task_class

    return task_class(config).completion_end is not None


def _question(prompt: str) -> str:
    """The prompt with the line break that separates it from the answer.

    Raises:
        UserError: nothing is asked.
    """
    from dqnlm.errors import UserError

    if not prompt.strip():
        raise UserError("this run answers prompts, and none is given: add --prompt TEXT")
    return prompt.removesuffix(LINE_BREAK) + LINE_BREAK


def _default(policy: Policy) -> str:
    """A line break, where the run's text has any; else the first character that it knows, a space before all others."""
    from dqnlm.errors import UserError

    letters = (LINE_BREAK, " ", *map(chr, range(33, 0x3000)))
    known = next((letter for letter in letters if policy.tokenizer.count_unknown(letter) == 0), None)
    if known is None:
        raise UserError("no prompt is given, and the run knows none of the usual letters: add --prompt TEXT")
    return known


def _prompt(arguments: argparse.Namespace) -> str | None:
    """The prompt from the command line, a file or standard input; None where none is given.

    Raises:
        UserError: the file is no text.
    """
    from dqnlm.utils.encoding import typed_text

    if arguments.prompt_file is not None:
        return typed_text(arguments.prompt_file, "--prompt-file")
    return None if arguments.prompt is None else str(arguments.prompt)


def pieces(policy: Policy, prompt: str, arguments: argparse.Namespace, number: int) -> Iterator[str]:
    """Text as it is generated, up to the run's end token if it has one; each of several texts has its own seed."""
    rows = policy.stream(
        prompt, arguments.max_tokens, policy=arguments.policy, temperature=arguments.temperature, top_k=arguments.top_k,
        seed=arguments.seed + number,
    )  # fmt: skip
    eos_id = policy.tokenizer.eos_id
    return policy.tokenizer.stream(itertools.takewhile(lambda token: token != eos_id, (row[0] for row in rows)))


def until(parts: Iterator[str], stop: str | None) -> Iterator[str]:
    """Passes text on and ends before `stop`; a possible prefix of it is held back until it is decided."""
    if not stop:
        yield from parts
        return
    held = ""
    for part in parts:
        held += part
        if stop in held:
            yield held.split(stop)[0]
            return
        keep = max((n for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    yield held
