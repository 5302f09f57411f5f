// The panel on Evaluate Alignment: a slider over the pictures before and after, by group; the summary,
// the figures, and the report's files.

import { downloadButton } from "./clip_download.js";
import { addPanel, keepKeys, viewUrl } from "./comfy.js";
import { h } from "./dom.js";
import { Tabs } from "./tabs.js";
import { figure, fixed, t } from "./words.js";

const NAME = "unlearn compare";
const SMALL = 200; // px; smaller pictures are enlarged without smoothing
const panels = new WeakMap(); // node -> ComparePanel

// Two pictures on top of each other, and a movable edge between them.
function slider({ prompt, before, after }) {
  const first = h("img", { alt: `${t("compare.before")}: ${prompt}`, src: viewUrl(before) });
  const second = h("img", { className: "after", alt: `${t("compare.after")}: ${prompt}`, src: viewUrl(after) });
  const range = h("input", { type: "range", min: 0, max: 100, value: 50, step: 1 });
  range.setAttribute("aria-label", t("compare.slider", { prompt }));
  const box = h(
    "div",
    { className: "unlearn-slide" },
    first,
    second,
    h("div", { className: "edge" }),
    h("span", { className: "side left", textContent: t("compare.before") }),
    h("span", { className: "side right", textContent: t("compare.after") }),
    range,
  );
  range.addEventListener("input", () => box.style.setProperty("--at", `${range.value}%`));
  first.addEventListener("load", () => {
    box.classList.toggle("small", first.naturalWidth < SMALL);
    box.style.setProperty("--ratio", first.naturalWidth / first.naturalHeight);
  });
  return h("div", { className: "unlearn-frame" }, box);
}

const known = (value) => value !== null && value !== undefined;

function verdict(shows) {
  return t(shows ? "compare.shows" : "compare.hides");
}

function factsOf(pair, isForget) {
  const facts = [];
  if (isForget && known(pair.shows_before)) facts.push(`${t("compare.before")}: ${verdict(pair.shows_before)}`);
  if (isForget && known(pair.shows_after)) facts.push(`${t("compare.after")}: ${verdict(pair.shows_after)}`);
  if (known(pair.change))
    facts.push(t("compare.change", { value: figure(pair.change, 2) }));
  return facts.join(" · ");
}

class ComparePanel {
  constructor(node) {
    this.report = null;
    this.concept = 0;
    this.group = 0;
    this.pair = 0;
    this.element = h("div");
    addPanel(node, NAME, this.element, { min: 640, removed: () => this.dialog?.remove() });
    this.draw();
  }

  show(report) {
    this.dialog?.close(); // its pictures are from the previous report
    Object.assign(this, { report, concept: 0, group: 0, pair: 0 });
    this.draw();
  }

  get groups() {
    return this.report.concepts[this.concept].groups.filter(({ pairs }) => pairs.length);
  }

  // Whether the prompts of this group ask for the concept.
  get isForget() {
    return this.groups[this.group]?.key === "forget";
  }

  get pairs() {
    return this.groups[this.group]?.pairs ?? [];
  }

  draw() {
    if (!this.report) {
      this.element.replaceChildren(h("div", { className: "empty", textContent: t("compare.empty") }));
      return;
    }
    const concept = this.report.concepts[this.concept];
    this.stage = h("div", { className: "stage" });
    this.thumbs = h("div", { className: "thumbs" });
    const pictures = h("div", { className: "compare" }, this.stage, this.thumbs);
    this.tabs = new Tabs(pictures, (i) => this.showGroup(i));
    this.counter = h("div", { className: "quiet" });
    this.element.replaceChildren(
      ...[
        this.conceptChooser(),
        h("div", {}, ...concept.summary.map((sentence) => h("p", { textContent: sentence }))),
        this.tabs.element,
        pictures,
        this.counter,
        this.figures(concept),
        this.missing(),
        this.files(),
      ].filter(Boolean),
    );
    this.drawGroup();
  }

  conceptChooser() {
    const { concepts } = this.report;
    if (concepts.length < 2) return null;
    const chooser = h(
      "select",
      { onchange: () => this.showConcept(chooser.selectedIndex), "aria-label": t("compare.concept") },
      ...concepts.map(({ name }) => h("option", { textContent: name })),
    );
    chooser.selectedIndex = this.concept;
    return chooser;
  }

  showConcept(concept) {
    Object.assign(this, { concept, group: 0, pair: 0 });
    this.draw();
    this.element.querySelector("select").focus(); // the redraw replaced the focused one
  }

  showGroup(group) {
    Object.assign(this, { group, pair: 0 });
    this.drawGroup();
  }

