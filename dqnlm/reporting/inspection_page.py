"""The page of `dqnlm inspect`: one file without external resources, in which a text is coloured by Q or other metrics.

All figures stand in one JSON object in the page, rounded to 5 digits; its script only shows them. Whatever comes from a
text or a run goes through `html.escape`, or through JSON with `<` written as an escape.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqnlm.evaluation.inspection import Inspection
from dqnlm.reporting.curves import thin
from dqnlm.reporting.inspection_style import LEVELS, SCRIPT, STYLE
from dqnlm.reporting.tables import figure_text

NO_LEVEL = "-"  # where a figure does not exist
MIDDLE = LEVELS[len(LEVELS) // 2]
RANGE = (0.02, 0.98)  # quantiles between which colours change, so that one outlier does not bleach the rest
CHART_POINTS = 1000
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 1000, 190, 64, 26, 10  # of the chart, in its own units
VISIBLE = {"\n": "↵\n", "\t": "⇥\t", "\r": "␍", " ": "·"}
NAMES = {"\n": "↵ line break", "\t": "⇥ tab", "\r": "␍ carriage return", " ": "· space"}


@dataclass(frozen=True)
class Heading:
    """The heading above the text.

    Attributes:
        title: of the page.
        facts: (label, value) of the run and the checkpoint.
        meaning: sentences that define Q, V and the probability in this run.
    """

    title: str
    facts: list[tuple[str, str]]
    meaning: list[str]


def figures_of(found: Inspection) -> dict[str, tuple[str, str, Tensor]]:
    """key -> (label, unit, one value per scored position); the metrics that can colour the text."""
    figures = {
        "q": ("Q of the taken token", "return", found.q_X),
        "value": ("value V", "return", found.value_X),
        "advantage": ("advantage Q - V", "return", found.advantage_X),
        "gap": ("action gap", "return", found.gap_X),
    }
    if found.log_probability_X is not None:
        figures["log"] = ("log-probability", "nats", found.log_probability_X)
    return figures


def summary(found: Inspection) -> list[tuple[str, str]]:
    """(label, value) of means over the positions where a metric exists."""
    tiles = [("tokens scored", f"{len(found.q_X):,}"), ("mean Q of the taken tokens", figure_text(_mean(found.q_X)))]
    tiles += [("mean V", figure_text(_mean(found.value_X))), ("mean action gap", figure_text(_mean(found.gap_X)))]
    tiles.append(("accuracy of argmax Q", figure_text(float(found.hit_X.float().mean()))))
    if not torch.equal(found.hit_X, found.chosen_X):
        tiles.append(("accuracy of the greedy policy", figure_text(float(found.chosen_X.float().mean()))))
    if found.log_probability_X is not None:
        nats = _mean(found.log_probability_X)
        tiles.append(("nats a token, declared policy", figure_text(None if nats is None else -nats)))
    illegal = int((found.rank_X == 0).sum())
    return [*tiles, *([("tokens that the run may not choose", f"{illegal:,}")] if illegal else [])]


def _mean(value_X: Tensor) -> float | None:
    known = value_X[value_X.isfinite()]
    return float(known.mean()) if len(known) else None


def page_data(found: Inspection) -> dict[str, Any]:
    """The data of the page's script, as plain JSON values; null where a metric does not exist."""
    figures = {}
    for key, (label, unit, value_X) in figures_of(found).items():
        levels, low, high = colour_levels(value_X)
        figures[key] = {"label": label, "unit": unit, "low": low, "high": high, "levels": levels,
                        "values": _numbers(value_X)}  # fmt: skip
    advantage_XK = found.best_q_XK - found.value_X[:, None]
    data = {
        "names": {str(token): token_name(text) for token, text in found.texts.items()}, "ids": found.ids,
        "actions": found.num_actions, "figures": figures, "rank": found.rank_X.tolist(),
        "best": found.best_XK.tolist(), "best_q": _rows(found.best_q_XK), "best_advantage": _rows(advantage_XK),
        "best_log": None if found.best_log_XK is None else _rows(found.best_log_XK), "distribution": None,
    }  # fmt: skip
    if found.atoms_XM is not None and found.weight_XM is not None:
        # Fixed atoms, or fixed weights, are written once.
        pair = {"atoms": found.atoms_XM, "weights": found.weight_XM}
        data["distribution"] = {name: _rows(x[:1] if bool((x == x[:1]).all()) else x) for name, x in pair.items()}
    return data


def colour_levels(value_X: Tensor) -> tuple[str, float | None, float | None]:
    """One of LEVELS per position, evenly spaced between the RANGE quantiles; and these two."""
    known = value_X[value_X.isfinite()]
    if not len(known):
        return NO_LEVEL * len(value_X), None, None
    low, high = (float(q) for q in torch.quantile(known.double(), torch.tensor(RANGE, dtype=torch.float64)))
    steps = len(LEVELS)

    def level(value: float) -> str:
        if not math.isfinite(value):
            return NO_LEVEL
        share = (value - low) / (high - low) if high > low else 0.5
        return LEVELS[min(max(int(share * steps), 0), steps - 1)]

    return "".join(map(level, value_X.double().tolist())), _rounded(low), _rounded(high)


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _numbers(value_X: Tensor) -> list[float | None]:
    return [_rounded(value) for value in value_X.tolist()]


def _rows(value_XK: Tensor) -> list[list[float | None]]:
    return [_numbers(row) for row in value_XK]


def visible(text: str) -> str:
    """A token's text with visible white space and control characters; a line break still breaks the line."""
    return "".join(VISIBLE.get(character) or _seen(character) for character in text)


def token_name(text: str) -> str:
    """A token's text in one line, for the table."""
    return NAMES.get(text) or visible(text).replace("\n", "").replace("\t", "")


