"""The output of `dqnlm compare`: tables, files and a figure of the results of many runs."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dqnlm.errors import UserError
from dqnlm.reporting.curves import LIGHT
from dqnlm.reporting.loading import is_number, read_summary
from dqnlm.reporting.statistics import bootstrap_interval, interquartile_mean
from dqnlm.reporting.tables import ABSENT, figure_text
from dqnlm.utils.suggest import suggestion

FEW = 10  # an interval of fewer seeds is clearly too narrow
ALL_TASKS = "all tasks"
HEADS = ("algorithm", "runs", "mean", "IQM", "95 % interval of the IQM", "wall time a run", "values by seed")


@dataclass(frozen=True)
class Result:
    """The result of one run.

    Attributes:
        value: the compared metric, finite; NaN after an error.
        wall_s: seconds of training and evaluation, where the run got that far.
        error: the first line of the error message, or None.
        metric_names: names of the evaluation's metrics, for advice where the compared one is missing.
        run: its folder.
    """

    task: str
    experiment: str
    algorithm: str
    seed: int
    value: float = math.nan
    wall_s: float | None = None
    error: str | None = None
    metric_names: tuple[str, ...] = ()
    run: Path | None = None

    def failed(self, error: str, **known: Any) -> Result:
        return dataclasses.replace(self, error=error, **known)


@dataclass(frozen=True)
class Cell:
    """Statistics of one algorithm on one task, or on all of them.

    Attributes:
        strata: values of the seeds that finished, one list a task.
        mean, iqm: over all of them; None without any.
        interval: of the IQM; None where a task has fewer than two values.
        wall_s: mean over the runs whose time is known.
    """

    task: str
    algorithm: str
    results: list[Result]
    strata: list[list[float]]
    mean: float | None
    iqm: float | None
    interval: tuple[float, float] | None
    wall_s: float | None

    @property
    def values(self) -> list[float]:
        return [value for values in self.strata for value in values]


def read_result(blank: Result, run: Path, metric: str, at: str) -> Result:
    """The metric and the wall time in a run's summary.

    Args:
        blank: the result before anything is known.
        at: `last` or `best`, of the run's evaluations.
    """
    try:
        summary = read_summary(run) or {}
    except UserError as error:
        return blank.failed(str(error), run=run)
    if summary.get("status") != "finished":
        return blank.failed(f"the run is not finished: {summary.get('status', 'no summary.json')}", run=run)
    values = summary.get(at) or {}
    names = tuple(sorted(name for name in values if name.startswith("eval/")))
    known = {"run": run, "wall_s": summary["totals"]["wall_s"], "metric_names": names}
    value: Any = values.get(metric)
    if not is_number(value):
        return blank.failed(f"no metric {metric} in its {at} evaluation", **known)
    if not math.isfinite(value):
        return blank.failed(f"{metric} is {value}", **known)
    return dataclasses.replace(blank, value=float(value), **known)


def require_metric(results: Sequence[Result], metric: str, at: str) -> None:
    """Raises UserError, with the nearest name and all names, where runs have metrics but none has this one."""
    finished = [result for result in results if result.metric_names]
    if not finished or any(metric in result.metric_names for result in finished):
        return
    names = sorted({name for result in finished for name in result.metric_names})
    raise UserError(
        f"--metric {metric}: the {at} evaluation of no run has this metric{suggestion(metric, names)}\n"
        f"  metrics: {', '.join(names)}\n  the runs are kept: the same command with another --metric and --reuse reads them"
    )


def make_cell(task: str, algorithm: str, results: list[Result]) -> Cell:
    """Aggregates the results of one algorithm."""
    labels = {result.task: None for result in results}
    strata = [[r.value for r in results if r.task == label and r.error is None] for label in labels]
    values = np.array([value for stratum in strata for value in stratum])
    mean, iqm = (float(values.mean()), float(interquartile_mean(values))) if len(values) else (None, None)
    times = [result.wall_s for result in results if result.wall_s is not None]
    wall_s = float(np.mean(times)) if times else None
    return Cell(task, algorithm, results, strata, mean, iqm, bootstrap_interval(strata), wall_s)


def make_cells(results: Sequence[Result]) -> list[Cell]:
    """Aggregates by task and algorithm. Several tasks of one experiment, whose metrics have one scale, also together."""
    tasks = list({result.task: None for result in results})
    algorithms = list({result.algorithm: None for result in results})
    groups = [(task, {task}) for task in tasks]
    if len(tasks) > 1 and len({result.experiment for result in results}) == 1:
        groups.append((ALL_TASKS, set(tasks)))
    return [
        make_cell(label, name, [r for r in results if r.algorithm == name and r.task in members])
        for label, members in groups
        for name in algorithms
    ]


def tables(results: Sequence[Result]) -> dict[str, list[list[str]]]:
    """Task -> rows under `HEADS`, all cells as text."""
    found: dict[str, list[list[str]]] = {}
    for cell in make_cells(results):
        done, asked = len(cell.values), len(cell.results)
        interval = " to ".join(figure_text(end) for end in cell.interval or ()) or ABSENT
        single = "" if cell.task == ALL_TASKS else ", ".join(
            ABSENT if r.error is not None else figure_text(r.value) for r in cell.results
        )  # fmt: skip
        found.setdefault(cell.task, []).append(
            [cell.algorithm, str(done) if done == asked else f"{done} of {asked}", figure_text(cell.mean),
             figure_text(cell.iqm), interval, seconds_text(cell.wall_s), single]
        )  # fmt: skip
    return found


def seconds_text(seconds: float | None) -> str:
    """`12.3 s`, or a dash."""
    return ABSENT if seconds is None else f"{seconds:.1f} s"


def failures(results: Sequence[Result]) -> list[str]:
    """A line for each failed run."""
    return [f"{r.task}, {r.algorithm}, seed {r.seed}: {r.error}" for r in results if r.error is not None]


def explanation(metric: str, at: str) -> str:
    """Explanation of the columns."""
    return (
        f"{metric}, {at} evaluation. IQM: interquartile mean. Interval: stratified bootstrap over seeds, too narrow "
        f"with fewer than {FEW}. Wall time: training and evaluation without the start of the program."
    )


def markdown(results: Sequence[Result], metric: str, at: str) -> str:
    """The tables with their explanation, and the failures, in Markdown; bars in cells are escaped."""
    parts = [f"{explanation(metric, at)}\n"]
    for task, rows in tables(results).items():
        lines = [list(HEADS), ["---"] * len(HEADS), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        parts.append(f"{task}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    failed = failures(results)
    if failed:
        parts.append("Failed:\n\n" + "".join(f"- {line}\n" for line in failed))
    return "\n".join(parts)


def record(results: Sequence[Result], metric: str, at: str) -> dict[str, Any]:
    """The numbers as plain values for JSON: `comparison` by task and algorithm, and `runs`; None for missing values."""
    cells = [
        {"task": c.task, "algorithm": c.algorithm, "runs": len(c.results), "finished": len(c.values), "mean": c.mean,
         "iqm": c.iqm, "interval": list(c.interval) if c.interval else None, "wall_s": c.wall_s}
        for c in make_cells(results)
    ]  # fmt: skip
    return {"metric": metric, "at": at, "comparison": cells, "runs": [_plain(result) for result in results]}


def csv_text(results: Sequence[Result]) -> str:
    """CSV with a line for each run."""
    stream = io.StringIO()
    rows = [_plain(result) for result in results]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _plain(result: Result) -> dict[str, Any]:
    fields = ("task", "experiment", "algorithm", "seed", "value", "wall_s", "error", "run")
    values = {name: getattr(result, name) for name in fields}
    return values | {
        "value": result.value if result.error is None else None,
        "run": None if result.run is None else str(result.run),
    }


def picture(results: Sequence[Result], metric: str, at: str) -> bytes:
    """PNG: a panel per task, a row per algorithm; points are runs, the bar is the interval, the line the IQM.
    """
    from matplotlib.figure import Figure

    cells = make_cells(results)
    tasks, algorithms = list({c.task: None for c in cells}), list({c.algorithm: None for c in cells})
    across = min(3, len(tasks))
    down = math.ceil(len(tasks) / across)
    chart = Figure(figsize=(1.8 + 3.2 * across, (0.8 + 0.36 * len(algorithms)) * down + 0.5), layout="constrained")
    panels = list(chart.subplots(down, across, sharey=True, squeeze=False).flat)
    for panel, task in zip(panels, tasks, strict=False):
        _draw_panel(panel, task, [cell for cell in cells if cell.task == task])
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    legend = "points: runs; bar: 95 % interval; line: interquartile mean"
    chart.supxlabel(f"{metric}, {at} evaluation\n{legend}", fontsize=9, parse_math=False)
    stream = io.BytesIO()
    chart.savefig(stream, format="png", dpi=160, facecolor="white")
    return stream.getvalue()


def _draw_panel(panel: Any, task: str, cells: list[Cell]) -> None:
    panel.set_title(task, loc="left", fontsize=10, parse_math=False)
    panel.use_sticky_edges = False  # a bar may be the leftmost thing and still keep its distance
    panel.set_yticks(range(len(cells)), [cell.algorithm for cell in cells])
    panel.set_ylim(len(cells) - 0.5, -0.5)
    panel.grid(axis="x", color="#e3e6eb", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    for row, cell in enumerate(cells):
        colour = LIGHT[row % len(LIGHT)]
        if cell.interval is not None:
            low, high = cell.interval
            panel.barh(row, high - low, 0.5, low, color=colour, alpha=0.3)
        if cell.iqm is not None:
            panel.plot([cell.iqm] * 2, [row - 0.25, row + 0.25], color=colour, linewidth=2)
        panel.plot(cell.values, [row] * len(cell.values), "o", color=colour, markersize=4, alpha=0.8)
