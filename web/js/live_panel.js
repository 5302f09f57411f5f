// The panel on Restricted Gradient Unlearn: progress, losses, preview pictures by step, and buttons to
// end the run early or to go back to a step.

import { LossChart } from "./chart.js";
import {
  addPanel, clientId, findNode, graphId, onEvent, queue, saveWithNode, savedWithNode, setWidget,
  someNode, viewUrl, widgetOf,
} from "./comfy.js";
import { h, setText } from "./dom.js";
import { markEarlier } from "./earlier.js";
import { get, post } from "./server.js";
import { duration, t } from "./words.js";

const NAME = "unlearn live";
const POLL = 5000; // ms between two requests for a run whose events go to another tab
const panels = new WeakMap(); // node -> LivePanel

class LivePanel {
  constructor(node, header) {
    this.node = node;
    this.run = null;
    this.chosen = null; // index of the preview at the scrubber; null follows the newest
    this.phase = h("strong");
    this.spoken = h("span", { className: "spoken", role: "status" }); // the phase, without counters
    this.timeLeft = h("span", { className: "quiet number" });
    this.filled = h("div");
    this.bar = h("div", { className: "bar", role: "progressbar" }, this.filled);
    this.bar.setAttribute("aria-valuemin", 0);
    this.bar.setAttribute("aria-valuemax", 100);
    this.alarm = h("div", { className: "bad alarm", role: "alert" });
    this.chart = new LossChart();
    this.before = h("img", { alt: t("strip.before") });
    this.after = h("img", { alt: "" });
    this.label = h("span", { className: "quiet number" });
    this.captions = h("div", { className: "captions" });
    this.scrub = h("input", { type: "range", className: "scrub", min: 0, oninput: () => this.scrubbed() });
    this.secondRow = [this.label, this.after];
    this.strip = h(
      "div",
      { className: "strip" },
      h("span", { className: "quiet", textContent: t("strip.before") }),
      this.before,
      ...this.secondRow,
      h("span"),
      this.captions,
      h("span"),
      this.scrub,
    );
    this.origin = h("div", { className: "quiet", role: "status" });
    this.notes = h("div", { className: "quiet notes", role: "status" });
    this.automatic = h("div", { className: "quiet automatic" });
    this.memory = h("div", { className: "quiet", role: "status" });
    this.stop = h("button", { className: "main", onclick: () => this.end(null) });
    this.keep = h("button", { onclick: () => this.keepChosen() });
    this.last = h("button", { onclick: () => this.output(this.run.steps.length) });
    this.all = h("button", { onclick: () => this.output(0) });
    this.again = h("button", { textContent: t("restart"), onclick: () => this.restart() });
    this.problem = h("span", { className: "bad grow", role: "alert" });
    this.controls = [this.stop, this.keep, this.last, this.all, this.again];
    this.buttons = h("div", { className: "row" }, ...this.controls, this.problem);
    this.empty = h("div", { className: "empty", textContent: t("live.empty") });
    this.body = [
      h("div", { className: "row" }, this.phase, this.timeLeft),
      this.bar,
      this.alarm,
      this.origin,
      this.notes,
      this.chart.element,
      h("div", { className: "scroll" }, this.strip),
      this.buttons,
      this.automatic,
      this.memory,
    ];
    this.element = h("div", {}, this.spoken, header, this.empty, ...this.body);
    this.clock = null;
    addPanel(node, NAME, this.element, { min: 470, removed: () => this.stopClock() });
    this.draw();
  }

  // Shows the complete state of a run.
  show(run) {
    const watched = run.key === this.run?.key && this.run.state === "running";
    // A known run that is reported as finished again: the user chose the last step after another.
    if (run.key !== this.run?.key || (run.state === "finished" && !watched)) this.chosen = null;
    if (this.chosen >= run.previews.length) this.chosen = null; // its step was undone
    if (watched) run.ending = this.run.ending;
    this.run = run;
    setText(this.problem, "");
    this.countFrom = performance.now();
    if (run.state === "kept") this.chooseStep(run.result);
    this.draw();
  }

