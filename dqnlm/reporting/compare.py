"""Differences between runs: settings that differ, seeds of the same settings, different data."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dqnlm.config.moved import GROUPS
from dqnlm.errors import UserError
from dqnlm.reporting.loading import RunData

MAIN_FIGURES = ("eval/accuracy", "eval/nll", "eval/return", "eval/distinct_2", "eval/top_token_share")
ABSENT = "-"  # shown where a run has no such setting or figure
# Settings that make no other experiment: repetitions of one setting differ in these only.
REPETITION_KEYS = ("seed", "output_dir", "threads")
# Settings of the data without which figures of two runs cannot be compared.
DATA_KEYS = ("data.tokenizer", "data.heldout_fraction", "data.test_fraction")


@dataclass(frozen=True)
class Group:
    """Runs that share every setting but the seed.

    Attributes:
        label: the distinguishing settings, `gamma=0.9, network=gru`, or the run's name when there is one group.
        settings: dotted key -> value as text, of the keys that differ between groups.
        runs: in the order given.
    """

    label: str
    settings: dict[str, str]
    runs: list[RunData]


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as {dotted key: value as text}; lists and empty mappings are values."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def run_settings(run: RunData) -> dict[str, str]:
    """The chosen options (`network: gru`) and every dotted setting of a run, as text."""
    # Groups that an earlier version did not have did what their option `standard` does.
    choices = dict.fromkeys(GROUPS, "standard") | (run.manifest.get("choices") or {})
    chosen = {str(group): value if isinstance(value, str) else json.dumps(value) for group, value in choices.items()}
    return chosen | flatten(run.config)


def differing(runs: list[RunData]) -> list[str]:
    """Names of the settings whose values are not the same in all runs, chosen options first, without repetitions'."""
    settings = [run_settings(run) for run in runs]
    keys = {key: None for setting in settings for key in setting}
    differ = [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
    differ = [key for key in differ if key not in REPETITION_KEYS]
    return sorted(differ, key=lambda key: ("." in key, key))


def telling(keys: list[str], runs: list[RunData]) -> list[str]:
    """The smallest informative set of the differing settings, for the columns.

    A chosen option (`network`) implies the settings below it (`network.layers`): these are left out as long as the
    remaining ones tell the same runs apart.
    """
    chosen = {key for key in keys if "." not in key}
    short = [key for key in keys if "." not in key or key.split(".")[0] not in chosen]
    return short if len(_distinct(short, runs)) == len(_distinct(keys, runs)) else keys


def group_runs(runs: list[RunData]) -> list[Group]:
    """Groups runs by their settings, repetitions together, in order of first appearance."""
    keys = differing(runs)
    members: dict[tuple[str, ...], list[RunData]] = {}
    for run in runs:
        members.setdefault(_values(run, keys), []).append(run)
    short = telling(keys, runs)
    for key in ("experiment", "algorithm"):
        if key in short and len({str(run_settings(same[0]).get(key, ABSENT)) for same in members.values()}) == len(members):
            short = [key]  # its name alone tells the groups apart; the table has the rest
            break
    groups = []
    for same in members.values():
        settings = {key: run_settings(same[0]).get(key, ABSENT) for key in keys}
        label = ", ".join(f"{_short(key, short)}={settings[key]}" for key in short) or _common_name(same)
        groups.append(Group(label, settings, same))
    return groups


def warnings(runs: list[RunData]) -> list[str]:
    """Warnings about a comparison: different data, unfinished runs, invalid files."""
    found = []
    sources: dict[str, list[str]] = {}
    for run in runs:
        data = run.manifest.get("data") or {}
        sources.setdefault(str(data.get("sha256") or "not recorded"), []).append(run.name)
        if data.get("bundled"):
            found.append(f"{run.name} was trained on the bundled corpus, a text of dqnlm's own grammar.")
    if len(sources) > 1:
        parts = "; ".join(f"sha256 {digest[:12]}: {', '.join(names)}" for digest, names in sources.items())
        found.append(f"The runs were trained on different data, so their metrics are not comparable. {parts}.")
    for key in DATA_KEYS:
        values = {run_settings(run).get(key) for run in runs}
        if len(values) > 1:
            shown = ", ".join(sorted(str(value) for value in values))
            found.append(f"{key} differs ({shown}), so metrics on held-out text are not comparable.")
    for run in runs:
        if run.status != "finished":
            step = run.last("step")
            found.append(f"{run.name} is not finished: {run.status}, {step if step is not None else 0} updates so far.")
        found += [f"{run.name}: {note}." for note in run.notes]
    return found


def columns_of(runs: Sequence[RunData], figure: str) -> list[tuple[str, tuple[str, ...]]]:
    """The evaluation metrics that tables show, `figure` first, each with its kinds: last, or last and best."""
    logged = {name for run in runs for name in run.metric_names()}
    names = [figure, *(name for name in MAIN_FIGURES if name in logged and name != figure)]
    return [(name, ("last", "best") if direction(name, runs) is not None else ("last",)) for name in names]


def direction(figure: str, runs: Sequence[RunData]) -> bool | None:
    """Whether higher is better, by the first run that declares a direction; None where none does."""
    return next((better for run in runs if (better := run.higher_is_better(figure)) is not None), None)


def value_of(run: RunData, figure: str, kind: str) -> float | str | None:
    """The `last` or `best` value of a metric."""
    if kind == "last":
        last: float | str | None = run.last(figure)
        return last
    best = run.best(figure)
    return best[1] if best else None


def main_figure(runs: list[RunData]) -> str:
    """eval/accuracy where a run has it, else eval/return, else the first metric that the best policy could be chosen by.

    Before the first evaluation there is none of these: then the first logged one that has a direction, or any.
    """
    logged = {name for run in runs for name in run.metric_names()}
    for name in ("eval/accuracy", "eval/return"):
        if name in logged:
            return name
    declared = (metric["name"] for run in runs for metric in run.declared() if metric["higher_is_better"] is not None)
    evaluated = [name for name in declared if name in logged]
    others = sorted((name for run in runs for name in run.metric_names()), key=lambda name: direction(name, runs) is None)
    return next(iter([*evaluated, *others]), "eval/accuracy")


def check_figure(figure: str, runs: list[RunData]) -> None:
    """Raises UserError when no run ever logged `figure`, with the nearest name and all names."""
    names = sorted({name for run in runs for name in run.metric_names()})
    if figure in names:
        return
    if not names:
        listed = ", ".join(run.name for run in runs)
        raise UserError(f"No metrics to report yet: {listed} logged nothing. Wait for the first log point.")
    near = difflib.get_close_matches(figure, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"--metric {figure}: no run logged this metric.{hint} There are: {', '.join(names)}.")


def _distinct(keys: list[str], runs: list[RunData]) -> set[tuple[str, ...]]:
    return {_values(run, keys) for run in runs}


def _values(run: RunData, keys: list[str]) -> tuple[str, ...]:
    settings = run_settings(run)
    return tuple(settings.get(key, ABSENT) for key in keys)


def _short(key: str, keys: list[str]) -> str:
    tail = key.rsplit(".", 1)[-1]
    return tail if sum(other.rsplit(".", 1)[-1] == tail for other in keys) == 1 else key


def _common_name(runs: list[RunData]) -> str:
    if len(runs) == 1:
        return runs[0].name
    experiment = (runs[0].manifest.get("choices") or {}).get("experiment")
    return str(experiment) if experiment else runs[0].name
