// Forget loss, retain loss and the cosine of the two gradients, by step, as they come.

import { h, svg } from "./dom.js";
import { figure, t } from "./words.js";

const HEIGHT = 150;
const LOSSES = { top: 8, bottom: 86 };
const ANGLES = { top: 96, bottom: 132 };
const STEPS = 146; // foot of the labels along the steps
const SIDE = 44; // at either end, for the labels

const STEP = 0;
const FORGET = 1;
const RETAIN = 2;
const COSINE = 3;
const CONFLICT = 4;

// Lowest and highest of a column.
function range(steps, column) {
  const values = steps.map((step) => step[column]).filter((value) => value !== null);
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
}

// Short enough for the axis.
function brief(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 0.01 || size >= 1000) ? value.toExponential(1) : figure(value, 2);
}

export class LossChart {
  constructor() {
    this.steps = [];
    this.total = 1;
    this.width = 560;
    this.marked = null;
    this.told = false;
    this.grid = svg("g");
    this.angles = svg("g");
    this.lines = { forget: svg("path", { class: "forget" }), keep: svg("path", { class: "keep" }) };
    this.cursor = svg("line", { class: "cursor", y1: LOSSES.top, y2: ANGLES.bottom });
    this.mark = svg("line", { class: "mark", y1: LOSSES.top, y2: ANGLES.bottom });
    this.labels = svg("g");
    this.picture = svg(
      "svg",
      { class: "chart", role: "img" },
      this.grid,
      this.angles,
      this.mark,
      this.lines.keep,
      this.lines.forget,
      this.cursor,
      this.labels,
    );
    this.legend = h("div", { className: "row number" });
    this.element = h("div", {}, this.legend, this.picture);
    this.picture.addEventListener("pointermove", (event) => this.pointAt(event));
    this.picture.addEventListener("pointerleave", () => this.point(null));
    // As wide as the node, so that the labels keep their shape.
    new ResizeObserver(([{ contentRect }]) => {
      if (!contentRect.width || contentRect.width === this.width) return;
      this.width = contentRect.width;
      this.draw();
    }).observe(this.picture);
    this.draw();
  }

  show(steps, total) {
    if (steps === this.steps && steps.length === this.drawn && total === this.total) return;
    this.steps = steps;
    this.drawn = steps.length;
    this.total = Math.max(1, total);
    this.draw();
  }

  // A dashed line where the scrubber stands; `told` has the figures be those of that step.
  markStep(step, told = this.told) {
    this.marked = step;
    this.told = told;
    const x = step === null ? -10 : this.x(step);
    this.mark.setAttribute("x1", x);
    this.mark.setAttribute("x2", x);
  }

  x(step) {
    return SIDE + ((this.width - 2 * SIDE) * step) / this.total;
  }

  draw() {
    const right = this.width - SIDE;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.markStep(this.marked);
    this.picture.setAttribute("aria-label", t("chart.name"));
    this.picture.setAttribute("data-steps", this.steps.length);
    const middle = (ANGLES.top + ANGLES.bottom) / 2;
    const rule = (y) => svg("line", { class: "grid", x1: SIDE, x2: right, y1: y, y2: y });
    this.grid.replaceChildren(rule(LOSSES.top), rule(LOSSES.bottom), rule(middle));
    const scales = { forget: range(this.steps, FORGET), keep: range(this.steps, RETAIN) };
    this.line("forget", FORGET, scales.forget);
    this.line("keep", RETAIN, scales.keep);
    const width = Math.max(1, (right - SIDE) / this.total - 0.5);
    this.angles.replaceChildren(
      ...this.steps
        .filter((step) => step[COSINE] !== null)
        .map((step) =>
          svg("line", {
            class: step[CONFLICT] ? "clash" : "agree",
            "stroke-width": width,
            x1: this.x(step[STEP]),
            x2: this.x(step[STEP]),
            y1: middle,
            y2: middle - (step[COSINE] * (ANGLES.bottom - ANGLES.top)) / 2,
          }),
        ),
    );
    const label = (text, x, y, anchor, kind) =>
      svg("text", { x, y, "text-anchor": anchor, class: kind }, text);
    const ends = this.steps.length
      ? [
          label(brief(scales.forget[1]), SIDE - 4, LOSSES.top + 8, "end", "forget"),
          label(brief(scales.forget[0]), SIDE - 4, LOSSES.bottom, "end", "forget"),
          label(brief(scales.keep[1]), right + 4, LOSSES.top + 8, "start", "keep"),
          label(brief(scales.keep[0]), right + 4, LOSSES.bottom, "start", "keep"),
        ]
      : [];
    this.labels.replaceChildren(
      ...ends,
      label("+1", SIDE - 4, ANGLES.top + 8, "end", ""),
      label("−1", SIDE - 4, ANGLES.bottom, "end", ""),
      label(t("chart.step", { step: 0 }), SIDE, STEPS, "start", ""),
      label(t("chart.step", { step: this.total }), right, STEPS, "end", ""),
    );
    this.point(null);
  }

  line(name, column, [low, high]) {
    let path = "";
    let pen = "M";
    for (const step of this.steps) {
      if (step[column] === null) {
        pen = "M"; // not a number: a gap
        continue;
      }
      const share = high > low ? (step[column] - low) / (high - low) : 0.5;
      const y = LOSSES.bottom - share * (LOSSES.bottom - LOSSES.top);
      path += `${pen}${this.x(step[STEP]).toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
    }
    this.lines[name].setAttribute("d", path);
  }

  pointAt(event) {
    const box = this.picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    const wanted = ((x - SIDE) / (this.width - 2 * SIDE)) * this.total;
    const near = (one, other) =>
      Math.abs(one[STEP] - wanted) <= Math.abs(other[STEP] - wanted) ? one : other;
    this.point(this.steps.length ? this.steps.reduce(near) : null);
  }

  // Tells the figures of a step; without one, of the marked or the last.
  point(step) {
    const marked = this.told ? this.steps.find((one) => one[STEP] === this.marked) : null;
    const told = step ?? marked ?? this.steps.at(-1) ?? null;
    const x = step ? this.x(step[STEP]) : -10;
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const colored = (text, color) => {
      const span = h("span", { textContent: text });
      span.style.color = `var(${color})`;
      return span;
    };
    this.legend.replaceChildren(
      h("span", { textContent: told ? t("chart.step", { step: told[STEP] }) : "" }),
      colored(t("chart.forget", { value: figure(told?.[FORGET]) }), "--forget"),
      colored(t("chart.keep", { value: figure(told?.[RETAIN]) }), "--keep"),
      h("span", { textContent: t("chart.cosine", { value: figure(told?.[COSINE], 2) }) }),
    );
  }
}