  // Applies one event of the run.
  update(event, change) {
    if (!this.run) return;
    change(this.run, event);
    if ("seconds_left" in event) this.countFrom = performance.now();
    this.draw();
  }

  draw() {
    const { run } = this;
    this.empty.hidden = Boolean(run);
    for (const part of this.body) part.hidden = !run;
    if (!run) return;
    this.showPhase();
    this.showAlarm();
    this.showOrigin();
    this.notes.hidden = !run.notes?.length;
    setText(this.notes, (run.notes ?? []).join("\n"));
    this.chart.element.hidden = run.total === 0; // a closed-form edit has no steps
    this.chart.show(run.steps, run.state === "running" ? run.total : run.steps.length);
    const values = Object.entries(run.automatic).map(([name, value]) => `${name} ${value}`);
    this.automatic.hidden = !values.length;
    setText(this.automatic, t("live.automatic", { values: values.join(", ") }));
    this.showMemory();
    this.drawPreviews();
    this.drawButtons();
  }

  showMemory() {
    const { memory } = this.run;
    this.memory.hidden = !memory;
    if (!memory) return;
    const { failed_step: step, micro_batch: n, needed_bytes, available_bytes } = memory;
    const { scope, too_large } = memory;
    const size = { needed: gigabytes(needed_bytes), available: gigabytes(available_bytes) };
    const name = step ? "live.failed step" : n ? "live.memory parts" : "live.memory";
    const sentences = [t(name, { step, n, ...size })];
    if (scope) sentences.push(t("live.smaller scope", { scope, too_large }));
    setText(this.memory, sentences.join(" "));
  }

  showPhase() {
    const { run } = this;
    const running = run.state === "running";
    const steps = run.steps.length;
    const early = run.state === "cancelled" && steps === 0;
    const short = run.phase === "unlearning" && run.of < run.total;
    const ended = run.state === "finished" && run.total === 0 ? "finished edit" : run.state;
    setText(
      this.phase,
      running
        ? t(short ? "phase.short" : `phase.${run.phase || "first look"}`, run)
        : t(early ? "state.cancelled early" : `state.${ended}`, { ...run, steps }),
    );
    const phase = t(`spoken.${run.phase || "first look"}`);
    setText(this.spoken, running ? phase : this.phase.textContent);
    this.phase.className = run.state === "failed" ? "phase bad grow" : "phase grow";
    const share = running || early ? run.done / run.of : 1;
    this.filled.style.width = `${100 * share}%`;
    this.bar.setAttribute("aria-valuenow", Math.round(100 * share));
    this.bar.setAttribute("aria-label", this.phase.textContent);
    this.showTime();
    if (running && !this.clock) this.clock = setInterval(() => this.showTime(), 1000);
    if (!running) this.stopClock();
  }

  // Shows the newest alarm; the tooltip contains all.
  showAlarm() {
    const texts = this.run.alarms.map((alarm) =>
      t(`alarm.${alarm.kind}`, { step: alarm.step, ...alarm.values }, alarm.message),
    );
    this.alarm.hidden = !texts.length;
    setText(this.alarm, texts.at(-1) ?? "");
    this.alarm.title = texts.join("\n");
  }

  // Shows whether the run continues a stopped one, or can be continued itself.
  showOrigin() {
    const { stored, resumed_at, not_resumed } = this.run;
    this.origin.hidden = !(stored || resumed_at || not_resumed);
    const started = resumed_at ? "live.resumed" : `live.${not_resumed}`;
    if (!this.origin.hidden) setText(this.origin, t(stored ? "live.stored" : started, { step: stored ?? resumed_at }));
  }

  // Counts down between two events from the server.
  showTime() {
    const seconds = this.run?.seconds_left ?? null;
    const passed = (performance.now() - this.countFrom) / 1000;
    this.timeLeft.textContent =
      seconds === null ? "" : t("time.left", { time: duration(Math.max(1, seconds - passed)) });
  }

