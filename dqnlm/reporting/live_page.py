"""The live page of a run: the report's own parts, asked for anew while the run trains, and the inspector in a frame below.

The page holds no figures itself. Its script asks `state` every few seconds, and fetches `report` and `inspect` where it names
something newer; what the reader opened or chose stays so. All addresses are relative, so that the token stays in front of them.
"""

from __future__ import annotations

from html import escape

from dqnlm.errors import UserError
from dqnlm.reporting.compare import check_figure, main_figure
from dqnlm.reporting.html import comparison
from dqnlm.reporting.loading import Point, load_run
from dqnlm.reporting.names import run_name
from dqnlm.reporting.page_style import STYLE
from dqnlm.runs.directory import RunDirectory

OWN_STYLE = """
#live { float: right; } #live.stale { color: var(--warn-line); }
#ask { display: flex; gap: 8px; margin: 8px 0; } #ask textarea { flex: 1; font: inherit; min-height: 2.6em; color: inherit;
  background: var(--card); border: 1px solid var(--line); border-radius: 4px; padding: 6px 8px; }
iframe { width: 100%; height: 70vh; border: 1px solid var(--line); border-radius: 6px; background: var(--paper); }
"""
SCRIPT = """
"use strict";
const byId = (id) => document.getElementById(id);
let shown = {}, asked = null;
function remember() {
  const open = new Set(), report = byId("report");
  report.querySelectorAll("details").forEach((d, i) => { if (d.open) open.add(i + d.querySelector("summary").textContent); });
  const chosen = [...report.querySelectorAll("input:checked")].map((input) => input.id);
  return () => {
    report.querySelectorAll("details").forEach((d, i) => {
      if (open.has(i + d.querySelector("summary").textContent)) d.open = true;
    });
    chosen.forEach((id) => { if (byId(id)) byId(id).checked = true; });
  };
}
async function fetched(path) {
  const answer = await fetch(path, {cache: "no-store"});
  if (!answer.ok) throw new Error(answer.status);
  return answer;
}
function inspect(checkpoint) {
  const text = asked === null ? "" : "&text=" + encodeURIComponent(asked);
  byId("inspector").src = "inspect?checkpoint=" + encodeURIComponent(checkpoint) + text;
}
async function look() {
  const live = byId("live");
  try {
    const state = await (await fetched("state")).json();
    if (state.report !== shown.report) {
      const text = await (await fetched("report")).text(), restore = remember();
      byId("report").innerHTML = text;
      restore();
    }
    const key = state.checkpoint + (asked === null ? state.sample : "");
    if (state.checkpoint !== null && key !== shown.key) inspect(state.checkpoint);
    shown = {report: state.report, key: state.checkpoint === null ? null : key, checkpoint: state.checkpoint};
    byId("waiting").hidden = state.checkpoint !== null;
    byId("inspector").hidden = state.checkpoint === null;
    live.textContent = state.status + ", looked at " + new Date().toLocaleTimeString();
    live.className = "soft";
  } catch (error) {
    live.textContent = "dqnlm report --watch does not answer (" + error.message + ")";
    live.className = "stale";
  }
  setTimeout(look, 1000 * Number(document.body.dataset.seconds));
}
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  asked = byId("text").value || null;
  if (shown.checkpoint) inspect(shown.checkpoint);
});
look();
"""


def live_page(title: str, seconds: float, nonce: str) -> str:
    """The page itself; `nonce` marks its script, so that no other one runs in it."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · dqnlm, live</title><style>{STYLE}{OWN_STYLE}</style></head>\n"
        f'<body data-seconds="{seconds:g}"><main><p id="live" class="soft" role="status"></p><h1>{escape(title)}</h1>'
        '<div id="report"></div><h2>Inspector</h2><p class="soft">Q, value and best tokens of a text, by the newest '
        "checkpoint. Without a text of yours: the newest sample.</p>"
        '<form id="ask"><textarea id="text" aria-label="text to inspect" placeholder="a text of yours"></textarea>'
        '<button>inspect</button></form><p id="waiting" class="soft">There is no checkpoint yet.</p>'
        '<iframe id="inspector" title="inspector" sandbox="allow-scripts" hidden></iframe></main>'
        f'<script nonce="{nonce}">{SCRIPT}</script></body></html>\n'
    )


def report_part(run: RunDirectory, metric: str | None) -> str:
    """The report of what is there now, as a part of a page; a sentence where there is nothing yet, or a file is damaged."""
    try:
        found = load_run(run.path, run_name(run.path, run.path.parent.parent))
        if not found.points:
            return sentence(f"{found.status}; there is no log point yet.")
        figure = metric or main_figure([found])
        check_figure(figure, [found])
        return "\n".join(part for part in comparison([found], figure) if part)
    except UserError as error:
        return sentence(str(error))


def newest_sample(found: list[Point]) -> str | None:
    """Prompt and text of the last sample that has two characters or more; None where there is none."""
    texts = (f"{sample.get('prompt', '')}{sample.get('text', '')}" for sample in reversed(found))
    return next((text for text in texts if len(text) > 1), None)


def sentence(text: str) -> str:
    """Plain text as a paragraph."""
    return f'<p class="soft">{escape(text)}</p>'


def sentence_page(text: str) -> str:
    """A page of its own, for the frame, that says one thing."""
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><style>{STYLE}</style></head>'
    return f"{head}<body><main>{sentence(text)}</main></body></html>\n"
