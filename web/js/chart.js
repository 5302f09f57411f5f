// Live chart of forget loss, retain loss and the cosine of the two gradients by step. It is the same
// chart as in unlearn_core/reporting/loss_chart.py, which also has the rule for thinning a long run.
// Points are appended in data coordinates and placed by a transform, so that a new step costs the
// same after 100,000 others.

import { h, svg } from "./dom.js";
import { figure, t } from "./words.js";

const LEFT = 46; // space for the labels
const RIGHT = 14;
const TOP = 8;
const FOOT = 22; // space for the labels along the steps
const GAP = 14; // between two bands
const SHARES = { forget: 0.37, retain: 0.37, cosine: 0.26 }; // of the height, from top to bottom
const MOST = 600; // steps in the picture, including the newest
const BAR = 0.8; // of the space for a bar

const STEP = 0;
const FORGET = 1;
const RETAIN = 2;
const COSINE = 3;
const CONFLICT = 4;
const COLUMNS = { forget: FORGET, retain: RETAIN };

// Short enough for the axis.
function brief(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 0.01 || size >= 1000) ? value.toExponential(1) : figure(value, 2);
}

// The index of the step nearest to a step number, in a list sorted by step.
function nearest(steps, number) {
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle][STEP] < number) low = middle + 1;
    else high = middle;
  }
  const before = low > 0 && number - steps[low - 1][STEP] <= steps[low][STEP] - number;
  return before ? low - 1 : low;
}

// Top and bottom of each band, in a picture of this height.
function bandsIn(height) {
  const room = height - TOP - FOOT - 2 * GAP;
  const bands = {};
  let top = TOP;
  for (const [name, share] of Object.entries(SHARES)) {
    bands[name] = [top, top + share * room];
    top += share * room + GAP;
  }
  return bands;
}

// The curve of a loss over the steps, with a gap at values that are not numbers.
class Curve {
  constructor(name) {
    this.name = name;
    this.column = COLUMNS[name];
    this.tail = svg("line"); // to the newest step, which thinning may remove
    this.group = svg("g", { "data-curve": name }, this.tail);
    this.clear();
  }

  clear() {
    this.group.replaceChildren(this.tail);
    this.line = null;
    this.end = null; // the last point of the line
    this.range = [Infinity, -Infinity];
  }

  append(step) {
    const value = step[this.column];
    if (value === null) {
      this.line = this.end = null;
      return;
    }
    this.range = [Math.min(this.range[0], value), Math.max(this.range[1], value)];
    if (!this.line) {
      this.line = svg("polyline");
      this.group.append(this.line);
    }
    const point = this.line.ownerSVGElement.createSVGPoint();
    [point.x, point.y] = [step[STEP], value];
    this.end = this.line.points.appendItem(point);
  }

  // Fits the curve into its band; `newest` is the last step of the run. Returns lowest and highest.
  place([top, bottom], left, across, newest) {
    const value = newest?.[this.column] ?? null;
    const ends = this.end && value !== null ? [this.end.x, this.end.y, newest[STEP], value] : [];
    ["x1", "y1", "x2", "y2"].forEach((name, i) => this.tail.setAttribute(name, ends[i] ?? 0));
    const low = value === null ? this.range[0] : Math.min(this.range[0], value);
    const high = value === null ? this.range[1] : Math.max(this.range[1], value);
    if (low > high) return null;
    const flat = low === high;
    const down = flat ? 1 : (top - bottom) / (high - low);
    const foot = flat ? (top + bottom) / 2 - low : bottom - down * low;
    this.group.setAttribute("transform", `matrix(${across} 0 0 ${down} ${left} ${foot})`);
    return [low, high];
  }
}

// The strongest agreement and conflict among a step in the picture and the steps skipped before it.
const nothing = () => ({ agree: 0, conflict: 0 });

function strongest(one, other) {
  return { agree: Math.max(one.agree, other.agree), conflict: Math.min(one.conflict, other.conflict) };
}

function cosineOf(step) {
  return { ...nothing(), [step[CONFLICT] ? "conflict" : "agree"]: step[COSINE] ?? 0 };
}