  stopClock() {
    clearInterval(this.clock);
    this.clock = null;
  }

  get preview() {
    return this.run.previews[this.chosen ?? this.run.previews.length - 1] ?? null;
  }

  drawPreviews() {
    const { before, previews, prompts, forget_count } = this.run;
    this.strip.hidden = !before;
    if (!before) return;
    setSource(this.before, viewUrl(before));
    for (const part of this.secondRow) part.hidden = previews.length === 0;
    this.scrub.hidden = previews.length < 2;
    if (previews.length) this.drawPreview(previews);
    if (this.captionText !== prompts.join("\n")) {
      this.captionText = prompts.join("\n");
      this.captions.style.gridTemplateColumns = `repeat(${prompts.length}, 1fr)`;
      this.captions.replaceChildren(
        ...prompts.map((prompt, i) =>
          h("span", { textContent: prompt, title: prompt, className: i < forget_count ? "asks" : "rest" }),
        ),
      );
    }
  }

  drawPreview(previews) {
    const { step, picture } = this.preview;
    setSource(this.after, viewUrl(picture));
    this.label.textContent = step === 0 ? t("strip.edit") : t("strip.step", { step });
    this.after.alt = this.label.textContent;
    this.scrub.max = previews.length - 1;
    this.scrub.value = this.chosen ?? previews.length - 1;
    this.scrub.setAttribute("aria-label", t("strip.scrub"));
    this.scrub.setAttribute("aria-valuetext", this.label.textContent);
    this.chart.markStep(step, this.chosen !== null || this.run.state !== "running");
    this.chart.showFigures();
  }

  drawButtons() {
    const { run } = this;
    const step = this.preview?.step ?? 0;
    const running = run.state === "running";
    this.stop.hidden = !running || run.total === 0;
    this.stop.textContent = t(run.ending ? "stopping" : "stop");
    this.stop.disabled = run.steps.length === 0 || run.ending;
    const current = running ? run.steps.length : run.result;
    this.keep.hidden = step === 0 || step === current;
    this.keep.textContent = t("keep", { step });
    this.keep.disabled = !run.saved.includes(step) || Boolean(run.ending);
    this.keep.title = this.keep.disabled && !run.ending ? t("keep.gone", { step }) : "";
    // A run that was cancelled or failed saves its last step. It usually has no preview, so it gets its
    // own button.
    const last = run.steps.length;
    this.last.hidden = !["cancelled", "failed"].includes(run.state) || last === step || !run.saved.includes(last);
    this.last.textContent = t("keep", { step: last });
    this.all.hidden = running || !(widgetOf(this.node, "keep_step")?.value > 0);
    this.all.textContent = t("all");
    this.again.hidden = !run.resumed_at && (running || !run.stored);
    this.again.disabled = Boolean(run.ending);
    this.buttons.hidden = this.controls.every(({ hidden }) => hidden) && !this.problem.textContent;
  }

  scrubbed() {
    const at = Number(this.scrub.value);
    this.chosen = at === this.run.previews.length - 1 ? null : at;
    this.draw();
  }

  chooseStep(step) {
    const at = this.run.previews.findIndex((preview) => preview.step === step);
    this.chosen = at < 0 || at === this.run.previews.length - 1 ? null : at;
  }

  keepChosen() {
    const { step } = this.preview;
    if (this.run.state === "running") this.end(step);
    else this.output(step);
  }

  // Ends the run with the state of this step; null for the current one.
  async end(step) {
    this.run.ending = true;
    this.drawButtons();
    try {
      await post("end", { key: this.run.key, step });
    } catch (error) {
      this.run.ending = false;
      setText(this.problem, error.message);
      this.drawButtons();
    }
  }

  // Ends the run, if it is still running, and queues the graph to begin anew.
  async restart() {
    try {
      await post("restart", { key: this.run.key });
      queue();
    } catch (error) {
      setText(this.problem, error.message);
      this.drawButtons();
    }
  }

