"""The report page: one file without external resources with settings, metrics and samples of runs.

Everything that comes from a run's folder goes through `html.escape`: names, settings and generated text are data.
"""

from __future__ import annotations

import datetime
import json
from html import escape
from typing import Any

from dqnlm.reporting.compare import (
    ABSENT,
    MAIN_FIGURES,
    Group,
    columns_of,
    differing,
    direction,
    group_runs,
    run_settings,
    telling,
    value_of,
    warnings,
)
from dqnlm.reporting.curves import AXES, COMPANION, MAX_POINTS, chart_svg, group_style, title_of
from dqnlm.reporting.loading import Point, RunData, is_number
from dqnlm.reporting.page_style import STYLE
from dqnlm.reporting.tables import duration_text, figure_text

DASHES = {"-": "", "--": "6 3", ":": "2 3", "-.": "7 3 2 3"}
SAMPLES_SHOWN = 3  # of each evaluation


def build_page(runs: list[RunData], figure: str) -> str:
    """Builds the whole page as text.

    Args:
        runs: at least one, of which at least one has log points.
        figure: the metric that comes first and by which the best run is marked, e.g. eval/accuracy.
    """
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    return page(title, subtitle(runs), comparison(runs, figure))


def comparison(runs: list[RunData], figure: str) -> list[str]:
    """The parts of a page about runs: warnings, tables, curves, samples, settings; arguments as for `build_page`."""
    groups = group_runs(runs)
    return [
        warning(warnings(runs)),
        _tiles(runs[0], figure) if len(runs) == 1 else "",
        _curves(groups, figure),
        f"<h2>Metrics</h2>{_metrics_table(runs[0])}" if len(runs) == 1 else f"<h2>Runs</h2>{_runs_table(runs, figure)}",
        f"<h2>Seeds of the same settings</h2>{_groups_table(groups, figure)}" if len(groups) < len(runs) else "",
        _known(runs[0]) if len({str(run.manifest.get("known")) for run in runs}) == 1 else "",
        _samples(runs),
        "<h2>Settings and origin</h2>",
        *(_settings(run) for run in runs),
    ]


def page(title: str, below: str, parts: list[str]) -> str:
    """A whole page of HTML parts, of which empty ones are left out; `title` and the line `below` it are plain text."""
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(below)}</p>', *parts]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · dqnlm report</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(part + chr(10) for part in body if part)}</main></body></html>\n"
    )


def subtitle(runs: list[RunData]) -> str:
    """When the page was made, and the data of the runs."""
    made = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    sources = {str(data.get("name")) for run in runs if (data := run.manifest.get("data") or {}).get("name")}
    return f"dqnlm report of {made}" + (f" · data: {', '.join(sorted(sources))}" if sources else "")


def warning(messages: list[str]) -> str:
    """A box of sentences; empty without any."""
    if not messages:
        return ""
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f'<div class="warnings" role="note"><b>Before you compare</b><ul>{items}</ul></div>'


def _tiles(run: RunData, figure: str) -> str:
    tiles = [("status", run.status), ("updates", figure_text(run.last("step")))]
    tiles += [("transitions trained on", figure_text(run.last("transitions")))]
    tiles += [("wall time, h:min:s", duration_text(run.last("wall_s")))]
    for name, _ in columns_of([run], figure)[:3]:
        best = run.best(name)
        if best:
            tiles.append((f"best {name}, at {figure_text(int(best[0]))} updates", figure_text(best[1])))
    cells = [f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for label, value in tiles]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _runs_table(runs: list[RunData], figure: str) -> str:
    keys = telling(differing(runs), runs)
    seeds = ["seed"] if len({run_settings(run).get("seed") for run in runs}) > 1 else []
    metrics = columns_of(runs, figure)
    head = ["run", *keys, *seeds, "status"]
    numbers = ["updates", "wall time", *(f"{name}\n{' · '.join(kinds)}" for name, kinds in metrics)]
    found = [best[1] for run in runs if (best := run.best(figure))]
    top = (max if direction(figure, runs) else min)(found, default=None)
    rows = []
    for run in runs:
        settings = run_settings(run)
        cells = [cell(run.name), *(cell(settings.get(key, ABSENT)) for key in keys + seeds), cell(run.status)]
        cells += [cell(figure_text(run.last("step")), "number"), cell(duration_text(run.last("wall_s")), "number")]
        for name, kinds in metrics:
            text = " · ".join(figure_text(value_of(run, name, kind)) for kind in kinds)
            marked = name == figure and top is not None and value_of(run, name, "best") == top
            cells.append(cell(text, "number best" if marked else "number"))
        rows.append(cells)
    return table(head, numbers, rows)


