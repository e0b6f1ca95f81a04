"""`dqnlm chat RUN`: converses with a run's policy, line by line, on a terminal or through a pipe.

A run of Wordle guesses your secret word: type the marks of each guess, or let `--secret WORD` answer for you. Any
other run on text continues each line that you type, with its line break; a run of a dialogue also
reads all earlier lines. A run on a log alone gets the line as a prompt, with `--suffix` appended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.commands.run_arguments import add_run_arguments, parse_run_arguments, seed_number
from dqnlm.utils.terminal import read_line

if TYPE_CHECKING:
    from torch import Tensor

    from dqnlm.agent.policy import Policy

Config = dict[str, Any]
Write = Callable[[str], str]  # the page so far -> what the policy writes next
LegalNext = Callable[[list[str]], "Tensor | None"]  # see Policy.stream
QUIT = "quit"


def anything(written: list[str]) -> None:
    """The rule that forbids nothing."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm chat", description="Talks with a run's policy, line by line; end with Ctrl-D or `quit`.",
        epilog=examples("dqnlm chat latest", "dqnlm chat latest --secret house", "echo 'To be' | dqnlm chat latest"),
        formatter_class=HelpFormatter,
    )  # fmt: skip
    add_run_arguments(parser)
    parser.add_argument("--secret", metavar="WORD", help="a run of Wordle: play this word and show the game")
    parser.add_argument(
        "--suffix", help="put behind each line (default: a line break; nothing for a run on a log alone)"
    )
    parser.add_argument("--max-tokens", type=int, default=100, help="most tokens in a reply on text (default: 100)")
    parser.add_argument(
        "--policy",
        choices=("greedy", "boltzmann", "probability", "reweighted"),
        help="default: the run's declared policy",
    )
    parser.add_argument("--temperature", type=float, help="of boltzmann or probability; as in dqnlm generate")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the choices (default: 0)")
    return parser


def main(argv: list[str]) -> int:
    """Plays one game of Wordle, or converses until the input ends."""
    arguments = parse_run_arguments(_parser(), argv)

    from dqnlm.builder.loading import load_policy_and_config
    from dqnlm.config.schema import resolve_target
    from dqnlm.errors import UserError
    from dqnlm.tasks.select import task_class

    if arguments.max_tokens < 1:
        raise UserError(f"--max-tokens must be at least 1, not {arguments.max_tokens}")
    policy, config = load_policy_and_config(
        arguments.run, arguments.checkpoint, arguments.output_dir, arguments.device, arguments.allow_targets,
        arguments.base, arguments.places,
    )  # fmt: skip
    policy.tokenizer  # noqa: B018  says so where the run's observations are no text
    partner, kind_of_task = config["env"].get("partner"), task_class(config)
    kind = arguments.policy or policy.default
    print(f"{arguments.run}, checkpoint {arguments.checkpoint} (step {policy.step}), policy {kind}", file=sys.stderr)
    if partner is not None and getattr(resolve_target(partner["_target_"]), "guesses_words", False):
        return _wordle(policy, config["env"], arguments)
    if arguments.secret is not None:
        raise UserError("--secret: this run does not play Wordle; leave it out")
    return _talk(policy, config["env"], kind_of_task.line_break_ends_turn, arguments)


def _writer(
    policy: Policy, max_new_tokens: int, arguments: argparse.Namespace, stop: str | None = "\n",
    legal_next: LegalNext = anything,
) -> Write:  # fmt: skip
    """Generates text up to the first `stop`, which is left out, or the run's end token, or `max_new_tokens` tokens.

    `legal_next` is that of `Policy.stream`.
    """

    def write(page: str) -> str:
        found = policy.generate(
            page, max_new_tokens, stop=stop, policy=arguments.policy, temperature=arguments.temperature, seed=arguments.seed,
            legal_next=legal_next,
        )  # fmt: skip
        return found[0]

    return write


def _ask(prompt: str) -> str | None:
    """Reads a line of the user; None at the end of the input, or for `quit`. Raises UserError where it is no text."""
    if sys.stdin.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
    line = read_line()
    return None if not line or line.strip() == QUIT else line.rstrip("\r\n")


def _wordle(policy: Policy, env: Config, arguments: argparse.Namespace) -> int:
    """Plays one game: prints each guess and its marks."""
    from dqnlm.errors import UserError
    from dqnlm.problems import wordle, wordle_words
    from dqnlm.problems.wordle_letters import LegalLetters

    words, origin = wordle_words.word_list(env["partner"]["words"])
    if arguments.secret is not None and arguments.secret not in words:
        raise UserError(f"--secret {arguments.secret!r} is none of {origin}; give one of them")
    legal_next: LegalNext = LegalLetters(words).of_guesses if env["partner"]["legal_words"] else anything
    write, page = _writer(policy, env["utterance_length"], arguments, legal_next=legal_next), wordle.OPENING
    if arguments.secret is None:
        print("Think of a word of five letters. For each letter of a guess type", file=sys.stderr)
        print("g: at its place, y: elsewhere in the word, b: not in it; such as bygbb.", file=sys.stderr)
    for number in range(1, env["max_turns"] + 1):
        guess = write(page)
        utterance = guess if len(guess) == env["utterance_length"] else guess + wordle.LINE_BREAK
        known = wordle.word_of(utterance) in words
        marks = _marks(guess, known, arguments.secret, f"{number}: {guess}  ")
        if marks is None:
            print(f"the game was left after {number} guesses")
            return 0
        print(f"{number}: {guess!r}  not in the list" if not known else f"{number}: {guess}  {marks}")
        if marks == wordle.HERE * wordle.LENGTH:
            print(f"solved in {number}")
            return 0
        page += utterance + (wordle.answer_to(guess, marks) if known else wordle.LINE_BREAK)
    print("not solved" + ("" if arguments.secret is None else f"; it was {arguments.secret}"))
    return 0


def _marks(guess: str, known: bool, secret: str | None, prompt: str) -> str | None:
    """The marks of a guess, "" for one outside the list (without a question), None when the user quits."""
    from dqnlm.problems import wordle

    if not known:
        return ""
    if secret is not None:
        return wordle.feedback(secret, guess)
    while True:
        line = _ask(prompt if sys.stdin.isatty() else "")
        if line is None:
            return None
        marks = line.strip().upper()
        if len(marks) == wordle.LENGTH and set(marks) <= {wordle.HERE, wordle.ELSEWHERE, wordle.ABSENT}:
            return marks
        print(f"{line!r} is no answer to {guess}: type five of g, y and b, or {QUIT}", file=sys.stderr)


def _talk(policy: Policy, env: Config, line_break_ends_turn: bool, arguments: argparse.Namespace) -> int:
    """Reads each line with its suffix, and answers it; unknown characters are reported."""
    from dqnlm.errors import UserError, print_error

    dialogue = "partner" in env
    end = "\n" if line_break_ends_turn else None
    suffix = arguments.suffix if arguments.suffix is not None else end or ""
    max_new_tokens = env["utterance_length"] if dialogue else arguments.max_tokens
    write = _writer(policy, max_new_tokens, arguments, end)
    page = ""
    while (line := _ask("you: ")) is not None:
        said = (page if dialogue else "") + line + suffix
        try:
            reply = write(said)
        except UserError as error:
            print_error(error)
            if not sys.stdin.isatty():
                return 2
            continue
        print(reply, flush=True)
        page = said + reply + "\n"
    return 0
