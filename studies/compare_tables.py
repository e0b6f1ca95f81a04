"""What compare_algorithms.py shows: Markdown tables and a picture of the results of many runs."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dqnlm.reporting.curves import LIGHT, title_of
from dqnlm.reporting.statistics import bootstrap_interval, interquartile_mean
from dqnlm.reporting.tables import ABSENT, figure_text

FEW = 10  # an interval of fewer seeds is clearly too narrow


@dataclass(frozen=True)
class Result:
    """What came of one run: a finite value, or the first line of an error."""

    task: str
    experiment: str
    algorithm: str
    seed: int
    value: float = math.nan
    wall_s: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Cell:
    """One algorithm on one task, or on all of them.

    Attributes:
        strata: values of the seeds that finished, one list a task.
        mean, iqm: over all of them; None without any.
        interval: of the IQM; None where a task has fewer than two values.
    """

    task: str
    algorithm: str
    results: list[Result]
    strata: list[list[float]]
    mean: float | None
    iqm: float | None
    interval: tuple[float, float] | None

    @property
    def values(self) -> list[float]:
        return [value for values in self.strata for value in values]


def make_cell(task: str, algorithm: str, results: list[Result]) -> Cell:
    """`results` are those of one algorithm."""
    labels = {result.task: None for result in results}
    strata = [[r.value for r in results if r.task == label and r.error is None] for label in labels]
    values = np.array([value for stratum in strata for value in stratum])
    mean, iqm = (float(values.mean()), float(interquartile_mean(values))) if len(values) else (None, None)
    return Cell(task, algorithm, results, strata, mean, iqm, bootstrap_interval(strata))


def make_cells(results: Sequence[Result]) -> list[Cell]:
    """By task and algorithm. Several tasks of one experiment, whose figures have one scale, also all together."""
    tasks = list({result.task: None for result in results})
    algorithms = list({result.algorithm: None for result in results})
    groups = [(task, {task}) for task in tasks]
    if len(tasks) > 1 and len({result.experiment for result in results}) == 1:
        groups.append(("all tasks", set(tasks)))
    return [
        make_cell(label, name, [r for r in results if r.algorithm == name and r.task in members])
        for label, members in groups
        for name in algorithms
    ]


def markdown(results: Sequence[Result], figure: str, at: str, parallel: int) -> str:
    """Two tables: what the seeds of each algorithm say, and every run with its wall time."""
    rows = []
    for cell in make_cells(results):
        done, asked = len(cell.values), len(cell.results)
        interval = " to ".join(figure_text(end) for end in cell.interval or ()) or ABSENT
        times = [result.wall_s for result in cell.results if result.wall_s is not None]
        wall = _seconds(float(np.mean(times)) if times else None)
        seeds = str(done) if done == asked else f"{done} of {asked}"
        rows.append([cell.task, cell.algorithm, seeds, figure_text(cell.mean), figure_text(cell.iqm), interval, wall])
    runs = []
    for r in results:
        shown = figure_text(r.value) if r.error is None else f"failed: {r.error}"
        runs.append([r.task, r.algorithm, str(r.seed), shown, _seconds(r.wall_s)])
    beside = f", {parallel} runs at a time" if parallel > 1 else ""
    return (
        f"{figure}, {at} evaluation. IQM: interquartile mean. Interval: stratified bootstrap over seeds, too narrow with "
        f"fewer than {FEW}. Wall time: training and evaluation without the start of the program{beside}.\n\n"
        + _table(["task", "algorithm", "runs", "mean", "IQM", "95 % interval of the IQM", "wall time a run"], rows)
        + "\n"
        + _table(["task", "algorithm", "seed", figure, "wall time"], runs)
    )


def picture(results: Sequence[Result], figure: str, at: str) -> bytes:
    """PNG: a panel a task, a row an algorithm; points are runs, the bar is the interval, the line in it the IQM."""
    from matplotlib.figure import Figure

    cells = make_cells(results)
    tasks, algorithms = list({c.task: None for c in cells}), list({c.algorithm: None for c in cells})
    across = min(3, len(tasks))
    down = math.ceil(len(tasks) / across)
    chart = Figure(figsize=(1.8 + 3.2 * across, (0.8 + 0.36 * len(algorithms)) * down + 0.5), layout="constrained")
    panels = list(chart.subplots(down, across, sharey=True, squeeze=False).flat)
    for panel, task in zip(panels, tasks, strict=False):
        panel.set_title(task, loc="left", fontsize=10, parse_math=False)
        panel.use_sticky_edges = False  # a bar may be the leftmost thing and still keep its distance
        panel.set_yticks(range(len(algorithms)), algorithms)
        panel.set_ylim(len(algorithms) - 0.5, -0.5)
        panel.grid(axis="x", color="#e3e6eb", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        for row, cell in enumerate(cell for cell in cells if cell.task == task):
            colour = LIGHT[row % len(LIGHT)]
            if cell.interval is not None:
                low, high = cell.interval
                panel.barh(row, high - low, 0.5, low, color=colour, alpha=0.3)
            if cell.iqm is not None:
                panel.plot([cell.iqm] * 2, [row - 0.25, row + 0.25], color=colour, linewidth=2)
            panel.plot(cell.values, [row] * len(cell.values), "o", color=colour, markersize=4, alpha=0.8)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    chart.supxlabel(f"{title_of(figure)}, {at} evaluation (points: runs; bar: 95 % interval; line: IQM)", fontsize=9)
    stream = io.BytesIO()
    chart.savefig(stream, format="png", dpi=160, facecolor="white")
    return stream.getvalue()


def _table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown; bars in cells are escaped."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _seconds(seconds: float | None) -> str:
    return ABSENT if seconds is None else f"{seconds:.1f} s"
