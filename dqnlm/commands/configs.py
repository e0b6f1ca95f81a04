"""`dqnlm configs`: lists the options of every group with their one-line descriptions."""

from __future__ import annotations

import argparse
import shutil
import sys

from dqnlm.commands.help_text import HelpFormatter, examples
from dqnlm.config import catalogue
from dqnlm.errors import UserError
from dqnlm.utils.documents import named_in
from dqnlm.utils.suggest import suggestion

ROOT = "train"  # the root file, which is no group


def main(argv: list[str]) -> int:
    """Lists options, or prints one as YAML. Returns 0.

    Raises:
        UserError: no such group or option.
    """
    arguments = _parser().parse_args(argv)
    wanted, config_dir = arguments.what.strip("/"), arguments.config_dir
    if wanted in (ROOT, f"{ROOT}{catalogue.SUFFIX}"):
        print((catalogue.packaged_root() / f"{ROOT}{catalogue.SUFFIX}").read_text(encoding="utf-8"), end="")
    elif "/" in wanted or "=" in wanted:
        group, option = wanted.lstrip("+").replace("=", "/", 1).split("/", 1)
        print(catalogue.read_option(group, option, config_dir), end="")
    elif wanted:
        _print_groups([_known(wanted, config_dir)], config_dir)
    else:
        _print_groups(catalogue.groups(config_dir), config_dir)
        root = catalogue.description(catalogue.packaged_root() / f"{ROOT}{catalogue.SUFFIX}", ROOT)
        print(f"{ROOT}  {root}\n\ndqnlm configs GROUP/OPTION prints the file, with the meaning of each setting.")
    return 0


def _known(group: str, config_dir: str | None) -> str:
    """Checks a group's name; where an option is named without its group, the message names the group."""
    known = catalogue.groups(config_dir)
    if group in known:
        return group
    owners = [owner for owner in known if any(name == group for name, _ in catalogue.options(owner, config_dir))]
    hint = f"\n  did you mean {owners[0]}/{group}?" if owners else suggestion(group, known)
    raise UserError(f"there is no group {group!r}{hint}\n  groups: {', '.join(known)}")


def _print_groups(groups: list[str], config_dir: str | None) -> None:
    """Prints lines `  option  description`, coloured and cut to the window on a terminal, complete elsewhere."""
    rows = {group: catalogue.options(group, config_dir) for group in groups}
    if sys.stdout.isatty():
        _print_rich(rows)
    else:
        _print_plain(rows)
    told = named_in(" ".join(line for options in rows.values() for _, line in options))
    if told is not None:
        print(f"{told}\n")


def _print_plain(rows: dict[str, list[tuple[str, str]]]) -> None:
    width = max(len(name) for options in rows.values() for name, _ in options)
    for group, options in rows.items():
        print(f"{group}  ({_how(group)})")
        for name, line in options:
            print(f"  {name:<{width}}  {line}".rstrip())
        print()


def _print_rich(rows: dict[str, list[tuple[str, str]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, width=min(shutil.get_terminal_size().columns, 140), padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for group, options in rows.items():
        table.add_row(f"[bold]{group}[/bold]", f"[dim]{_how(group).replace('[', chr(92) + '[')}[/dim]")
        for name, line in options:
            table.add_row(f"  [cyan]{name}[/cyan]", line.replace("[", r"\["))
    Console(highlight=False).print(table)


def _how(group: str) -> str:
    return f"+{group}=OPTION" if group in catalogue.ADDED else f"{group}=OPTION"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm configs", description="List groups and options, or print one as YAML.", formatter_class=HelpFormatter,
        epilog=examples("dqnlm configs", "dqnlm configs network", "dqnlm configs network/gru"),
    )  # fmt: skip
    parser.add_argument(
        "what", nargs="?", default="", metavar="GROUP[/OPTION]", help="a group; with /OPTION the file itself"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a further folder of options, as for dqnlm train")
    return parser