export class LossChart {
  constructor() {
    this.steps = [];
    this.count = 0; // steps processed, including skipped ones
    this.points = []; // steps in the picture: {step, cosines}
    this.skipped = nothing(); // cosines of the steps since the last point
    this.stride = 1; // a power of two
    this.total = 1;
    [this.width, this.height] = [560, 200];
    this.marked = null;
    this.showMarked = false;
    this.pointed = null; // index of a step
    this.grid = svg("g");
    this.newestBars = svg("g");
    this.bars = svg("g", { "data-curve": "cosine" }, this.newestBars);
    this.curves = [new Curve("forget"), new Curve("retain")];
    this.cursor = svg("line", { class: "cursor", y1: TOP });
    this.mark = svg("line", { class: "mark", y1: TOP });
    this.labels = svg("g");
    this.picture = svg(
      "svg",
      { class: "chart", role: "slider", tabindex: 0 },
      this.grid,
      this.bars,
      this.mark,
      ...this.curves.map(({ group }) => group),
      this.cursor,
      this.labels,
    );
    this.legend = h("div", { className: "row number legend" });
    this.element = h("div", { className: "chart-box" }, this.legend, this.picture);
    this.picture.addEventListener("pointermove", (event) => this.pointAt(event));
    this.picture.addEventListener("pointerleave", () => this.point(null));
    this.picture.addEventListener("blur", () => this.point(null));
    this.picture.addEventListener("keydown", (event) => this.move(event));
    // Fills the space that the node has; the labels keep their size.
    new ResizeObserver(([{ contentRect: { width, height } }]) => {
      if (!width || !height || (width === this.width && height === this.height)) return;
      [this.width, this.height] = [width, height];
      this.place();
    }).observe(this.picture);
    this.place();
  }

  // `steps`: [step, forget loss, retain loss, cosine, conflict], sorted; the same list may grow
  // between two calls.
  show(steps, total) {
    const replaced = steps !== this.steps || steps.length < this.count;
    if (!replaced && steps.length === this.count && total === this.total) return;
    this.steps = steps;
    this.total = Math.max(1, total);
    if (replaced) this.clear();
    for (let i = this.count; i < steps.length; i += 1) this.append(steps[i]);
    this.place();
  }

  clear() {
    this.count = 0;
    this.stride = 1;
    this.pointed = this.marked = null;
    this.showMarked = false;
    this.redraw([], nothing());
  }

  // Replaces all points.
  redraw(points, skipped) {
    this.points = [];
    this.skipped = skipped;
    this.bars.replaceChildren(this.newestBars);
    for (const curve of this.curves) curve.clear();
    for (const { step, cosines } of points) this.draw(step, cosines);
  }

  append(step) {
    const index = this.count;
    this.count += 1;
    this.skipped = strongest(this.skipped, cosineOf(step));
    if (index % this.stride === 0) {
      this.draw(step, this.skipped);
      this.skipped = nothing();
    }
    const newest = index % this.stride === 0 ? 0 : 1;
    if (this.points.length + newest > MOST) this.thin();
  }

  draw(step, cosines) {
    this.points.push({ step, cosines });
    for (const curve of this.curves) curve.append(step);
    this.bars.append(...this.barsOf(step, cosines));
  }

  barsOf(step, cosines) {
    return Object.entries(cosines)
      .filter(([, cosine]) => cosine !== 0)
      .map(([kind, cosine]) => {
        const at = { x1: step[STEP], x2: step[STEP], y1: 0, y2: cosine };
        return svg("line", { class: kind, "stroke-width": BAR * this.stride, ...at });
      });
  }

  // Removes every second point; the next point takes over its cosines.
  thin() {
    this.stride *= 2;
    const points = [];
    let skipped = nothing();
    this.points.forEach(({ step, cosines }, i) => {
      skipped = strongest(skipped, cosines);
      if (i % 2 !== 0) return;
      points.push({ step, cosines: skipped });
      skipped = nothing();
    });
    this.redraw(points, strongest(skipped, this.skipped));
  }

  get across() {
    return (this.width - LEFT - RIGHT) / this.total;
  }

  x(step) {
    return LEFT + this.across * (step - 0.5); // the middle of its share of the width
  }

