// Forget loss, retain loss and the cosine of the two gradients, step by step, as they come. Points
// are appended in the data's own coordinates; a transform brings them to their place, so that a new
// step costs the same after 100,000 others.

import { h, svg } from "./dom.js";
import { figure, t } from "./words.js";

const LEFT = 46; // room for the labels
const RIGHT = 14;
const TOP = 8;
const FOOT = 22; // room for the labels along the steps
const GAP = 14; // between two bands
const SHARES = { forget: 0.37, keep: 0.37, cosine: 0.26 }; // of the height, from top to bottom
const MOST = 600; // points of a curve; a longer run is thinned, as in the report's chart

const STEP = 0;
const FORGET = 1;
const RETAIN = 2;
const COSINE = 3;
const CONFLICT = 4;
const COLUMNS = { forget: FORGET, keep: RETAIN };

// Short enough for the axis.
function brief(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 0.01 || size >= 1000) ? value.toExponential(1) : figure(value, 2);
}

// The index of the step that is nearest to a number, in a list that is sorted by step.
function nearest(steps, wanted) {
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle][STEP] < wanted) low = middle + 1;
    else high = middle;
  }
  const before = low > 0 && wanted - steps[low - 1][STEP] <= steps[low][STEP] - wanted;
  return before ? low - 1 : low;
}

// Top and bottom of each band, in a picture of that height.
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

// A loss over the steps. Where it is not a number, the line has a gap.
class Curve {
  constructor(name) {
    this.tail = svg("line", { class: name });
    this.group = svg("g", { "data-curve": name }, this.tail);
    this.name = name;
    this.clear();
  }

  clear() {
    this.group.replaceChildren(this.tail);
    this.line = null;
    this.end = null; // the last point of the line
    [this.low, this.high] = [Infinity, -Infinity];
    this.showTail(null, null);
  }

  append(step, value) {
    if (value === null) {
      this.line = this.end = null;
      return;
    }
    if (!this.line) {
      this.line = svg("polyline", { class: this.name });
      this.group.append(this.line);
    }
    const point = this.line.ownerSVGElement.createSVGPoint();
    [point.x, point.y] = [step, value];
    this.end = this.line.points.appendItem(point);
  }

  // From the last point to the newest step, which need not have a point of its own.
  showTail(step, value) {
    const from = this.end;
    const ends = from && value !== null ? [from.x, from.y, step, value] : [0, 0, 0, 0];
    ["x1", "y1", "x2", "y2"].forEach((name, i) => this.tail.setAttribute(name, ends[i]));
  }

  widen(value) {
    if (value === null) return;
    this.low = Math.min(this.low, value);
    this.high = Math.max(this.high, value);
  }

  get known() {
    return this.low <= this.high;
  }

  place([top, bottom], across) {
    const flat = !(this.high > this.low);
    const down = flat ? 1 : (top - bottom) / (this.high - this.low);
    const foot = flat ? (top + bottom) / 2 - (this.known ? this.low : 0) : bottom - down * this.low;
    this.group.setAttribute("transform", `matrix(${across} 0 0 ${down} ${LEFT} ${foot})`);
  }
}

export class LossChart {
  constructor() {
    this.steps = [];
    this.drawn = 0; // steps that are in the picture
    this.buckets = []; // of `stride` steps each: {step, forget, keep, cosine, conflict, bar}
    this.stride = 1; // a power of two
    this.total = 1;
    [this.width, this.height] = [560, 200];
    this.marked = null;
    this.showMarked = false;
    this.pointed = null; // index of a step
    this.grid = svg("g");
    this.bars = svg("g", { "data-curve": "cosine" });
    this.curves = [new Curve("forget"), new Curve("keep")];
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
    // As large as the node has room for; the labels keep their size.
    new ResizeObserver(([{ contentRect: { width, height } }]) => {
      if (!width || !height || (width === this.width && height === this.height)) return;
      [this.width, this.height] = [width, height];
      this.place();
    }).observe(this.picture);
    this.place();
  }

  // `steps`: [step, forget loss, retain loss, cosine, conflict], sorted; it may have grown since.
  show(steps, total) {
    const replaced = steps !== this.steps || steps.length < this.drawn;
    if (!replaced && steps.length === this.drawn && total === this.total) return;
    this.steps = steps;
    this.total = Math.max(1, total);
    if (replaced) this.clear();
    for (let i = this.drawn; i < steps.length; i += 1) this.append(steps[i]);
    this.showTails();
    this.place();
  }

  clear() {
    this.drawn = 0;
    this.buckets = [];
    this.stride = 1;
    this.pointed = null;
    this.bars.replaceChildren();
    for (const curve of this.curves) curve.clear();
  }

  append(step) {
    const values = { forget: step[FORGET], keep: step[RETAIN] };
    const bucket = { step: step[STEP], ...values, cosine: step[COSINE], conflict: step[CONFLICT] };
    if (this.drawn % this.stride === 0) this.open(bucket);
    else this.merge(this.buckets.at(-1), bucket);
    for (const curve of this.curves) curve.widen(values[curve.name]);
    this.drawn += 1;
    if (this.buckets.length > MOST) this.thin();
  }

  open(bucket) {
    this.buckets.push(bucket);
    for (const curve of this.curves) curve.append(bucket.step, bucket[curve.name]);
    bucket.bar = svg("line", { x1: bucket.step, x2: bucket.step, y1: 0 });
    this.drawBar(bucket);
    this.bars.append(bucket.bar);
  }

