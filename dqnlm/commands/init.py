"""`dqnlm init EXPERIMENT my.yaml`: copies a prepared experiment into a file of the user's, to be edited and trained."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.config import catalogue
from dqnlm.errors import UserError

GROUP = "experiment"
PACKAGE = "# @package _global_"  # by this first line the file's settings are those of the whole run


def main(argv: list[str]) -> int:
    """Writes the file and prints how to run it, or lists the experiments where none is named. Returns 0.

    Raises:
        UserError: no such experiment, a file that exists, no place for it.
    """
    arguments = _parser().parse_args(argv)
    if not arguments.experiment:
        _print_experiments()
        return 0
    name = arguments.experiment.lstrip("+").removeprefix(f"{GROUP}=").removesuffix(catalogue.SUFFIX)
    text = _read(name)
    typed = arguments.file or f"my_{name.rpartition('/')[2]}{catalogue.SUFFIX}"
    _write(typed, copied(text, name, typed))
    word = shlex.quote(typed)
    print(f"wrote {typed}, a copy of +{GROUP}={name}; edit it, then")
    print(f"  dqnlm validate {word}   # checks it without training")
    print(f"  dqnlm train {word}")
    return 0


def copied(text: str, name: str, typed: str) -> str:
    """The text of the copy: that of the experiment with its comments, under the name of the new file."""
    stem = Path(typed).stem
    body = re.sub(r"^#\s*@package.*\n", "", text, count=1)
    body = re.sub(rf"^# {re.escape(name)}: ", f"# {stem}: ", body, count=1)
    word = shlex.quote(typed)
    return (
        f"{PACKAGE}\n{body.split(chr(10), 1)[0]}\n"
        f"# A copy of +{GROUP}={name}. Check it: dqnlm validate {word}; train: dqnlm train {word}; what each option has:\n"
        "# dqnlm configs GROUP/OPTION; settings that are not here have the defaults of dqnlm configs train.\n"
        f"{body.split(chr(10), 1)[1]}"
    )


def _read(name: str) -> str:
    file = catalogue.option_file(GROUP, name)
    if file is None:
        shown = catalogue.unknown_option(GROUP, name).split("\n  for a file of your own")[0]
        # Perhaps the file was typed in the place of the experiment.
        hint = "" if "did you mean" in shown else f"\n  type dqnlm init EXPERIMENT {name}{catalogue.SUFFIX}"
        raise UserError(f"{shown.replace(f'+{GROUP}=', 'dqnlm init ')}{hint}")
    return file.read_text(encoding="utf-8")


def _write(typed: str, text: str) -> None:
    from dqnlm.utils.files import require_place

    path = Path(typed).expanduser()
    if path.suffix != catalogue.SUFFIX:
        raise UserError(f"{typed}: name a file that ends in {catalogue.SUFFIX}, such as {Path(typed).stem}{catalogue.SUFFIX}")
    require_place(path, f"my{catalogue.SUFFIX}")
    try:
        with path.open("x", encoding="utf-8") as stream:  # x: only where there is none, whoever makes one meanwhile
            stream.write(text)
    except FileExistsError:
        raise UserError(f"{typed} is there already, and is left as it is; name another file, or remove it first") from None
    except OSError as error:
        raise UserError(f"{typed} cannot be written: {error.strerror}") from error


def _print_experiments() -> None:
    rows = catalogue.options(GROUP)
    width = max(len(name) for name, _ in rows)
    for name, line in rows:
        print(f"{name:<{width}}  {line}".rstrip())
    print("\ndqnlm init EXPERIMENT my.yaml copies one of these into a file of yours.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm init",
        description="Copy a prepared experiment, with its comments, into a YAML file of yours to edit. Without an experiment: "
        "list them.",
        epilog=examples("dqnlm init", "dqnlm init shakespeare shorter.yaml"), formatter_class=HelpFormatter,
    )
    parser.add_argument("experiment", nargs="?", default="", metavar="EXPERIMENT", help="the experiment to copy")
    parser.add_argument("file", nargs="?", metavar="FILE.yaml", help="the file to write (default: my_EXPERIMENT.yaml here)")
    return parser