  // Places the bars and curves, and labels them.
  place() {
    const bands = bandsIn(this.height);
    const right = this.width - RIGHT;
    const [top, bottom] = bands.cosine;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.picture.setAttribute("data-steps", this.count);
    const left = this.x(0);
    const newest = this.steps[this.count - 1];
    const ranges = this.curves.map((curve) => [
      curve.name,
      curve.place(bands[curve.name], left, this.across, newest),
    ]);
    this.newestBars.replaceChildren(...(newest ? this.barsOf(newest, this.skipped) : []));
    for (const line of [this.cursor, this.mark]) line.setAttribute("y2", bottom);
    const middle = (top + bottom) / 2;
    const half = (top - bottom) / 2;
    this.bars.setAttribute("transform", `matrix(${this.across} 0 0 ${half} ${left} ${middle})`);
    const rule = (y) => svg("line", { class: "grid", x1: LEFT, x2: right, y1: y, y2: y });
    this.grid.replaceChildren(rule(bands.forget[1]), rule(bands.retain[1]), rule(middle));
    const label = (text, x, y, anchor, kind = "") =>
      svg("text", { x, y, "text-anchor": anchor, class: kind }, text);
    const ends = ranges
      .filter(([, range]) => range)
      .flatMap(([name, [low, high]]) => [
        label(brief(high), LEFT - 4, bands[name][0] + 8, "end", name),
        label(brief(low), LEFT - 4, bands[name][1], "end", name),
      ]);
    this.labels.replaceChildren(
      ...ends,
      label("+1", LEFT - 4, top + 8, "end"),
      label("−1", LEFT - 4, bottom, "end"),
      label(t("chart.step", { step: 1 }), LEFT, this.height - 6, "start"),
      label(t("chart.step", { step: this.total }), right, this.height - 6, "end"),
    );
    this.markStep(this.marked);
    this.showFigures();
  }

  // Puts a dashed line at the scrubber's step. `withFigures`: the legend shows that step's figures.
  markStep(step, withFigures = this.showMarked) {
    this.marked = step;
    this.showMarked = withFigures;
    this.put(this.mark, step);
  }

  put(line, step) {
    const x = step === null ? -10 : this.x(step); // -10: invisible
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }

  pointAt(event) {
    const box = this.picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    this.point(this.steps.length ? nearest(this.steps, 0.5 + (x - LEFT) / this.across) : null);
  }

  // Moves the pointed step by the keys of a slider.
  move(event) {
    const last = this.steps.length - 1;
    const at = this.pointed ?? last;
    const far = Math.max(1, Math.round(last / 10));
    const targets = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - far, PageUp: at + far, Home: 0, End: last,
    };
    if (!(event.key in targets) || last < 0) return;
    event.preventDefault();
    this.point(Math.min(last, Math.max(0, targets[event.key])));
  }

  point(index) {
    this.pointed = index;
    this.showFigures();
  }

  // Shows the figures of the pointed step; without one, of the marked or the last step.
  showFigures() {
    const pointed = this.steps[this.pointed] ?? null;
    this.put(this.cursor, pointed && pointed[STEP]);
    const marked = this.showMarked && this.marked !== null ? this.stepOf(this.marked) : null;
    const current = pointed ?? marked ?? this.steps.at(-1) ?? null;
    const step = current ? t("chart.step", { step: current[STEP] }) : "";
    const [forget, retain, cosine] = [
      t("chart.forget", { value: figure(current?.[FORGET]) }),
      t("chart.retain", { value: figure(current?.[RETAIN]) }),
      t("chart.cosine", { value: figure(current?.[COSINE], 2) }),
    ];
    const part = (textContent, className = "") => h("span", { textContent, className });
    this.legend.replaceChildren(
      part(step), part(forget, "forget"), part(retain, "retain"), part(cosine),
    );
    const values = {
      label: t("chart.name"),
      valuemin: this.steps[0]?.[STEP] ?? 0,
      valuemax: this.steps.at(-1)?.[STEP] ?? 0,
      valuenow: current?.[STEP] ?? 0,
      valuetext: [step, forget, retain, cosine].filter(Boolean).join(", "),
    };
    for (const [name, value] of Object.entries(values))
      this.picture.setAttribute(`aria-${name}`, value);
  }

  stepOf(number) {
    const step = this.steps.length ? this.steps[nearest(this.steps, number)] : null;
    return step?.[STEP] === number ? step : null;
  }
}