  // The curves keep a bucket's first step; its bar shows the lowest cosine, or a long run would
  // lose its conflicts.
  merge(bucket, other) {
    const cosine = other.cosine === null ? bucket.cosine : Math.min(bucket.cosine ?? 1, other.cosine);
    const conflict = bucket.conflict || other.conflict;
    if (cosine === bucket.cosine && conflict === bucket.conflict) return;
    Object.assign(bucket, { cosine, conflict });
    this.drawBar(bucket);
  }

  drawBar({ bar, cosine, conflict }) {
    bar.setAttribute("y2", cosine ?? 0);
    bar.setAttribute("class", conflict ? "clash" : "agree");
    bar.setAttribute("stroke-width", 0.9 * this.stride);
  }

  thin() {
    this.stride *= 2;
    const pairs = this.buckets;
    const ranges = this.curves.map(({ low, high }) => [low, high]);
    this.buckets = [];
    this.bars.replaceChildren();
    this.curves.forEach((curve, i) => {
      curve.clear();
      [curve.low, curve.high] = ranges[i];
    });
    pairs.forEach((bucket, i) => {
      if (i % 2 === 0) this.open(bucket);
      else this.merge(this.buckets.at(-1), bucket);
    });
  }

  showTails() {
    const newest = this.steps[this.drawn - 1];
    if (!newest) return;
    for (const curve of this.curves) curve.showTail(newest[STEP], newest[COLUMNS[curve.name]]);
  }

  get across() {
    return (this.width - LEFT - RIGHT) / this.total;
  }

  x(step) {
    return LEFT + this.across * step;
  }

  // Brings what is drawn to its place, and labels it.
  place() {
    const bands = bandsIn(this.height);
    const right = this.width - RIGHT;
    const [top, bottom] = bands.cosine;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.picture.setAttribute("data-steps", this.drawn);
    for (const curve of this.curves) curve.place(bands[curve.name], this.across);
    for (const line of [this.cursor, this.mark]) line.setAttribute("y2", bottom);
    const middle = (top + bottom) / 2;
    const half = (top - bottom) / 2;
    this.bars.setAttribute("transform", `matrix(${this.across} 0 0 ${half} ${LEFT} ${middle})`);
    const rule = (y) => svg("line", { class: "grid", x1: LEFT, x2: right, y1: y, y2: y });
    this.grid.replaceChildren(rule(bands.forget[1]), rule(bands.keep[1]), rule(middle));
    const label = (text, x, y, anchor, kind = "") =>
      svg("text", { x, y, "text-anchor": anchor, class: kind }, text);
    const ends = this.curves
      .filter(({ known }) => known)
      .flatMap(({ name, low, high }) => [
        label(brief(high), LEFT - 4, bands[name][0] + 8, "end", name),
        label(brief(low), LEFT - 4, bands[name][1], "end", name),
      ]);
    this.labels.replaceChildren(
      ...ends,
      label("+1", LEFT - 4, top + 8, "end"),
      label("−1", LEFT - 4, bottom, "end"),
      label(t("chart.step", { step: 0 }), LEFT, this.height - 6, "start"),
      label(t("chart.step", { step: this.total }), right, this.height - 6, "end"),
    );
    this.markStep(this.marked);
    this.tell();
  }

  // A dashed line where the scrubber stands. `shown`: the figures are those of that step.
  markStep(step, shown = this.showMarked) {
    this.marked = step;
    this.showMarked = shown;
    this.put(this.mark, step);
  }

  put(line, step) {
    const x = step === null ? -10 : this.x(step);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }

  pointAt(event) {
    const box = this.picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    this.point(this.steps.length ? nearest(this.steps, (x - LEFT) / this.across) : null);
  }

  // The pointed step by the keys that move a slider.
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
    this.tell();
  }

  // The figures of the pointed step; without one, of the marked or the last.
  tell() {
    const pointed = this.steps[this.pointed] ?? null;
    this.put(this.cursor, pointed && pointed[STEP]);
    const marked = this.showMarked && this.marked !== null ? this.stepOf(this.marked) : null;
    const shown = pointed ?? marked ?? this.steps.at(-1) ?? null;
    const step = shown ? t("chart.step", { step: shown[STEP] }) : "";
    const [forget, keep, cosine] = [
      t("chart.forget", { value: figure(shown?.[FORGET]) }),
      t("chart.keep", { value: figure(shown?.[RETAIN]) }),
      t("chart.cosine", { value: figure(shown?.[COSINE], 2) }),
    ];
    const part = (textContent, className = "") => h("span", { textContent, className });
    this.legend.replaceChildren(
      part(step), part(forget, "forget"), part(keep, "keep"), part(cosine),
    );
    const values = {
      label: t("chart.name"),
      valuemin: this.steps[0]?.[STEP] ?? 0,
      valuemax: this.steps.at(-1)?.[STEP] ?? 0,
      valuenow: shown?.[STEP] ?? 0,
      valuetext: [step, forget, keep, cosine].filter(Boolean).join(", "),
    };
    for (const [name, value] of Object.entries(values))
      this.picture.setAttribute(`aria-${name}`, value);
  }

  stepOf(number) {
    const step = this.steps.length ? this.steps[nearest(this.steps, number)] : null;
    return step?.[STEP] === number ? step : null;
  }
}
