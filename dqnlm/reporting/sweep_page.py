"""The page about a sweep: its jobs, parallel coordinates, the importance of its settings, the best command, then its runs."""

from __future__ import annotations

from html import escape

from dqnlm.reporting.html import cell, comparison, page, subtitle, table, warning
from dqnlm.reporting.importance import cautions
from dqnlm.reporting.loading import RunData
from dqnlm.reporting.parallel import parallel_svg
from dqnlm.reporting.sweep import SweepData
from dqnlm.reporting.sweep_table import NUMBERS, importances, job_cells, share_text
from dqnlm.reporting.tables import figure_text

MOST_RUNS = 12  # whose curves are drawn: the best of them
MOST_MEANS = 6  # values of a setting whose means are listed
FORMULA = (
    "Share of the variance of the objective that the values of a setting explain, each setting alone. Eta squared is the sum "
    "over the values of (number of jobs) (their mean - mean of all)², divided by the sum over the jobs of (objective - mean of "
    "all)². Of few jobs it is too large; epsilon squared takes away what chance would explain, and is 0 on average, or below, "
    "where a setting does not matter. The share of the seed is chance."
)


def build_sweep_page(sweep: SweepData, name: str, figure: str | None) -> str:
    """Builds the page as text.

    Args:
        sweep: with at least one job.
        name: title of the page.
        figure: the metric that comes first in the curves; None where no run has a log point.
    """
    runs = shown_runs(sweep)
    parts = [
        _tiles(sweep),
        _best(sweep),
        f"<h2>Jobs</h2>{_jobs(sweep)}",
        _parallel(sweep),
        _importance(sweep),
    ]
    if runs and figure is not None:
        told = f"The best {len(runs)} of {len(sweep.compared)} finished jobs, in full." if len(runs) < len(sweep.compared) else ""
        parts += [f'<p class="soft">{told}</p>' if told else "", *comparison(runs, figure)]
    return page(name, f"sweep · {subtitle(runs)}", parts)


def shown_runs(sweep: SweepData) -> list[RunData]:
    """The runs whose curves are drawn: the best finished ones in the order of their jobs; without any, those with data."""
    better = -1.0 if sweep.higher_is_better else 1.0
    best = sorted(sweep.compared, key=lambda job: better * (job.best or 0.0))[:MOST_RUNS]
    chosen = best or sweep.jobs
    return [job.run for job in sweep.jobs if job in chosen and job.run is not None and job.run.points][:MOST_RUNS]


def _tiles(sweep: SweepData) -> str:
    best = sweep.best()
    counts: dict[str, int] = {}
    for job in sweep.jobs:
        counts[job.status] = counts.get(job.status, 0) + 1
    tiles = [(str(len(sweep.jobs)), "jobs"), *((str(count), status) for status, count in counts.items())]
    if best is not None:
        tiles.append((figure_text(best.best), f"best {sweep.objective}, {best.name}"))
    cells = [f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in tiles]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _best(sweep: SweepData) -> str:
    best = sweep.best()
    parts = []
    if best is not None and best.command():
        parts.append(f"<h2>The best job again</h2><pre>{escape(best.command())}</pre>")
    if sweep.again() and any(job.status != "finished" for job in sweep.jobs):
        parts.append(f"<p>To go on with the sweep (finished jobs are kept):</p><pre>{escape(sweep.again())}</pre>")
    return "".join(parts)


def _jobs(sweep: SweepData) -> str:
    heads, rows = job_cells(sweep)
    best, lines = sweep.best(), []
    for job, row in zip(sweep.jobs, rows, strict=True):
        kinds = ["number best" if job is best else "number", *["number"] * (NUMBERS - 1)]
        cells = [cell(text) for text in row[:-NUMBERS]]
        lines.append([*cells, *(cell(text, kind) for text, kind in zip(row[-NUMBERS:], kinds, strict=True))])
    errors = "".join(f"<li>{escape(job.name)}: {escape(job.message)}</li>" for job in sweep.jobs if job.message)
    told = f"<details><summary>Errors in full</summary><ul>{errors}</ul></details>" if errors else ""
    return table(heads[:-NUMBERS], heads[-NUMBERS:], lines) + told


def _parallel(sweep: SweepData) -> str:
    picture = parallel_svg(sweep)
    note = "A line for each job: the better, the darker; the best is thick. Dotted: jobs that did not finish."
    caption = f"<figcaption>{note}</figcaption>"
    return f'<h2>Settings and objective</h2><figure class="scroll">{picture}{caption}</figure>' if picture else ""


def _importance(sweep: SweepData) -> str:
    found = importances(sweep)
    if not found:
        return ""
    rows = []
    for item in found:
        means = " · ".join(f"{name}: {figure_text(mean)} ({count})" for name, count, mean in item.levels[:MOST_MEANS])
        more = f" · {len(item.levels) - MOST_MEANS} more" if len(item.levels) > MOST_MEANS else ""
        shares = [cell(share_text(item.eta), "number"), cell(share_text(item.epsilon), "number")]
        rows.append([cell(item.setting), f'<td class="text">{_bar(item.eta)}</td>', cell(means + more), *shares])
    head = ["setting", "", "mean objective by value (jobs)"]
    return (
        f"<h2>Importance for {escape(sweep.objective)}</h2>{warning(cautions(found, len(sweep.compared)))}"
        f'{table(head, ["eta squared", "epsilon squared"], rows)}<p class="soft">{FORMULA}</p>'
    )


def _bar(share: float | None) -> str:
    width = 120 * (share or 0.0)
    return (
        f'<svg width="120" height="10" viewBox="0 0 120 10" aria-hidden="true"><rect width="120" height="10" fill="var(--grid)"/>'
        f'<rect width="{width:.1f}" height="10" fill="var(--accent)"/></svg>'
    )
