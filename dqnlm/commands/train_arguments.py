"""The command line of `dqnlm train`: supported flags of Hydra, advice for the others, and sweeps."""

from __future__ import annotations

import argparse
import difflib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.types import Glob, Override

from dqnlm.config import catalogue, own_experiment
from dqnlm.config.composition import parse_overrides, quoted
from dqnlm.errors import UserError

HELP = """usage: dqnlm train [key=value ...] [+experiment=NAME | FILE.yaml] [-m] [flags]

Trains a Q-network on text. Every setting is given as key=value; `dqnlm configs` lists the groups and their options.

  dqnlm train +experiment=shakespeare                       a prepared experiment
  dqnlm train +experiment=shakespeare env.horizon=32        one setting changed
  dqnlm train +experiment=shakespeare network=gru           another option of a group
  dqnlm train -m +experiment=shakespeare seed=0,1,2         one run for each value (all combinations)
  dqnlm train +experiment=shakespeare +debug=smoke          the same, over in seconds
  dqnlm train data=text_file data.path=my.txt               your own text
  dqnlm train my.yaml                                       an experiment of your own (dqnlm init NAME my.yaml makes one)

flags:
  -m, --multirun          run every combination of the values separated by commas
  --cfg job [--resolve]   print the configuration and stop; --package GROUP prints a part of it
  --estimate              memory and time of a run on a pretrained model, before anything is loaded; then stop
  --config-dir DIR        add a folder of your own options (DIR/experiment/mine.yaml -> +experiment=mine)
  --config-path DIR, --config-name NAME    use another configuration altogether
  --info [defaults|searchpath|plugins]     how the configuration is put together
  --hydra-help            what Hydra itself understands

A run writes to outputs/<date>/<time>-<experiment>/. Go on with one: dqnlm resume RUN.
"""
ADVICE = {
    "experiment": "type +experiment={value}",
    "debug": "type +debug={value}",
    "config": "for a folder of your own options: --config-dir DIR; for another root file: --config-name NAME",
    "resume": "type dqnlm resume {value}",
    "dry-run": "to see the configuration: --cfg job --resolve; for a run of seconds: +debug=smoke",
    "experimental-rerun": "to repeat a run: dqnlm train with the command line in its manifest.json",
    "data-path": "type data.path={value}",
}
PLACEHOLDERS = {"experiment": "NAME", "debug": "NAME", "resume": "RUN", "data-path": "FILE"}


@dataclass
class Request:
    """The parsed command line."""

    overrides: list[str] = field(default_factory=list)
    multirun: bool = False
    resolve: bool = False
    hydra_help: bool = False
    shell_completion: bool = False
    estimate: bool = False
    cfg: str | None = None
    info: str | None = None
    package: str | None = None
    config_dir: str | None = None
    config_path: str | None = None
    config_name: str = "train"
    removed: list[str] = field(default_factory=list)

    def flags(self) -> list[str]:
        """The flags as Hydra reads them, all before the overrides (argparse wants them in one piece)."""
        words = [f"--{name.replace('_', '-')}" for name in _SWITCHES if getattr(self, name)]
        own = catalogue.own_file(self.config_dir) is not None  # which is no folder; see `further_places`
        for name in _VALUES:
            if getattr(self, name) is not None and not (own and name == "config_dir"):
                words += [f"--{name.replace('_', '-')}", getattr(self, name)]
        return words

    def further_places(self) -> list[str]:
        """The override that names an experiment file to Hydra; none where there is none, or the flags name a folder."""
        if self.config_dir is None or catalogue.own_file(self.config_dir) is None:
            return []
        return [f"hydra.searchpath=[{quoted(own_experiment.place(self.config_dir))}]"]

    def pop_override(self, key: str) -> bool:
        """Removes the override of a Hydra setting; `removed` keeps the original list."""
        self.removed = list(self.overrides)
        self.overrides = [text for text in self.overrides if text.lstrip("+").split("=", 1)[0] != key]
        return len(self.overrides) < len(self.removed)


_SWITCHES = ("multirun", "resolve", "hydra_help", "shell_completion")
_VALUES = ("cfg", "info", "package", "config_dir", "config_path", "config_name")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"dqnlm train: {message}\n  dqnlm train --help")


def _parser() -> _Parser:
    parser = _Parser(prog="dqnlm train", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-r", "--run", action="store_true")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("-sc", "--shell-completion", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("-cn", "--config-name", default="train")
    kinds = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=kinds)
    return parser


def parse(argv: list[str]) -> Request:
    """Parses the arguments after `dqnlm train`.

    Raises:
        UserError: an unknown flag, or a word that is no key=value; with the correct form.
    """
    parser = _parser()
    _refuse_flags(argv, [flag for action in parser._actions for flag in action.option_strings])
    known = vars(parser.parse_intermixed_args(argv))
    known.pop("run")
    request = Request(**known)
    if request.shell_completion:
        return request
    own = own_experiment.named(request.overrides)
    request.overrides = [text for text in request.overrides if not own_experiment.is_named(text)]
    for text in request.overrides:
        _require_setting(text)
    if own is not None:
        _choose_own(request, own)
    elif request.config_dir is not None:
        request.config_dir = str(catalogue.roots(request.config_dir)[-1])
    if request.config_path is not None and not request.config_path.startswith("pkg://"):
        # Hydra would read it relative to this module's file.
        request.config_path = str(Path(request.config_path).absolute())
        if not Path(request.config_path).is_dir():
            raise UserError(f"--config-path: no such folder: {request.config_path}")
    if any(text.replace(" ", "") == "hydra.mode=MULTIRUN" for text in request.overrides):
        request.multirun = True
    if request.multirun and request.cfg:
        raise UserError("--cfg prints one configuration and -m makes several: leave out -m, and give one value each")
    if request.estimate and (request.multirun or request.cfg):
        raise UserError("--estimate is of one run, and stops before it: leave out -m and --cfg")
    if request.resolve and not request.cfg:
        raise UserError("--resolve belongs to --cfg: type --cfg job --resolve")
    return request