def _metrics_table(run: RunData) -> str:
    """Every evaluation metric of one run."""
    names = dict.fromkeys(key for point in run.points for key in point if key.startswith("eval/"))
    rows = []
    for name in names:
        best = run.best(name)
        cells = [cell(title if (title := title_of(name, [run])) != name else ""), cell(figure_text(run.last(name)), "number")]
        cells += [cell(figure_text(best[1] if best else None), "number")]
        rows.append([cell(name), *cells, cell(figure_text(int(best[0]) if best else None), "number")])
    return table(["figure", "what it is"], ["last", "best", "at updates"], rows)


def _known(run: RunData) -> str:
    """What is known without learning: guessing, counts of words, an optimum."""
    known = {name: found for name, found in (run.manifest.get("known") or {}).items() if isinstance(found, dict)}
    names = list(dict.fromkeys(figure for found in known.values() for figure in found))
    if not names:
        return ""
    rows = [[cell(n), *(cell(figure_text(_number(found.get(name))), "number") for name in names)] for n, found in known.items()]
    return f"<h2>Known without learning</h2>{table(['policy'], names, rows)}"


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _groups_table(groups: list[Group], figure: str) -> str:
    """Mean and range over seeds of each run's best value."""
    columns = columns_of([run for group in groups for run in group.runs], figure)
    metrics = [name for name, kinds in columns if "best" in kinds]
    rows = []
    for group in groups:
        cells = [cell(group.label), cell(str(len(group.runs)), "number")]
        for name in metrics:
            values = [best[1] for run in group.runs if (best := run.best(name))]
            text = ABSENT
            if values:
                text = figure_text(sum(values) / len(values))
                text += f" ({figure_text(min(values))} to {figure_text(max(values))})" if len(values) > 1 else ""
            cells.append(cell(text, "number"))
        rows.append(cells)
    return table(["settings"], ["seeds", *(f"{name}\nbest, mean (range)" for name in metrics)], rows)


def table(head: list[str], numbers: list[str], rows: list[list[str]]) -> str:
    """A table of cells that `cell` made; a heading's part after a line break is small. `numbers` stand to the right."""
    def heading(text: str, kind: str) -> str:
        name, _, small = text.partition("\n")
        return f'<th class="{kind}">{escape(name)}{f"<small>{escape(small)}</small>" if small else ""}</th>'

    heads = "".join(heading(text, "text") for text in head) + "".join(heading(text, "number") for text in numbers)
    lines = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def cell(text: str, kind: str = "text") -> str:
    """A cell of plain text; `kind` is text, number, or `number best`."""
    return f'<td class="{kind}">{escape(text)}</td>'


def _curves(groups: list[Group], figure: str) -> str:
    logged = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.metric_names()))
    logged = [name for name in logged if not (name.endswith(COMPANION) and name.removesuffix(COMPANION) in logged)]
    losses = [name for name in logged if name.startswith("loss/")]
    main = list(dict.fromkeys([figure, *(name for name in MAIN_FIGURES if name in logged), *losses]))
    rest = [name for name in logged if name not in main]
    radios = "".join(
        f'<input type="radio" name="axis" id="axis-{axis}"{" checked" if axis == "step" else ""}>' for axis in AXES
    )
    labels = "".join(f'<label for="axis-{axis}">{escape(label)}</label>' for axis, label in AXES.items())
    grids = "".join(f'<div class="charts by-{axis}">{_charts(groups, main, axis, f"m{axis}")}</div>' for axis in AXES)
    more = ""
    if rest:
        more = f"<details><summary>{len(rest)} more curves, against updates</summary>"
        more += f'<div class="charts">{_charts(groups, rest, "step", "r")}</div></details>'
    return (
        f'<section><h2>Curves</h2>{_legend(groups)}{radios}<div class="switch"><span class="soft">against</span>'
        f"{labels}</div>{grids}{more}</section>"
    )


