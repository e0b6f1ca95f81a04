"""The tables of a sweep as text, for the terminal and the page: its jobs, and how much each setting matters."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from dqnlm.reporting.compare import ABSENT
from dqnlm.reporting.importance import Importance, cautions, importance
from dqnlm.reporting.sweep import JobData, SweepData
from dqnlm.reporting.tables import duration_text, figure_text

MOST_OF_ERROR = 60  # characters; the whole stands below the table
NUMBERS = 3  # columns of figures: best, last, wall time


def job_cells(sweep: SweepData) -> tuple[list[str], list[list[str]]]:
    """(headings, rows as text) of the jobs: name, settings that differ, status, error if there is any, `NUMBERS` figures."""
    several = len({job.metric for job in sweep.jobs if job.metric}) > 1
    name = "" if several else f" {sweep.objective}" if sweep.objective else ""
    error = ["error"] if any(job.message for job in sweep.jobs) else []
    heads = ["job", *sweep.varied, "status", *error, f"best{name}", f"last{name}", "wall time"]
    rows = []
    for job in sweep.jobs:
        told = [textwrap.shorten(job.message, MOST_OF_ERROR, placeholder=" ...")] if error else []
        settings = [job.settings.get(key, ABSENT) for key in sweep.varied]
        rows.append([job.name, *settings, job.status, *told, *_figures(job, several)])
    return heads, rows


def _figures(job: JobData, several: bool) -> list[str]:
    end = f" ({job.metric})" if several and job.metric else ""
    return [figure_text(job.best) + end, figure_text(job.last), duration_text(job.wall_s)]


def importances(sweep: SweepData) -> list[Importance]:
    """Of the settings that vary among the finished jobs, the most important first."""
    jobs = sweep.compared
    values = {key: [job.settings.get(key, ABSENT) for job in jobs] for key in sweep.varied}
    objective = [job.best or 0.0 for job in jobs]
    found = [importance(key, texts, objective) for key, texts in values.items() if len(set(texts)) > 1]
    return sorted(found, key=lambda item: -1.0 if item.epsilon is None else item.epsilon, reverse=True)


def sentences(sweep: SweepData) -> Sequence[str]:
    """The importance as lines for a terminal."""
    found = importances(sweep)
    lines = [f"{item.setting}: eta squared {share_text(item.eta)}, epsilon squared {share_text(item.epsilon)}" for item in found]
    return [*lines, *(f"note: {text}" for text in cautions(found, len(sweep.compared)))] if found else []


def share_text(share: float | None) -> str:
    """A share of the variance; a dash where it is not defined."""
    return ABSENT if share is None else f"{share:.3f}"
