"""Style and script of the page of `dqnlm inspect`; no external resources.

Colours run from orange (low) over the page's own to blue (high), which the colour-blind can tell apart; the text keeps a
contrast of at least 4.5 to 1 on all of them, in light and in dark.
"""

from __future__ import annotations

from dqnlm.reporting import page_style

LEVELS = "0123456789a"  # classes b0 .. ba of the scale
_LIGHT = ((255, 176, 92), (255, 255, 255), (120, 172, 255))  # low, middle, high
_DARK = ((148, 76, 0), (18, 21, 27), (28, 84, 176))


def scale(ends: tuple[tuple[int, int, int], ...]) -> list[str]:
    """A colour for each of LEVELS, `#rrggbb`, linear from the first over the second to the third."""
    half = len(LEVELS) // 2
    colours = []
    for number in range(len(LEVELS)):
        part = min(number // half, 1)  # the last colour ends the second part
        share = number / half - part
        mixed = [round(a + share * (b - a)) for a, b in zip(ends[part], ends[part + 1], strict=True)]
        colours.append("#" + "".join(f"{channel:02x}" for channel in mixed))
    return colours


def _rules(ends: tuple[tuple[int, int, int], ...]) -> str:
    return " ".join(f".b{level} {{ background: {c}; }}" for level, c in zip(LEVELS, scale(ends), strict=True))


STYLE = (
    page_style.STYLE
    + f"{_rules(_LIGHT)}\n@media (prefers-color-scheme: dark) {{ {_rules(_DARK)} }}\n"
    + """
.facts { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 6px 0; } .facts div { display: flex; gap: 6px; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figures { border: 1px solid var(--line); border-radius: 8px; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0; }
.figures label { display: flex; align-items: center; gap: 6px; cursor: pointer; } .figures legend { color: var(--soft); }
.scale { display: flex; flex-wrap: wrap; align-items: center; gap: 0 8px; font-variant-numeric: tabular-nums; }
.scale i { width: 22px; height: 14px; margin: 0 -8px 0 0; } .scale #high { margin-left: 8px; }
.panes { display: grid; grid-template-columns: minmax(0, 1fr) 380px; gap: 18px; align-items: start; }
.text { font: 15px/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: 8px; padding: 12px; }
.text span { cursor: pointer; } .text .first { color: var(--soft); cursor: default; }
.miss { text-decoration: underline dotted 1.5px; text-underline-offset: 4px; }
.start { border-left: 2px solid var(--ink); }
.text span:hover, .text span:focus, .text .kept { outline: 2px solid var(--ink); outline-offset: 0; position: relative; }
.details { position: sticky; top: 12px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; min-height: 330px; } .details td, .details th { padding: 4px 8px; }
.details tr.taken { font-weight: 700; color: var(--accent); } .details svg { width: 100%; height: auto; display: block; }
#chart { cursor: crosshair; } svg text { fill: var(--soft); font-size: 12px; } .grid { stroke: var(--grid); }
polyline { fill: none; stroke: var(--accent); stroke-width: 1.6; stroke-linejoin: round; }
#here { stroke: var(--ink); stroke-width: 1.5; } .stem { stroke: var(--accent); stroke-width: 3; }
.mean { stroke: var(--ink); stroke-dasharray: 4 3; }
@media (max-width: 900px) { .panes { grid-template-columns: 1fr; }
  .details { bottom: 0; top: auto; order: 2; max-height: 50vh; overflow: auto; min-height: 0; } }
"""
)

# `x` is a position in the arrays: token x + 2 of the text, counted from 1.
SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const spans = Array.from(document.querySelectorAll("#text [data-x]"));
const byId = (id) => document.getElementById(id);
let figure = "q", kept = null, stop = 0;

function say(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}
function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function row(cells, kind) {
  const made = element("tr", undefined, kind);
  cells.forEach((cell, i) => made.append(element("td", cell, i === 1 ? "text" : "number")));
  return made;
}
function probability(log) { return log === null ? "-" : say(Math.exp(log)); }

function showBest(x) {
  const taken = data.ids[x + 1], logs = data.best_log && data.best_log[x], body = element("tbody");
  const heads = ["", "token", "Q", "Q - V"].concat(logs ? ["probability"] : []);
  const head = element("tr");
  heads.forEach((text, i) => head.append(element("th", text, i === 1 ? "text" : "number")));
  data.best[x].forEach((token, k) => {
    if (data.best_q[x][k] === null) return;
    const cells = [String(k + 1), data.names[token], say(data.best_q[x][k]), say(data.best_advantage[x][k])];
    body.append(row(logs ? cells.concat([probability(logs[k])]) : cells, token === taken ? "taken" : ""));
  });
  if (!data.best[x].includes(taken) && data.rank[x] > 0) {
    const of = (key) => data.figures[key].values[x];
    const cells = [String(data.rank[x]), data.names[taken], say(of("q")), say(of("advantage"))];
    body.append(row(logs ? cells.concat([probability(of("log"))]) : cells, "taken"));
  }
  const top = element("thead");
  top.append(head);
  byId("best").replaceChildren(top, body);
}
function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
function showDistribution(x) {
  if (!data.distribution) return;
  const at = (rows) => rows.length === 1 ? rows[0] : rows[x];
  const atoms = at(data.distribution.atoms), weights = at(data.distribution.weights);
  const low = Math.min(...atoms), high = Math.max(...atoms), most = Math.max(...weights);
  const place = (z) => high > low ? 10 + 320 * (z - low) / (high - low) : 170;
  const chart = svg("svg", {viewBox: "0 0 340 90", role: "img", "aria-label": "distribution of the taken token's return"});
  atoms.forEach((z, k) => {
    chart.append(svg("line", {class: "stem", x1: place(z), x2: place(z), y1: 70, y2: 70 - 60 * weights[k] / most}));
  });
  const q = atoms.reduce((sum, z, k) => sum + z * weights[k], 0);
  chart.append(svg("line", {class: "mean", x1: place(q), x2: place(q), y1: 4, y2: 74}));
  [[low, "start"], [high, "end"]].forEach(([z, anchor]) => {
    const label = svg("text", {x: anchor === "start" ? 4 : 336, y: 86, "text-anchor": anchor});
    label.textContent = say(z);
    chart.append(label);
  });
  const caption = "return of the taken token: height is probability, dashed the mean, which is Q";
  byId("distribution").replaceChildren(chart, element("p", caption, "soft"));
}
function show(x) {
  byId("what").textContent = `token ${x + 2} of ${data.ids.length}: ${data.names[data.ids[x + 1]]}`;
  const rank = data.rank[x];
  byId("rank").textContent = rank ? `rank ${rank} of ${data.actions} by Q` : "the run may not choose this token";
  const list = Object.values(data.figures).map((f) => {
    const pair = element("div");
    pair.append(element("dt", f.label), element("dd", say(f.values[x])));
    return pair;
  });
  byId("figures").replaceChildren(...list);
  showBest(x);
  showDistribution(x);
  const chart = byId("chart"), left = Number(chart.dataset.left), right = Number(chart.dataset.right);
  const place = left + x / Math.max(spans.length - 1, 1) * (right - left);
  byId("here").setAttribute("x1", place);
  byId("here").setAttribute("x2", place);
}
function move(x) {
  spans[stop].tabIndex = -1;
  stop = Math.min(Math.max(x, 0), spans.length - 1);
  spans[stop].tabIndex = 0;
  spans[stop].focus();
}
function keep(x) {
  if (kept !== null) spans[kept].classList.remove("kept");
  kept = kept === x ? null : x;
  if (kept !== null) spans[kept].classList.add("kept");
}
function colour(key) {
  const from = data.figures[figure].levels, to = data.figures[key].levels;
  figure = key;
  spans.forEach((span, x) => {
    span.classList.remove("b" + from[x]);
    span.classList.add("b" + to[x]);
  });
  const chosen = data.figures[key];
  byId("low").textContent = say(chosen.low);
  byId("high").textContent = say(chosen.high);
  byId("unit").textContent = chosen.unit + "; the ends hold the lowest and the highest 2 %";
}
const of = (event) => {
  const span = event.target.closest("[data-x]");
  return span ? Number(span.dataset.x) : null;
};
const text = byId("text");
text.addEventListener("pointerover", (event) => { const x = of(event); if (x !== null) show(x); });
text.addEventListener("pointerleave", () => { if (kept !== null) show(kept); });
text.addEventListener("focusin", (event) => { const x = of(event); if (x !== null) show(x); });
text.addEventListener("click", (event) => { const x = of(event); if (x !== null) { move(x); keep(x); } });
text.addEventListener("keydown", (event) => {
  const goal = {ArrowRight: stop + 1, ArrowLeft: stop - 1, ArrowDown: stop + 10, ArrowUp: stop - 10, Home: 0,
    End: spans.length - 1}[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (goal !== undefined) { event.preventDefault(); move(goal); }
  else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); keep(stop); }
});
byId("chart").addEventListener("click", (event) => {
  const box = byId("chart").getBoundingClientRect(), width = byId("chart").viewBox.baseVal.width;
  const left = Number(byId("chart").dataset.left), right = Number(byId("chart").dataset.right);
  const share = ((event.clientX - box.left) / box.width * width - left) / (right - left);
  move(Math.round(share * (spans.length - 1)));
});
document.querySelectorAll("input[name=figure]").forEach((radio) => {
  radio.addEventListener("change", () => colour(radio.value));
  if (radio.checked && radio.value !== figure) colour(radio.value);  // a browser that remembers the last choice
});
"""