def _charts(groups: list[Group], metrics: list[str], axis: str, prefix: str) -> str:
    parts, runs = [], [run for group in groups for run in group.runs]
    for index, name in enumerate(metrics):
        svg = chart_svg(groups, name, axis, f"{prefix}{index}")
        label = escape(f"{title_of(name, runs)} against {AXES[axis]}", quote=True)
        svg = svg.replace('role="img"', f'role="img" aria-label="{label}"', 1)
        notes = [] if title_of(name, runs) == name else [name]
        if any(run.series(name + COMPANION)[1] for run in runs):
            notes.append("dotted: the best constant policy")
        points = max(len(run.series(name)[1]) for run in runs)
        if points > MAX_POINTS:
            notes.append(f"{points:,} log points averaged to {MAX_POINTS}")
        caption = f"<figcaption>{escape(' · '.join(notes))}</figcaption>" if notes else ""
        parts.append(f"<figure><h3>{escape(title_of(name, runs))}</h3>{svg}{caption}</figure>")
    return "".join(parts)


def _legend(groups: list[Group]) -> str:
    items = []
    for index, group in enumerate(groups):
        number, style = group_style(index)
        seeds = f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
        line = f'<line x1="0" y1="5" x2="28" y2="5" stroke="var(--c{number})" stroke-width="3" '
        line += f'stroke-dasharray="{DASHES[style]}"/>'
        items.append(f'<li><svg viewBox="0 0 28 10" aria-hidden="true">{line}</svg>{escape(group.label + seeds)}</li>')
    several = any(len(group.runs) > 1 for group in groups)
    note = "Line: mean of the seeds, where all have values; band: least to greatest; thin: seeds that went on longer."
    return f'<ul class="legend">{"".join(items)}</ul>' + (f'<p class="soft">{note}</p>' if several else "")


def _samples(runs: list[RunData]) -> str:
    parts = []
    for run in runs:
        steps = sorted({sample["step"] for sample in run.samples if is_number(sample.get("step"))})
        if not steps:
            continue
        shown = list(dict.fromkeys([steps[0], steps[len(steps) // 2], steps[-1]]))
        columns = "".join(_column(run.samples, step) for step in shown)
        head = f"<details{' open' if len(runs) <= 3 else ''}><summary>{escape(run.name)}</summary>"
        parts.append(f'{head}<div class="samples">{columns}</div></details>')
    if not parts:
        return ""
    note = '<p class="soft">First, middle and last evaluation; the prompt is shaded.</p>'
    return f"<h2>Samples</h2>{note}{''.join(parts)}"


def _column(samples: list[Point], step: float) -> str:
    texts = [sample for sample in samples if sample.get("step") == step][:SAMPLES_SHOWN]
    cells = []
    for sample in texts:
        prompt = str(sample.get("prompt", "")).replace("\n", "↵\n")  # most prompts are a line break: let it be seen
        text = str(sample.get("text", ""))
        kind = f'<p class="soft">{escape(str(sample.get("kind", "")))}</p>'
        cells.append(f'{kind}<pre><span class="prompt">{escape(prompt)}</span>{escape(text)}</pre>')
    return f"<article><h3>after {figure_text(step)} updates</h3>{''.join(cells)}</article>"


def _settings(run: RunData) -> str:
    import yaml

    def block(title: str, content: str) -> str:
        return f"<details><summary>{title}</summary><pre>{escape(content)}</pre></details>"

    command: Any = run.manifest.get("command_line")
    shown = " ".join(map(str, command)) if isinstance(command, list) else str(command or "not recorded")
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    manifest = json.dumps(run.manifest, indent=2, ensure_ascii=False)
    return (
        f"<details><summary>{escape(run.name)}</summary><pre>{escape(shown)}</pre>"
        f"{block('Every setting (config.yaml)', config)}{block('Origin (manifest.json)', manifest)}</details>"
    )