  // After the run has ended: queues the graph again to output the state of this step.
  output(step) {
    setWidget(this.node, "keep_step", step);
    queue();
  }
}

const gigabytes = (bytes) => (bytes / 1e9).toFixed(1);

function setSource(image, source) {
  if (image.getAttribute("src") !== source) image.src = source;
}

export function addLivePanel(node, header) {
  panels.set(node, new LivePanel(node, header));
}

// Node ids are unique only within a graph, and the page may show another graph than the running one.
const isOfThisGraph = ({ workflow }) => workflow === (graphId() ?? null);

export function showRun(node, run) {
  panels.get(node)?.show(run);
}

const RECORDED = "unlearn kept";
const recorded = new Set();

// Records the kept step in the workflow, so that others who run it get the same result. Each choice is
// recorded only once, so that later changes by the user stay.
function recordKeptStep(node, { state, key, result }) {
  const choice = `${key} ${result}`;
  if (state !== "kept" || recorded.has(choice) || savedWithNode(node, RECORDED) === choice) return;
  recorded.add(choice);
  saveWithNode(node, RECORDED, choice); // the page may be reloaded
  setWidget(node, "keep_step", result);
}

export function followRuns() {
  const on = (event, change) =>
    onEvent(event, (data) => {
      if (isOfThisGraph(data)) panels.get(findNode(data.node))?.update(data, change);
    });
  onEvent("unlearn.run", (run) => {
    const node = isOfThisGraph(run) ? findNode(run.node) : null;
    if (!node) return;
    showRun(node, run);
    markEarlier(node);
    recordKeptStep(node, run);
  });
  onEvent("reconnected", () => restoreRuns(false)); // steps may have passed meanwhile
  on("unlearn.phase", (run, { phase, done, of, seconds_left }) => {
    Object.assign(run, { phase, done, of, seconds_left });
  });
  on("unlearn.step", (run, { step, forget_loss, retain_loss, cosine, conflict }) => {
    if (step > run.steps.length) run.steps.push([step, forget_loss, retain_loss, cosine, conflict]);
  });
  on("unlearn.memory", (run, { memory }) => {
    run.memory = memory;
  });
  on("unlearn.before", (run, { picture }) => {
    run.before = picture;
  });
  on("unlearn.preview", (run, preview) => {
    if (!run.previews.some(({ step }) => step === preview.step)) run.previews.push(preview);
  });
  on("unlearn.saved", (run, { saved }) => {
    run.saved = saved; // saving one step may have deleted another
  });
}

let polling = null;

// Shows the runs of this graph that the server still knows, after a reload or a broken connection.
// `ended`: whether to include ended runs.
export async function restoreRuns(ended) {
  clearTimeout(polling);
  const workflow = graphId() ?? "";
  let again = true; // also after an error: the server may be busy
  try {
    const runs = await get(`runs?${new URLSearchParams({ workflow, client: clientId() })}`);
    if (workflow !== (graphId() ?? "")) return; // another graph was opened meanwhile
    for (const run of runs) restoreRun(run, ended);
    markLost(runs.map(({ key }) => key));
    // Events go only to the tab that queued the run; other or reloaded tabs must poll.
    again = runs.some(({ state, followed }) => state === "running" && !followed);
  } catch (error) {
    console.warn(`Unlearn: the runs could not be read: ${error.message}`);
  }
  if (again) polling = setTimeout(() => restoreRuns(false), POLL);
}

function restoreRun(run, ended) {
  const node = findNode(run.node);
  const current = panels.get(node)?.run;
  const watched = current?.key === run.key && current.state === "running";
  if (!ended && !watched && run.state !== "running") return;
  showRun(node, run);
  if (node) recordKeptStep(node, run);
}

// Marks a run that the server no longer knows: it ended when the server was restarted.
function markLost(keys) {
  someNode((node) => {
    const panel = panels.get(node);
    if (panel?.run?.state === "running" && !keys.includes(panel.run.key))
      panel.show({ ...panel.run, state: "failed", note: t("live.lost") });
    return false; // go on to the next node
  });
}
