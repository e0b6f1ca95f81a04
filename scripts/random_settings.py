#!/usr/bin/env -S bash -c 'exec "$(dirname "$0")/../scripts/python" "$0" "$@"'
"""Types wrong settings at random, as the schema of the settings suggests them: a run starts, or there is one message.

    scripts/random_settings.py                       500 commands with one or two wrong words, seed 0
    scripts/random_settings.py --cases 50 --seed 7   others

Each command is an experiment with `+debug=smoke`, and words of `KINDS`. Most are checked by `dqnlm validate`; one of four of the
experiments in `TRAINED` is trained. Exit codes 0 and 2 with one message are right, and 1 without a traceback, where a run failed
(a learning rate of 1e30). Ends with code 1 where there was another.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from scripts.apart import apart, prepare

TRAINED = ("debug/smoke", "shakespeare", "random_walks")  # over in seconds
EXPERIMENTS = (*TRAINED, "shakespeare_classic", "random_walks_online", "maze", "wordle", "logged")
RIGHT = ("0", "1", "2")
NUMBERS = (
    "0", "-1", "1", "3", "-0.5", "0.5", "1.5", "1e30", "-1e30", "1e-30", "4294967296", "9223372036854775807",
    "9223372036854775808", ".nan", ".inf", "-.inf",
)  # fmt: skip
TEXTS = (
    "''", "' '", "..", "/", "/dev/null", "~", "a/b", "'${oops}'", "'${seed}'", "???", "'{'", "'['", "\u00e9", "'\U0001f600'",
    "a=b", "'a,b'", "null", "True", "x" * 300, "'%s'", "'\\n'", "-m", "--help", "1e3", "0x10", "2024-05-01",
)  # fmt: skip
VALUES = (
    "null", "true", "[]", "[1,a]", "{}", "{a: 1}", "text", "7", "1.5", "[[]]", "{_target_: os.system}",
    "{_target_: dqnlm.errors.UserError}",
)  # fmt: skip
NO_GRAMMAR = ("[", "{a", "a,b", "(", "range(1,3)", "glob(*)", "f(x", "$", "${")
Schema = Mapping[str, Any]


@functools.cache
def schema_of(experiment: str, *beside: str) -> dict[str, Any]:
    """Dotted setting -> its annotation, of an experiment: the schema by which values are checked."""
    from dqnlm.config.composition import compose
    from dqnlm.config.schema import TARGET, keyword_parameters, resolve_target
    from dqnlm.config.sections import PLAIN

    config, _ = compose([f"+experiment={experiment}", *beside])
    found: dict[str, Any] = dict(PLAIN)
    todo = [(key, node) for key, node in config.items() if isinstance(node, dict)]
    while todo:
        key, node = todo.pop()
        if TARGET in node:
            parameters = keyword_parameters(resolve_target(node[TARGET]))
            found |= {f"{key}.{name}": annotation for name, (annotation, _) in parameters.items()}
        todo += [(f"{key}.{name}", part) for name, part in node.items() if isinstance(part, dict)]
    return found


@functools.cache
def options() -> dict[str, list[str]]:
    """Group -> its options, of the groups that every run has."""
    from dqnlm.config import catalogue

    groups = [group for group in catalogue.groups() if group not in catalogue.ADDED]
    return {group: [name for name, _ in catalogue.options(group)] for group in groups}


def misspelt(name: str, draw: random.Random) -> str:
    """A name with two letters exchanged, one left out, or one twice."""
    i = draw.randrange(max(len(name) - 1, 1))
    exchanged = name[:i] + name[i + 1 : i + 2] + name[i : i + 1] + name[i + 2 :]
    return draw.choice([exchanged, name[:i] + name[i + 1 :], name[: i + 1] + name[i:]])


def at_the_edge(schema: Schema, draw: random.Random) -> str:
    """A value of about the type of a setting: a number or text at the edge of what there is, or one of its words."""
    key = draw.choice(sorted(schema))
    kinds = [schema[key], *get_args(schema[key])]
    words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if words and draw.random() < 0.7:
        return f"{key}={draw.choice(words)}"
    if any(kind in (int, float) for kind in kinds):
        return f"{key}={draw.choice(NUMBERS)}"
    return f"{key}={draw.choice(['true', 'false', '0', 'yes'] if bool in kinds else TEXTS)}"


def of_another_type(schema: Schema, draw: random.Random) -> str:
    return f"{draw.choice(sorted(schema))}={draw.choice(VALUES)}"


def an_odd_text(schema: Schema, draw: random.Random) -> str:
    return f"{draw.choice(sorted(schema))}={draw.choice(TEXTS)}"


def no_grammar(schema: Schema, draw: random.Random) -> str:
    return f"{draw.choice(sorted(schema))}={draw.choice(NO_GRAMMAR)}"


def no_such_name(schema: Schema, draw: random.Random) -> str:
    return f"{misspelt(draw.choice(sorted(schema)), draw)}={draw.choice(NUMBERS)}"


def a_name_added(schema: Schema, draw: random.Random) -> str:
    return f"{draw.choice(['+', '++'])}{draw.choice(sorted(schema))}{draw.choice(['', '.x', '_'])}=1"


def left_out(schema: Schema, draw: random.Random) -> str:
    return f"~{draw.choice(sorted(schema))}"


def no_such_option(schema: Schema, draw: random.Random) -> str:
    group = draw.choice(sorted(options()))
    return f"{group}={misspelt(draw.choice(options()[group]), draw)}"


def another_option(schema: Schema, draw: random.Random) -> str:
    group = draw.choice(sorted(options()))
    return f"{group}={draw.choice(options()[group])}"


def several_options(schema: Schema, draw: random.Random) -> str:
    group = draw.choice([group for group, names in sorted(options().items()) if len(names) > 1])
    return f"{group}=[{','.join(draw.sample(options()[group], 2))}]"


KINDS: dict[Callable[[Schema, random.Random], str], int] = {
    at_the_edge: 6, another_option: 4, of_another_type: 3, an_odd_text: 1, no_grammar: 1, no_such_name: 1, a_name_added: 1,
    left_out: 1, no_such_option: 1, several_options: 1,
}  # fmt: skip
"""A wrong word -> how often, beside the others."""


def command(draw: random.Random, log: Path) -> list[str]:
    """A command line; the same for the same state of `draw`. `log` is a file of logged texts."""
    name = draw.choice(EXPERIMENTS)
    beside = [f"data.path={log}"] if name == "logged" else []
    schema = schema_of(name, *beside)
    wrong = [kind(schema, draw) for kind in draw.choices(list(KINDS), list(KINDS.values()), k=draw.choice([1, 1, 2]))]
    usual = [f"+experiment={name}", "+debug=smoke", *beside, "threads=1"]
    if name in TRAINED and draw.random() < 0.25:
        return ["train", *usual, "progress=false", "logger=none", *wrong]
    return ["validate", *usual, *wrong]


def started(words: list[str], folder: Path) -> int:
    """Runs a command in a folder."""
    from dqnlm import cli

    os.chdir(folder)
    return cli.main(words)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["DQNLM_OFFLINE"] = "1"
    prepare()
    draw, counts = random.Random(arguments.seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log.jsonl"
        rows = [{"prompt": f"say {i % 9}:", "completion": "yes" if i % 2 else "no", "reward": i % 2} for i in range(40)]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for _ in range(arguments.cases):
            words = command(draw, log)
            ended, said = apart(functools.partial(started, words, Path(name)))
            counts[ended] += 1
            if ended not in RIGHT:
                print(f"{words}: {ended}\n{said}", flush=True)
    print(f"{sum(counts.values())} commands: {dict(sorted(counts.items()))}")
    return int(any(ended not in RIGHT for ended in counts))


if __name__ == "__main__":
    sys.exit(main())
