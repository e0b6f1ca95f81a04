"""Curves of metrics against updates, transitions or wall time, by matplotlib: SVG for a page, PNG for a file.

Several seeds of the same settings become one curve: the mean, with a band from the least to the greatest. The mean is
taken only where every seed has values, so that it never jumps because a seed ended; what goes beyond is drawn thin.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dqnlm.errors import UserError
from dqnlm.reporting.compare import Group
from dqnlm.reporting.loading import RunData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

MAX_POINTS = 200  # of one curve; more are averaged in buckets, which the page says
# Okabe and Ito's order begins with colours that the colour-blind can tell apart; these are tuned for white and black.
LIGHT = ("#2563eb", "#d9480f", "#0f8a6a", "#a21caf", "#b7791f", "#0891b2", "#be123c", "#4b5563")
DARK = ("#6ea8fe", "#ff9f5a", "#3ecf9f", "#e28bf0", "#f2c14e", "#4dd4ec", "#ff7d94", "#b6bfcc")
STYLES = ("-", "--", ":", "-.")  # one more each time the colours have been used up
AXES = {"step": "updates", "transitions": "transitions trained on", "wall_s": "wall time"}

# Titles and units of figures of the training; those of evaluations stand in the run's manifest, others go by their name.
FIGURES = {
    "q/action_gap": ("Gap between the best and the second best action", "return (reward units)"),
    "buffer/terminal_share": ("Share of decisions in the buffer that ended their episode", "share of decisions"),
    "grad/norm": ("Norm of the gradient before clipping", "norm"),
    "buffer/transitions": ("Transitions in the buffer", "transitions"),
    "rollout/return": ("Return while exploring", "return (reward units)"),
    "rollout/epsilon": ("Exploration rate", "probability"),
    "time/transitions_per_second": ("Speed", "transitions trained on per second"),
}
COMPANION = "_best_constant"  # eval/return_best_constant is drawn dotted in the chart of eval/return

# Stand-ins that the page replaces by its own colours, so that one SVG serves light and dark.
INK, GRID = "#010203", "#010204"


@dataclass(frozen=True)
class Line:
    """One group's curve: `x`, `mean`, `low`, `high` where all seeds have values, `tails` beyond (see `summarise`)."""

    x: Array
    mean: Array
    low: Array
    high: Array
    tails: list[tuple[Array, Array]]


def require_matplotlib(what: str = "`dqnlm report`") -> None:
    """Raises UserError with the install command when the extra `report` is absent; `what` names the drawing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{what} draws with matplotlib, which is not installed. Install it with "
            "`pip install 'dqnlm[report]'` or `pip install matplotlib`. `dqnlm runs` works without it."
        ) from error


def thin(x: Array, y: Array, most: int = MAX_POINTS) -> tuple[Array, Array]:
    """Downsamples by means of at most `most` consecutive buckets; the first and the last point are kept."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(1, len(x) - 1, most - 1).astype(int)
    starts, sizes = edges[:-1], np.diff(edges)
    inner_x = np.add.reduceat(x[: edges[-1]], starts) / sizes
    inner_y = np.add.reduceat(y[: edges[-1]], starts) / sizes
    return np.concatenate([x[:1], inner_x, x[-1:]]), np.concatenate([y[:1], inner_y, y[-1:]])


def summarise(seeds: list[tuple[Array, Array]]) -> Line | None:
    """Mean, minimum and maximum of several curves, linearly interpolated at the x of all of them.

    Args:
        seeds: (x, y) of each repetition, x not decreasing; empty ones do not count.

    Returns:
        The part of the x axis that all repetitions cover, and what each one has beyond it; None without any point.
    """
    seeds = [thin(x, y) for x, y in seeds if len(x)]
    if not seeds:
        return None
    if len(seeds) == 1:
        x, y = seeds[0]
        return Line(x, y, y, y, [])
    start, end = max(x[0] for x, _ in seeds), min(x[-1] for x, _ in seeds)
    grid = np.unique(np.concatenate([x for x, _ in seeds]))
    grid = grid[(grid >= start) & (grid <= end)]
    values = np.array([np.interp(grid, x, y) for x, y in seeds])
    tails = [(x[x >= end], y[x >= end]) for x, y in seeds if x[-1] > end]
    if not len(grid):
        return Line(grid, grid, grid, grid, seeds)
    return Line(grid, values.mean(0), values.min(0), values.max(0), tails)


def group_line(group: Group, figure: str, axis: str, scale: float = 1.0) -> Line | None:
    """The curve of a group; x divided by `scale`."""
    series = [run.series(figure, axis) for run in group.runs]
    return summarise([(np.asarray(x) / scale, np.asarray(y)) for x, y in series])


