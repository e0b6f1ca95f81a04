"""Parallel coordinates: a vertical axis for each setting that a sweep varies, the objective on the right, a line for each job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dqnlm.reporting.compare import ABSENT
from dqnlm.reporting.importance import as_numbers
from dqnlm.reporting.sweep import JobData, SweepData
from dqnlm.reporting.tables import figure_text

AXIS_PX, HEIGHT, TOP, SIDE = 170, 300, 46, 70  # of the picture's own units: between axes; of an axis; above; beside
LOGARITHMIC = 50.0  # an axis whose greatest value is so many times its least, both above 0, is logarithmic
MOST_LABELS = 8  # on an axis of words, or of numbers that are shown each
TICKS = 3  # on an axis of many numbers


@dataclass(frozen=True)
class Axis:
    """One axis: where each value stands, 0 (below) to 1, and the labels beside it."""

    name: str
    places: dict[str, float]
    labels: list[tuple[float, str]]
    is_logarithmic: bool = False


def make_axis(name: str, values: Sequence[str]) -> Axis:
    """Numbers by their size, words evenly in the order of first appearance."""
    distinct = list(dict.fromkeys(values))
    numbers = as_numbers(distinct)
    if numbers is None:
        places = {value: (index + 0.5) / len(distinct) for index, value in enumerate(distinct)}
        return Axis(name, places, [(place, value) for value, place in places.items()][:MOST_LABELS])
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high / low >= LOGARITHMIC
    scaled = [math.log(number) if logarithmic else number for number in numbers]
    least, span = min(scaled), max(scaled) - min(scaled)
    places = {value: (x - least) / span if span else 0.5 for value, x in zip(distinct, scaled, strict=True)}
    if len(distinct) <= MOST_LABELS:
        return Axis(name, places, [(place, value) for value, place in places.items()], logarithmic)
    shares = [index / (TICKS - 1) for index in range(TICKS)]
    ticks = [math.exp(least + share * span) if logarithmic else least + share * span for share in shares]
    return Axis(name, places, [(share, f"{tick:.3g}") for share, tick in zip(shares, ticks, strict=True)], logarithmic)


def parallel_svg(sweep: SweepData) -> str:
    """The picture as an `<svg>` element in the page's colours; empty where no setting varies or no job has begun.

    The better a job, the darker its line; the best one is thick. Jobs without a value of the objective are dotted, and end at
    the last setting.
    """
    jobs = [job for job in sweep.jobs if job.status != "not begun"]
    if not sweep.varied or not jobs:
        return ""
    axes = [make_axis(key, [job.settings.get(key, ABSENT) for job in jobs]) for key in sweep.varied]
    compared, best = sweep.compared, sweep.best()
    goal = make_axis(sweep.objective, [repr(job.best) for job in compared]) if compared else None
    ranks = _ranks(sweep)
    # The best is drawn last, above the others.
    lines = [_line(job, axes, goal if job.name in ranks else None, ranks.get(job.name), job is best)
             for job in sorted(jobs, key=lambda job: (job is best, ranks.get(job.name, -1.0)))]  # fmt: skip
    drawn = [_axis(axis, index) for index, axis in enumerate(axes)] + ([_goal(goal, len(axes))] if goal else [])
    width = 2 * SIDE + AXIS_PX * (len(drawn) - 1) + 60
    label = escape(f"Settings and {sweep.objective or 'objective'} of {len(jobs)} jobs", quote=True)
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {TOP + HEIGHT + 24}" '
        f'style="max-width:{width}px" font-size="12" fill="currentColor">{"".join(lines)}{"".join(drawn)}</svg>'
    )


def _ranks(sweep: SweepData) -> dict[str, float]:
    """Name of each compared job -> 0 for the worst objective to 1 for the best, by its size."""
    values = {job.name: (job.best or 0.0) * (1 if sweep.higher_is_better else -1) for job in sweep.compared}
    low, span = min(values.values(), default=0.0), max(values.values(), default=0.0) - min(values.values(), default=0.0)
    return {name: (value - low) / span if span else 1.0 for name, value in values.items()}


def _x(index: int) -> int:
    return SIDE + AXIS_PX * index


def _y(place: float) -> float:
    return round(TOP + HEIGHT * (1 - place), 1)


def _line(job: JobData, axes: list[Axis], goal: Axis | None, rank: float | None, is_best: bool) -> str:
    points = [(_x(index), _y(axis.places[job.settings.get(axis.name, ABSENT)])) for index, axis in enumerate(axes)]
    if goal is not None:
        points.append((_x(len(axes)), _y(goal.places[repr(job.best)])))
    else:
        points.append((points[-1][0] + AXIS_PX // 4, points[-1][1]))  # a stump, which one axis alone would not show
    path = " ".join(f"{x},{y}" for x, y in points)
    colour = "var(--warn-line)" if rank is None else "var(--accent)"
    style = f'stroke="{colour}" stroke-opacity="{1.0 if rank is None else 0.2 + 0.8 * rank:.2f}"'
    style += ' stroke-dasharray="2 4"' if rank is None else ""
    told = ", ".join(f"{axis.name}={job.settings.get(axis.name, ABSENT)}" for axis in axes)
    told = f"{job.name}: {told}; {job.status}, {figure_text(job.best)}"
    return (
        f'<polyline points="{path}" fill="none" stroke-width="{4 if is_best else 1.8}" {style}>'
        f"<title>{escape(told)}</title></polyline>"
    )


def _axis(axis: Axis, index: int) -> str:
    x = _x(index)
    labels = "".join(
        f'<text x="{x + 6}" y="{_y(place) + 4}" class="tick">{escape(_short(text, 22))}</text>' for place, text in axis.labels
    )
    return _rule(x) + _heading(x, axis.name, " (log)" if axis.is_logarithmic else "") + labels


def _goal(axis: Axis, index: int) -> str:
    """The objective's axis: its least and greatest value only, and nothing between."""
    x, places = _x(index), sorted((place, float(value)) for value, place in axis.places.items())
    ends = [places[0], places[-1]] if len(places) > 1 else places
    labels = "".join(
        f'<text x="{x + 6}" y="{_y(place) + 4}" class="tick">{figure_text(value)}</text>' for place, value in ends
    )
    return _rule(x) + _heading(x, axis.name, " (log)" if axis.is_logarithmic else "") + labels


def _rule(x: int) -> str:
    return f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="currentColor" stroke-opacity="0.5"/>'


def _heading(x: int, name: str, further: str) -> str:
    text = f"{_short(name, 24)}{further}"
    place = f'x="{x}" y="{TOP - 18}" text-anchor="middle" font-weight="600"'
    return f"<text {place}>{escape(text)}<title>{escape(name)}</title></text>"


def _short(text: str, most: int) -> str:
    """The end of a long name, which tells most."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
