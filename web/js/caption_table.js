// The table on Own Pictures: what each picture shows, to read and to edit after a run. What is
// edited goes into the node's own field, a line for each picture, which counts more than the files.

import { addPanel, h, setWidget } from "./dom.js";
import { t } from "./words.js";

const PAGE = 100; // rows shown at once
const panels = new WeakMap(); // node -> CaptionTable

class CaptionTable {
  constructor(node) {
    this.node = node;
    this.rows = []; // [picture's name, caption]
    this.shown = PAGE;
    this.place = h("div", { className: "scroll prompts captions" });
    addPanel(node, "unlearn captions", h("div", {}, this.place), { min: 140 });
    this.draw();
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const left = this.rows.length - this.shown;
    const more = h("button", {
      textContent: t("prompts.more", { n: Math.min(PAGE, left) }),
      onclick: () => {
        this.shown += PAGE;
        this.draw();
      },
    });
    const table = h(
      "table",
      {},
      h(
        "tr",
        {},
        h("th", { textContent: t("captions.picture") }),
        h("th", { textContent: t("captions.caption") }),
      ),
      ...this.rows.slice(0, this.shown).map((row) => this.row(row)),
    );
    const empty = h("div", { className: "empty", textContent: t("captions.empty") });
    this.place.replaceChildren(...(this.rows.length ? [table] : [empty]), left > 0 ? more : "");
  }

  row(row) {
    const [name, caption] = row;
    const area = h("textarea", { value: caption, rows: 1, spellcheck: false });
    area.setAttribute("aria-label", t("captions.of", { name }));
    area.addEventListener("change", () => {
      const written = area.value.trim().replace(/\s+/g, " "); // a caption is one line of the field
      area.value = written || row[1];
      if (!written || written === row[1]) return;
      row[1] = written;
      area.className = "changed";
      setWidget(this.node, "captions", this.rows.map(([, one]) => one).join("\n"));
    });
    // The graph's own keys (delete, copy, …) must not act while one writes.
    area.addEventListener("keydown", (event) => event.stopPropagation());
    return h("tr", {}, h("td", { textContent: name }), h("td", {}, area));
  }
}

export function addCaptionTable(node) {
  panels.set(node, new CaptionTable(node));
}

export function showCaptions(node, rows) {
  panels.get(node)?.show(rows);
}
