// The panel on Evaluate Alignment: pictures before and after under a slider, by group, the figures
// beside them in plain words, and the report's files.

import { downloadButton } from "./clip_download.js";
import { addPanel, h } from "./dom.js";
import { viewOf } from "./server.js";
import { figure, fixed, t } from "./words.js";

const NAME = "unlearn compare";
const SMALL = 200; // px; smaller pictures are shown with their pixels
const panels = new WeakMap(); // node -> ComparePanel

// Two pictures over each other, and the edge between them.
function slider({ prompt, before, after }) {
  const first = h("img", { alt: `${t("compare.before")}: ${prompt}`, src: viewOf(before) });
  const second = h("img", { className: "after", alt: `${t("compare.after")}: ${prompt}`, src: viewOf(after) });
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

function factsOf(pair, asked) {
  const facts = [];
  if (asked && known(pair.shows_before)) facts.push(`${t("compare.before")}: ${verdict(pair.shows_before)}`);
  if (asked && known(pair.shows_after)) facts.push(`${t("compare.after")}: ${verdict(pair.shows_after)}`);
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
    Object.assign(this, { report, concept: 0, group: 0, pair: 0 });
    this.draw();
  }

  get groups() {
    return this.report.concepts[this.concept].groups.filter(({ pairs }) => pairs.length);
  }

  // Whether these pictures were asked to show the concept.
  get asked() {
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
    this.tabs = h("div", { className: "tabs", role: "tablist" });
    this.stage = h("div", { className: "stage" });
    this.thumbs = h("div", { className: "thumbs" });
    this.shown = h("div", { className: "quiet" });
    this.element.replaceChildren(
      ...[
        this.conceptChooser(),
        h("div", {}, ...concept.summary.map((sentence) => h("p", { textContent: sentence }))),
        this.tabs,
        h("div", { className: "compare" }, this.stage, this.thumbs),
        this.shown,
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
  }

  drawGroup() {
    this.tabs.replaceChildren(
      ...this.groups.map(({ key, total }, i) => {
        const tab = h("button", {
          role: "tab",
          textContent: `${t(`group.${key}`)} (${total})`,
          onclick: () => {
            Object.assign(this, { group: i, pair: 0 });
            this.drawGroup();
            this.tabs.children[i].focus();
          },
        });
        tab.setAttribute("aria-selected", i === this.group);
        return tab;
      }),
    );
    const group = this.groups[this.group];
    this.shown.textContent = group
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
          h("img", { src: viewOf(pair.after), alt: pair.prompt, loading: "lazy" }),
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
        h("span", { className: "quiet grow", textContent: factsOf(pair, this.asked) }),
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
      caption.textContent = `${this.pair + 1}/${count} · ${pair.prompt} · ${factsOf(pair, this.asked)}`;
    };
    this.dialog = h(
      "dialog",
      { className: "unlearn-large", onclose: () => this.closeLarge() },
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
    // ComfyUI's own keys must not act on the graph behind it.
    this.dialog.addEventListener("keydown", (event) => event.stopPropagation());
    document.body.append(this.dialog);
    this.dialog.showModal();
    move(0);
    place.querySelector("input").focus();
  }

  closeLarge() {
    this.dialog.remove();
    this.stage.querySelector("button")?.focus(); // the one that opened it was drawn anew meanwhile
  }

  figures(concept) {
    const cell = (tag, text, number = true) =>
      h(tag, { textContent: text, className: number ? "number" : "" });
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
          cell("th", t("figures.what"), false),
          cell("th", t("compare.before")),
          cell("th", t("compare.after")),
          cell("th", t("figures.range")),
        ),
        ...rows.map((row) =>
          h(
            "tr",
            {},
            cell("td", row.label, false),
            cell("td", fixed(row.before)),
            cell("td", fixed(row.after)),
            cell("td", between(row)),
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
        const link = h("a", { href: viewOf(file), download: file.filename, textContent: t("report", { label }) });
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