def _seen(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs"):  # controls, and other white space
        return chr(0x2400 + ord(character)) if ord(character) < 0x20 else f"⟨{ord(character):04X}⟩"
    return character


def build_page(found: Inspection, heading: Heading) -> str:
    """Builds the whole page as text."""
    data = page_data(found)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in heading.facts)
    meaning = "".join(f"<li>{escape(sentence)}</li>" for sentence in heading.meaning)
    tiles = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for k, v in summary(found))
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading.title)} · dqnlm inspect</title><style>{STYLE}</style></head>\n<body><main>\n"
        f'<h1>{escape(heading.title)}</h1>\n<dl class="facts">{facts}</dl>\n'
        f"<h2>The text</h2>{_choices(data)}\n"
        f'<div class="panes"><div class="text" id="text" role="group" aria-label="the text, token by token">'
        f"{_text(found, data['figures']['q']['levels'])}</div>{DETAILS}</div>\n"
        f"<h2>Value along the text</h2>{_chart(found.value_X)}\n"
        f'<div class="tiles">{tiles}</div>\n'
        f"<details open><summary>Meaning of the metrics in this run</summary><ul>{meaning}</ul></details>\n"
        "<noscript><p>The figures of single tokens are shown by the script in this file, which is switched off.</p>"
        f'</noscript>\n<script type="application/json" id="data">{embedded}</script>\n<script>{SCRIPT}</script>\n'
        "</main></body></html>\n"
    )


DETAILS = (
    '<aside class="details"><div aria-live="polite"><h3 id="what">Point at a token, or choose one</h3>'
    '<p class="soft" id="rank">Tab reaches the text; the arrow keys, Home and End move in it; a click keeps a token.</p>'
    '<dl class="facts" id="figures"></dl></div><table id="best"></table><div id="distribution"></div></aside>'
)


def _choices(data: dict[str, Any]) -> str:
    """The selector of the metric, and the scale of its colours."""
    parts = []
    for number, (key, figure) in enumerate(data["figures"].items()):
        checked = " checked" if number == 0 else ""
        radio = f'<input type="radio" name="figure" value="{key}"{checked}>'
        parts.append(f"<label>{radio}{escape(figure['label'])}</label>")
    first = data["figures"]["q"]
    scale = "".join(f'<i class="b{level}"></i>' for level in LEVELS)
    ends = [figure_text(first[end]) for end in ("low", "high")]
    return (
        f'<fieldset class="figures"><legend>Coloured by</legend>{"".join(parts)}</fieldset>'
        f'<p class="scale"><span id="low">{escape(ends[0])}</span>{scale}<span id="high">{escape(ends[1])}</span>'
        f'<span class="soft" id="unit">{escape(first["unit"])}; the ends hold the lowest and the highest 2 %</span></p>'
        '<p class="soft"><span class="miss">underlined</span>: another token has a greater Q than the one of the text. '
        '<span class="start">▏</span>a window of the network begins: it has forgotten what stands before.</p>'
    )


def _text(found: Inspection, levels: str) -> str:
    """One element per token; the first is not scored."""
    texts = {token: escape(visible(text)).replace("·", "·<wbr>") for token, text in found.texts.items()}
    read = escape(visible(found.read))
    parts = [f'<span class="first" title="read first: nothing was chosen here">{read}{texts[found.ids[0]]}</span>']
    starts = set(found.starts[1:])
    hit = found.hit_X.tolist()
    for position, token in enumerate(found.ids[1:]):
        kinds = f"b{levels[position]}" + (" start" if position in starts else "") + ("" if hit[position] else " miss")
        focus = 0 if position == 0 else -1  # one stop for the Tab key; the arrow keys go on from there
        parts.append(f'<span class="{kinds}" data-x="{position}" tabindex="{focus}">{texts[token]}</span>')
    return "".join(parts)


def _chart(value_X: Tensor) -> str:
    """V against the position, an SVG in the page's colours; long texts are averaged to CHART_POINTS."""
    x, y = thin(np.arange(2, len(value_X) + 2, dtype=float), value_X.double().numpy(), CHART_POINTS)
    low, high = float(y.min()), float(y.max())
    span, last = (high - low) or 1.0, max(len(value_X) - 1, 1)
    right, floor = WIDTH - 12, HEIGHT - BOTTOM
    at_x = LEFT + (x - 2) / last * (right - LEFT)
    at_y = floor - (y - low) / span * (floor - TOP) if high > low else np.full_like(y, (floor + TOP) / 2)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(at_x, at_y, strict=True))
    marks: Sequence[float] = (low, (low + high) / 2, high) if high > low else (low,)
    ticks = ""
    for mark in marks:
        place = floor - (mark - low) / span * (floor - TOP) if high > low else (floor + TOP) / 2
        ticks += f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{place:.1f}" y2="{place:.1f}"/>'
        ticks += f'<text x="{LEFT - 8}" y="{place + 4:.1f}" text-anchor="end">{figure_text(mark)}</text>'
    ends = f'<text x="{LEFT}" y="{HEIGHT - 6}">token 2</text>'
    ends += f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">token {len(value_X) + 1:,}</text>'
    note = (
        f"<figcaption>{len(value_X):,} positions averaged to {len(x):,}</figcaption>" if len(x) < len(value_X) else ""
    )
    return (
        f'<figure><svg id="chart" viewBox="0 0 {WIDTH} {HEIGHT}" data-left="{LEFT}" data-right="{right}" role="img" '
        f'aria-label="V along the text, from {figure_text(low)} to {figure_text(high)}">{ticks}{ends}'
        f'<line id="here" x1="-9" x2="-9" y1="{TOP}" y2="{floor}"/><polyline points="{points}"/></svg>{note}</figure>'
    )