  drawGroup() {
    const labels = this.groups.map(({ key, total }) => `${t(`group.${key}`)} (${total})`);
    this.tabs.show(labels, this.group);
    const group = this.groups[this.group];
    this.counter.textContent = group
      ? t("compare.shown", { shown: group.pairs.length, total: group.total })
      : "";
    this.thumbs.replaceChildren(
      ...this.pairs.map((pair, i) =>
        h(
          "button",
          {
            title: pair.prompt,
            className: group.key === "forget" && pair.shows_after ? "worse" : "",
            onclick: () => this.showPair(i),
          },
          h("img", { src: viewUrl(pair.after), alt: pair.prompt, loading: "lazy" }),
        ),
      ),
    );
    this.showPair(0);
  }

  showPair(index) {
    this.pair = index;
    [...this.thumbs.children].forEach((thumb, i) => thumb.setAttribute("aria-pressed", i === index));
    const pair = this.pairs[index];
    if (!pair) {
      this.stage.replaceChildren();
      return;
    }
    this.stage.replaceChildren(
      slider(pair),
      h("p", { textContent: pair.prompt }),
      h(
        "div",
        { className: "row" },
        h("span", { className: "quiet grow", textContent: factsOf(pair, this.isForget) }),
        h("button", { textContent: t("compare.full"), onclick: () => this.openLarge() }),
      ),
    );
  }

  openLarge() {
    this.dialog?.remove();
    const caption = h("span", { className: "grow" });
    const place = h("div");
    const move = (by) => {
      const count = this.pairs.length;
      this.showPair((this.pair + by + count) % count);
      const pair = this.pairs[this.pair];
      place.replaceChildren(slider(pair));
      caption.textContent = `${this.pair + 1}/${count} · ${pair.prompt} · ${factsOf(pair, this.isForget)}`;
    };
    this.dialog = h(
      "dialog",
      { className: "unlearn-large", "aria-label": t("compare.full"), onclose: () => this.closeLarge() },
      place,
      h(
        "div",
        { className: "row" },
        h("button", { textContent: `← ${t("compare.previous")}`, onclick: () => move(-1) }),
        caption,
        h("button", { textContent: `${t("compare.next")} →`, onclick: () => move(1) }),
        h("button", { textContent: t("compare.close"), onclick: () => this.dialog.close() }),
      ),
    );
    keepKeys(this.dialog);
    document.body.append(this.dialog);
    this.dialog.showModal();
    move(0);
    place.querySelector("input").focus();
  }

  closeLarge() {
    this.dialog.remove();
    this.stage.querySelector("button")?.focus(); // the one that opened it was redrawn meanwhile
  }

  figures(concept) {
    const cell = (text, number = true) =>
      h("td", { textContent: text, className: number ? "number" : "" });
    const heading = (text, number = true) =>
      h("th", { textContent: text, className: number ? "number" : "", scope: "col" });
    const between = ({ low, high }) =>
      known(low) ? `${fixed(low)} … ${fixed(high)}` : "";
    const rows = [
      ...concept.figures.map((row) => ({ ...row, label: t(`figure.${row.key}`, {}, row.label) })),
      ...concept.probes.map((probe) => ({ ...probe, label: t("probes", { name: probe.name }) })),
    ].filter(({ before, after }) => known(before) || known(after));
    if (!rows.length) return null;
    return h(
      "div",
      { className: "scroll figures", tabIndex: 0 },
      h(
        "table",
        {},
        h(
          "tr",
          {},
          heading(t("figures.what"), false),
          heading(t("compare.before")),
          heading(t("compare.after")),
          heading(t("figures.range")),
        ),
        ...rows.map((row) =>
          h(
            "tr",
            {},
            cell(row.label, false),
            cell(fixed(row.before)),
            cell(fixed(row.after)),
            cell(between(row)),
          ),
        ),
      ),
    );
  }

  missing() {
    const { missing, scorer } = this.report;
    if (!missing.length) return null;
    const box = h("div", {}, ...missing.map((text) => h("p", { className: "quiet", textContent: text })));
    if (!scorer) box.append(downloadButton());
    return box;
  }

  files() {
    const { files } = this.report;
    if (!files.length) return null;
    return h(
      "div",
      { className: "row" },
      ...files.map(({ label, ...file }) => {
        const link = h("a", { href: viewUrl(file), download: file.filename, textContent: t("report", { label }) });
        link.style.color = "inherit";
        return link;
      }),
    );
  }
}

export function addComparePanel(node) {
  panels.set(node, new ComparePanel(node));
}

export function showReport(node, report) {
  panels.get(node)?.show(report);
}