def chart_svg(groups: list[Group], figure: str, axis: str, prefix: str) -> str:
    """One chart as an `<svg>` element for a page; its colours are the page's variables `--c0`.. and `--grid`.

    Args:
        prefix: makes the element's ids its own within the page.
    """
    with _style():
        chart = _draw(groups, figure, axis, size=(5.6, 3.1), ink=INK, grid=GRID, colours=LIGHT)
        stream = io.StringIO()
        chart.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'^<svg([^>]*?) (?:width|height)="[^"]*"([^>]*?) (?:width|height)="[^"]*"', r"<svg\1\2", svg, count=1)
    for index, colour in enumerate(LIGHT):
        svg = svg.replace(colour, f"var(--c{index})")
    return svg.replace(INK, "currentColor").replace(GRID, "var(--grid)").replace("<svg", '<svg role="img"', 1)


def chart_png(groups: list[Group], figure: str, axis: str = "step") -> bytes:
    """One chart of `figure` against updates (or another of AXES) with a legend, black on white, 1,440 pixels wide."""
    with _style():
        chart = _draw(groups, figure, axis, size=(7.2, 4.0), ink="#1f2430", grid="#e3e6eb", colours=LIGHT, title=True)
        legend = chart.axes[0].legend(frameon=False, fontsize=9)
        for text in legend.get_texts():
            text.set_color("#1f2430")
        stream = io.BytesIO()
        chart.savefig(stream, format="png", dpi=200, facecolor="white")
    return stream.getvalue()


def title_of(figure: str, runs: Sequence[RunData]) -> str:
    """The title of a metric's chart: as the first run that declares the metric has it, else the metric's name."""
    declared = next((title for run in runs if (title := run.metric(figure).get("title"))), figure)
    return FIGURES.get(figure, (str(declared), ""))[0]


def unit_of(figure: str, runs: Sequence[RunData]) -> str:
    """The unit of a metric, likewise."""
    declared = next((unit for run in runs if (unit := run.metric(figure).get("unit"))), figure)
    return FIGURES.get(figure, ("", "loss" if figure.startswith("loss/") else str(declared)))[1]


def group_style(index: int) -> tuple[int, str]:
    """(number of the colour, line style) of the group with this index."""
    return index % len(LIGHT), STYLES[index // len(LIGHT) % len(STYLES)]


def time_unit(seconds: float) -> tuple[str, float]:
    """(unit, seconds per unit) for a span of this many seconds."""
    if seconds < 300:
        return "s", 1.0
    return ("min", 60.0) if seconds < 4 * 3600 else ("h", 3600.0)


def _draw(
    groups: list[Group],
    figure: str,
    axis: str,
    *,
    size: tuple[float, float],
    ink: str,
    grid: str,
    colours: tuple[str, ...],
    title: bool = False,
) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    scale, x_label = _x_axis(groups, figure, axis)
    # On a page all charts share their margins, so that their axes line up (and are drawn twice as fast).
    chart = Figure(figsize=size, layout="constrained" if title else None)
    if not title:
        chart.subplots_adjust(left=0.14, right=0.98, bottom=0.17, top=0.95)
    axes = chart.add_subplot()
    for index, group in enumerate(groups):
        number, style = group_style(index)
        _draw_group(axes, group, figure, axis, scale, colours[number], style)
    axes.set_xlabel(x_label, color=ink)
    runs = [run for group in groups for run in group.runs]
    axes.set_ylabel(unit_of(figure, runs), color=ink)
    if title:
        axes.set_title(title_of(figure, runs), color=ink, loc="left", fontsize=11)
    axes.grid(color=grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink, length=0)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if axis != "wall_s":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if max(map(abs, axes.get_ylim())) >= 1e4:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    return chart


def _draw_group(axes: Axes, group: Group, figure: str, axis: str, scale: float, colour: str, style: str) -> None:
    line = group_line(group, figure, axis, scale)
    if line is None:
        return
    marker = "o" if len(line.x) <= 40 else ""  # few evaluations: show where they are
    seeds = f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
    axes.plot(line.x, line.mean, style, color=colour, marker=marker, markersize=3, linewidth=1.8,
              label=group.label + seeds)  # fmt: skip
    if len(group.runs) > 1:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    for x, y in line.tails:
        axes.plot(x, y, style, color=colour, linewidth=0.8, alpha=0.7)
    constant = group_line(group, figure + COMPANION, axis, scale)
    if constant is not None:
        axes.plot(constant.x, constant.mean, ":", color=colour, linewidth=1.4)


def _x_axis(groups: list[Group], figure: str, axis: str) -> tuple[float, str]:
    """(divisor, label) of the x axis."""
    if axis != "wall_s":
        return 1.0, AXES[axis]
    longest = max(itertools.chain([0.0], *(run.series(figure, axis)[0] for group in groups for run in group.runs)))
    unit, scale = time_unit(longest)
    return scale, f"wall time ({unit})"


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: the page's font, and it can be searched
            "svg.hashsalt": "dqnlm",  # the same run gives the same bytes
            "text.parse_math": False,  # a dollar sign in a run's name is a dollar sign
            "font.size": 10,
            "font.family": "sans-serif",
            "path.simplify": True,
        }
    )
