"""Style sheet and script of the HTML report."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --sheet: #ffffff; --ink: #1c1b1f; --soft: #66636b; --line: #e4e1da;
  --bad: #b3263f; --bad-paper: #fbe9ec; --good: #1f6b4f; --good-paper: #e5f3ec; --blue: #2f6690;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141417; --sheet: #1c1c20; --ink: #ededf0; --soft: #a09da6; --line: #34343a;
    --bad: #ff8f9f; --bad-paper: #40202a; --good: #7fd6b0; --good-paper: #17362b; --blue: #8fc1e8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; padding: 0 clamp(1rem, 4vw, 3rem) 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
body > * { max-width: 68rem; margin-inline: auto; }
header { padding-block: clamp(2rem, 6vw, 4.5rem) 1rem; }
h1, h2, h3 { line-height: 1.15; letter-spacing: -0.015em; text-wrap: balance; margin: 0; }
h1 { font-size: clamp(2rem, 1.2rem + 3.4vw, 3.4rem); font-weight: 680; }
h2 { font-size: 1.6rem; font-weight: 640; }
h3 { font-size: 1.05rem; font-weight: 620; letter-spacing: 0; }
p { margin: 0.6rem 0 0; max-width: 44rem; overflow-wrap: anywhere; }
.model { color: var(--soft); margin-top: 0.9rem; }
.lead { font-size: 1.2rem; line-height: 1.5; }
.note { color: var(--soft); }
.missing { border-left: 3px solid var(--bad); padding-left: 0.9rem; margin-top: 1.2rem; }
section { margin-top: 3rem; }
.concept { border-top: 1px solid var(--line); padding-top: 2.2rem; }
.scroll { overflow-x: auto; margin-top: 1.4rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.94rem; table-layout: fixed; }
caption { text-align: left; font-weight: 620; padding-bottom: 0.4rem; }
th, td { padding: 0.45rem 0.9rem 0.45rem 0; text-align: right; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 0.85rem; }
th:first-child { text-align: left; font-weight: 450; width: auto; }
thead th { width: 6rem; }
thead th:nth-child(4) { width: 11rem; }
thead th:nth-child(5) { width: 10rem; }
td { white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
.range { width: 8.5rem; height: 1rem; display: block; margin-left: auto; }
.range .track { stroke: var(--line); stroke-width: 2; }
.range .interval { stroke: var(--blue); stroke-width: 5; stroke-linecap: round; opacity: 0.4; }
.range .after { fill: var(--blue); }
.range .before { fill: var(--sheet); stroke: var(--soft); stroke-width: 1.5; }
.group-head {
  display: flex; flex-wrap: wrap; gap: 0.4rem 1.2rem; align-items: baseline;
  margin-top: 2.6rem; padding-bottom: 0.9rem;
}
.group-head .note { flex: 1 1 auto; font-size: 0.9rem; }
.all { display: flex; gap: 0.6rem; align-items: center; font-size: 0.85rem; color: var(--soft); }
.all input { width: 9rem; accent-color: var(--blue); }
.pairs { display: grid; gap: 1.3rem 1rem; margin: 0; padding: 0; list-style: none; }
.small { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.large { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; }
.slider {
  position: relative; display: block; border-radius: 6px; overflow: hidden; --at: 50%;
  background: var(--line);
}
.slider img { display: block; width: 100%; height: auto; }
.small img { image-rendering: pixelated; }
.slider .after {
  position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--at));
}
.slider::after {
  content: ""; position: absolute; inset: 0 auto 0 calc(var(--at) - 1px); width: 2px;
  background: #fff; box-shadow: 0 0 0 1px #0006; pointer-events: none;
}
.slider span {
  position: absolute; bottom: 0.35rem; padding: 0 0.4rem; border-radius: 4px; font-size: 0.7rem;
  line-height: 1.5; background: #000a; color: #fff; pointer-events: none;
}
.slider .is-before { left: 0.35rem; }
.slider .is-after { right: 0.35rem; }
.slider input {
  position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize; touch-action: pan-y;
}
.slider:focus-within { outline: 3px solid var(--blue); outline-offset: 2px; }
figcaption { font-size: 0.84rem; line-height: 1.4; padding-top: 0.5rem; overflow-wrap: anywhere; }
.chips { display: flex; flex-wrap: wrap; gap: 0.3rem; padding-top: 0.35rem; }
.chip {
  font-size: 0.74rem; padding: 0.05rem 0.5rem; border-radius: 99px; color: var(--soft);
  border: 1px solid var(--line);
}
.chip.bad { color: var(--bad); background: var(--bad-paper); border-color: transparent; }
.chip.good { color: var(--good); background: var(--good-paper); border-color: transparent; }
.chart { display: block; width: 100%; min-width: 30rem; max-width: 44rem; height: auto; }
.chart line, .chart polyline { fill: none; stroke: currentColor; stroke-linejoin: round; }
.chart polyline { stroke-linecap: round; }
.chart text { fill: currentColor; }
.chart .forget, .chart .conflict { color: var(--bad); }
.chart .retain { color: var(--blue); }
.chart .agree { color: var(--good); }
.chart .grid, .chart .label { color: var(--soft); }
.curves { display: grid; gap: 2rem 1.6rem; margin: 1.4rem 0 0; padding: 0; list-style: none; }
.curves { grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
.curves p { font-size: 0.84rem; line-height: 1.4; margin-top: 0.3rem; }
.recovery { display: block; width: 100%; height: auto; margin-top: 0.5rem; }
.recovery text { fill: var(--soft); }
.recovery .track { stroke: var(--line); }
.recovery polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.recovery polyline.before { stroke: var(--soft); stroke-dasharray: 4 4; }
.recovery polyline.after { stroke: var(--bad); }
.recovery circle.before { fill: var(--soft); }
.recovery circle.after { fill: var(--bad); }
.attacked { display: grid; grid-template-columns: repeat(6, 1fr); gap: 0.2rem; margin-top: 0.5rem; }
.attacked img { display: block; width: 100%; height: auto; border-radius: 3px; }
details { margin-top: 2.4rem; }
summary { cursor: pointer; font-weight: 620; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.4rem; font-size: 0.9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 4rem; color: var(--soft); font-size: 0.85rem; overflow-wrap: anywhere; }
@media (max-width: 34rem) {
  .small { grid-template-columns: repeat(2, 1fr); }
  .large { grid-template-columns: 1fr; }
  table { font-size: 0.82rem; }
  th, td { padding-right: 0.5rem; }
  thead th { width: 3.4rem; font-size: 0.78rem; }
  thead th:nth-child(4) { width: 7.5rem; }
  th:nth-child(5), td:nth-child(5) { display: none; }
}
@media print { .all { display: none; } figure { break-inside: avoid; } }
"""

SCRIPT = """
const move = (input) => {
  input.parentElement.style.setProperty("--at", `${input.value}%`);
  input.setAttribute("aria-valuetext", `${input.value} % before`);
};
for (const input of document.querySelectorAll(".slider input")) {
  input.addEventListener("input", () => move(input));
}
for (const all of document.querySelectorAll(".all input")) {
  all.addEventListener("input", () => {
    for (const input of all.closest("section").querySelectorAll(".slider input")) {
      input.value = all.value;
      move(input);
    }
  });
}
"""
