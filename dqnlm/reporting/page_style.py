"""Style sheet of the report page: light and dark by the reader's setting, no external resources."""

from __future__ import annotations

from dqnlm.reporting.curves import DARK, LIGHT


def _colours(colours: tuple[str, ...]) -> str:
    return " ".join(f"--c{index}: {colour};" for index, colour in enumerate(colours))


STYLE = (
    f"""
:root {{ color-scheme: light dark; --paper: #ffffff; --card: #f7f8fa; --ink: #1c2230; --soft: #5c6675; --line: #dde1e8;
  --grid: #e4e7ed; --warn: #fff6e0; --warn-line: #e0a800; --accent: #2563eb; {_colours(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #12151b; --card: #1a1e26; --ink: #e6e9ef; --soft: #9aa4b2;
  --line: #2c323d; --grid: #2a303b; --warn: #2e2712; --warn-line: #c99a1a; --accent: #6ea8fe; {_colours(DARK)} }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 38px 0 10px; }
h3 { font-size: .95rem; margin: 0 0 6px; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 6px 0; } .soft, figcaption, th small { color: var(--soft); font-weight: 400; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line); border-radius: 4px; padding: 8px 16px;
  margin: 18px 0; overflow-wrap: anywhere; } .warnings ul { margin: 4px 0; padding-left: 20px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; min-width: 150px; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; } .tile span { color: var(--soft); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: 6px 12px; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } thead th { background: var(--card); font-weight: 600; vertical-align: bottom; }
th small { display: block; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.best { font-weight: 700; color: var(--accent); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; padding: 0; margin: 8px 0; }
.legend li { display: flex; align-items: center; gap: 8px; overflow-wrap: anywhere; }
.legend svg { flex: none; width: 28px; height: 10px; }
.switch { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; margin: 10px 0; }
input[name=axis] { position: absolute; opacity: 0; }
.switch label { border: 1px solid var(--line); border-radius: 16px; padding: 2px 14px; cursor: pointer; }
.charts { display: none; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 14px; }
#axis-step:checked ~ .by-step, #axis-transitions:checked ~ .by-transitions, #axis-wall_s:checked ~ .by-wall_s,
details .charts { display: grid; }
#axis-step:checked ~ .switch [for=axis-step], #axis-transitions:checked ~ .switch [for=axis-transitions],
#axis-wall_s:checked ~ .switch [for=axis-wall_s] { background: var(--accent);
  border-color: var(--accent); color: var(--paper); }
#axis-step:focus-visible ~ .switch [for=axis-step], #axis-wall_s:focus-visible ~ .switch [for=axis-wall_s],
#axis-transitions:focus-visible ~ .switch [for=axis-transitions] { outline: 2px solid var(--ink); outline-offset: 2px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px 8px; }
figure svg { width: 100%; height: auto; display: block; } figcaption { font-size: .82rem; }
figure svg text { font-family: inherit !important; }
details { border: 1px solid var(--line); border-radius: 8px; margin: 10px 0; padding: 8px 14px; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; } details[open] > summary { margin-bottom: 10px; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 14px; }
.samples article { min-width: 0; } .samples h3 { color: var(--soft); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; margin: 0 0 8px;
  white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre .prompt { color: var(--soft); background: var(--grid); border-radius: 3px; }
@media print { details > * { display: revert; } .switch { display: none; } }
"""
)