def _choose_own(request: Request, own: Path) -> None:
    """Makes an experiment file the experiment of the request.

    Raises:
        UserError: another place of options, or another experiment, is named too.
    """
    name = catalogue.own_name(own)
    if request.config_dir is not None:
        raise UserError(
            f"{own.name}: a file and --config-dir are two places for options; put the file into "
            f"{Path(request.config_dir) / own_experiment.GROUP} and type --config-dir {request.config_dir} +experiment={own.stem}"
        )
    typed = next((o.input_line for o in parse_overrides(request.overrides) if o.key_or_group == own_experiment.GROUP), None)
    if typed is not None:
        raise UserError(f"{own.name} is an experiment, and {typed} is another; leave one of them out")
    request.config_dir = str(own)
    request.overrides.insert(0, f"+{own_experiment.GROUP}={quoted(name)}")


def _refuse_flags(argv: list[str], flags: list[str]) -> None:
    """Refuses flags of other programs. Hydra would parse `--experiment x` as a flag of its own."""
    for index, word in enumerate(argv):
        flag, _, attached = word.partition("=")
        if not word.startswith("-") or flag in flags or (index and argv[index - 1] in flags):
            continue
        following = argv[index + 1] if index + 1 < len(argv) and not argv[index + 1].startswith("-") else ""
        name, value = flag.lstrip("-"), attached or following
        if name in ADVICE:
            advice = ADVICE[name].format(value=value or PLACEHOLDERS.get(name, ""))
        elif near := difflib.get_close_matches(flag, [f for f in flags if f.startswith("--")], n=1, cutoff=0.75):
            advice = f"did you mean {near[0]}?"
        else:
            advice = f"settings are given without dashes: {name.replace('-', '_')}={value or 'VALUE'}"
        raise UserError(f"dqnlm train: there is no flag {flag}\n  {advice}")


def _require_setting(text: str) -> None:
    """Refuses a word without `=`, usually a forgotten group."""
    if "=" in text or text.startswith("~"):
        return
    for group in catalogue.groups():
        if any(name == text for name, _ in catalogue.options(group)):
            plus = "+" if group in catalogue.ADDED else ""
            raise UserError(f"{text!r} is not key=value\n  did you mean {plus}{group}={text}?")
    raise UserError(f"{text!r} is not key=value\n  type for example env.horizon=32, or +experiment=shakespeare")


def swept_keys(request: Request, *, swept: bool, params: Sequence[str] = ()) -> list[str]:
    """Keys that have several values in this sweep (`params`: as of `expand`), or those that have one."""
    return [o.key_or_group for o in parse_overrides([*params, *request.overrides]) if o.is_sweep_override() is swept]


def settled(overrides: Sequence[str]) -> list[str]:
    """The overrides with each shuffled list in an order that is the same whenever the command is typed again."""
    found = []
    for override in parse_overrides(overrides):
        if override.is_sweep_override() and getattr(override.value(), "shuffle", False):
            state = random.getstate()
            random.seed(override.input_line)
            values = [str(value) for value in override.sweep_string_iterator()]
            random.setstate(state)
            # choice() keeps a list of a single value a sweep
            found.append(f"{override.get_key_element()}=choice({','.join(values)})")
        else:
            found.append(override.input_line or "")
    return found


def _matching(override: Override, config_dir: str | None) -> list[str]:
    """The options of a group that a glob matches.

    Raises:
        UserError: the key is no group, or no option matches.
    """
    group, pattern = str(override.key_or_group), override.value()
    assert isinstance(pattern, Glob)
    if group not in catalogue.groups(config_dir):
        raise UserError(
            f"{override.input_line}: glob() chooses among the options of a group, and {group} is a setting\n  list the values: "
            f"{group}=a,b,c"
        )
    names = [name for name, _ in catalogue.options(group, config_dir)]
    found: list[str] = pattern.filter(names)
    if not found:
        raise UserError(f"{override.input_line}: no option of {group} matches\n  there are: {', '.join(names)}")
    return found


def expand(request: Request, limit: int, params: Sequence[str] = ()) -> list[list[str]]:
    """The overrides of each job: one list for a single run, every combination of a sweep, at most `limit`.

    Args:
        request: the command line.
        limit: jobs.
        params: what a file sweeps over, as overrides; what is typed comes in their place.

    Raises:
        UserError: a sweep of a kind that the basic sweeper cannot run, over no value, or over Hydra's own settings.
    """
    if not request.multirun:
        return [list(request.overrides)]
    values: dict[str, list[str]] = {}  # by key, of which the last override counts, as in Hydra's sweeper
    other_sweeper = any(text.startswith("hydra/sweeper=") for text in request.overrides)
    for override in parse_overrides(settled([*params, *request.overrides])):
        text, key = override.input_line or "", override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [text]
        elif override.is_hydra_override():
            raise UserError(f"{text}: a sweep cannot change Hydra's own settings")
        elif isinstance(override.value(), Glob):
            values[key] = [f"{key}={name}" for name in _matching(override, request.config_dir)]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif not other_sweeper:
            raise UserError(f"{text}: an interval needs a sweeper that searches\n  list the values: KEY=a,b,c")
        if not values.get(key, [text]):
            raise UserError(f"{text}: a sweep over no value, so there is nothing to train\n  list the values: KEY=a,b,c")
    return [list(job) for job in itertools.islice(itertools.product(*values.values()), limit)]
