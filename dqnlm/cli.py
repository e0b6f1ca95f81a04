"""The command line `dqnlm <command> ...`: runs the command's module and turns errors into one message and a code.

Codes: 0 done, 1 a crash, a failed run or lost output, 2 a mistake of the user, 130 interrupted. Nothing heavy is imported
here, so that help and completion are instant.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
import sys

from dqnlm import __version__
from dqnlm.commands import permission_words
from dqnlm.errors import UserError, print_error
from dqnlm.utils import interrupts, terminal, user_code
from dqnlm.utils.joined import is_silent, leave, let_the_first_speak, process_name

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("dqnlm.commands.init", "copy a prepared experiment into a YAML file of yours, to edit"),
    "validate": ("dqnlm.commands.validate", "check a file or settings as a run does at its start, without training"),
    "train": ("dqnlm.commands.train", "train a Q-network; settings as key=value"),
    "resume": ("dqnlm.commands.resume", "continue a stopped run, or extend a finished one"),
    "eval": ("dqnlm.commands.evaluate", "score a run's policy on held-out or other text"),
    "generate": ("dqnlm.commands.generate", "write text with a run's policy"),
    "chat": ("dqnlm.commands.chat", "talk with a run's policy line by line; a run of Wordle guesses your word"),
    "inspect": ("dqnlm.commands.inspect", "Q, value and probability at every token of a text, as one HTML page"),
    "rate": ("dqnlm.commands.rate", "score a run's samples by hand, one key each, for data=trajectories"),
    "export": ("dqnlm.commands.export", "write a run on a pretrained model as a folder for transformers"),
    "push": ("dqnlm.commands.push", "export a run and upload it to the Hugging Face Hub"),
    "report": ("dqnlm.commands.report", "curves and a comparison of runs as one HTML page"),
    "compare": ("dqnlm.commands.compare", "train algorithms on tasks with several seeds: means and intervals"),
    "bench": ("dqnlm.commands.bench", "time updates, replay, acting and start, as ratios within one run"),
    "runs": ("dqnlm.commands.runs", "a table of the runs with their main metrics"),
    "configs": ("dqnlm.commands.configs", "every group and option with its one-line description"),
    "info": ("dqnlm.commands.info", "versions, devices and the data that is found"),
}
INTERRUPTED, LOST = 130, 1
# Flags of text that a run reads: a tokenizer of bytes takes any.
TEXTS = ("--prompt", "--text", "--suffix", "--stop")


def usage() -> str:
    """The text of `dqnlm --help`."""
    rows = "\n".join(f"  {name:<10}{line}" for name, (_, line) in COMMANDS.items())
    return (
        f"dqnlm {__version__}: trains language models by value\n\n"
        f"usage: dqnlm COMMAND [arguments]      dqnlm COMMAND --help\n\n{rows}\n\n"
        "start:      dqnlm train +experiment=shakespeare\n"
        "then:       dqnlm generate latest --prompt 'ROMEO:'\n"
        'completion: eval "$(dqnlm -sc install=bash)"\n'
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one command; see the module's text for the codes."""
    terminal.prepare()
    try:
        code = _run(argv)
    except SystemExit as stop:  # a run that was told to stop, or the help of a command
        before = stop.code if isinstance(stop.code, int) else 1
        code = leave(_written(before))
        if code == before:
            raise
        return code
    return leave(_written(code))


def _written(code: int) -> int:
    """The code of a command whose output has arrived; another where it is lost."""
    try:
        terminal.flush_output()
    except BrokenPipeError:
        terminal.discard_output()
    except terminal.OutputError as error:
        lost = _lost(error)
        return code or lost
    return code


def _lost(error: terminal.OutputError) -> int:
    terminal.discard_output()
    print_error(UserError(f"standard output cannot be written: {error.strerror}; what was printed is not complete"))
    return LOST


def _run(argv: list[str] | None) -> int:
    try:
        with interrupts.remembering(), user_code.explaining():
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        if interrupts.was_pressed():
            print("\ninterrupted", file=sys.stderr)
            return INTERRUPTED
        if not is_silent():
            let_the_first_speak()
            print_error(error, process_name())
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        terminal.discard_output()  # the reader has gone (dqnlm configs | head)
        return 0
    except terminal.OutputError as error:
        return _lost(error)
    except Exception:
        if not interrupts.was_pressed():
            raise
        print("\ninterrupted", file=sys.stderr)  # a library has turned it into an error of its own
        return INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        print(f"dqnlm {__version__}")
        return 0
    if name in ("-sc", "--shell-completion"):
        from dqnlm.commands.train import complete

        return complete(arguments, COMMANDS)
    if name not in COMMANDS:
        raise UserError(_unknown(name, rest))
    _require_letters(rest)
    return importlib.import_module(COMMANDS[name][0]).main(permission_words.unified(name, rest))


def _require_letters(words: list[str]) -> None:
    """Raises UserError where a setting or a name has bytes that are no text; the files of a run could not be written."""
    for before, word in itertools.pairwise(["", *words]):
        flag = word.partition("=")[0] if word.startswith("--") else before
        if flag not in TEXTS and terminal.escaped_bytes(word):
            raise UserError(f"{word!r}: its escaped parts are no letters: {terminal.about_the_locale()}")


def _unknown(name: str, rest: list[str]) -> str:
    if "=" in name:
        return f"{name!r} is a setting, not a command\n  type dqnlm train {' '.join([name, *rest])}"
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f"\n  did you mean dqnlm {near[0]}?" if near else ""
    return f"there is no command {name!r}{hint}\n  commands: {', '.join(COMMANDS)}"
