// The table on Own Pictures, to read and edit the captions after a run. Edits go into the node's
// captions input as lines with the picture's name, which take precedence over all other captions.

import { addPanel, setWidget, widgetOf } from "./comfy.js";
import { h } from "./dom.js";
import { PAGE, field, table } from "./table.js";
import { t } from "./words.js";

const panels = new WeakMap(); // node -> CaptionTable

const lineOf = (name, caption = "") => `${name}: ${caption}`;

class CaptionTable {
  constructor(node) {
    this.node = node;
    this.rows = []; // [picture's name, caption]
    this.limit = PAGE; // rows to show
    this.note = h("span", { className: "quiet", textContent: t("captions.edited") });
    this.over = h("button", { textContent: t("prompts.over"), onclick: () => this.startOver() });
    this.head = h("div", { className: "row" }, this.note, this.over);
    this.place = h("div", { className: "scroll prompts captions" });
    addPanel(node, "unlearn captions", h("div", {}, this.head, this.place), { min: 140 });
    this.draw();
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    this.showEdited();
    const headings = [t("captions.picture"), t("captions.caption")];
    const showMore = () => {
      this.limit += PAGE;
      this.draw();
    };
    this.place.replaceChildren(
      this.rows.length
        ? table(headings, this.rows, (row) => this.row(row), this.limit, showMore)
        : h("div", { className: "empty", textContent: t("captions.empty") }),
    );
  }

  row(row) {
    const [name] = row;
    const area = field(t("captions.of", { name }), row[1], () => {
      const caption = area.value.trim().replace(/\s+/g, " "); // a caption is one line of the input
      area.value = caption || row[1];
      if (!caption || caption === row[1]) return;
      row[1] = caption;
      area.className = "changed";
      const others = this.lines().filter((line) => !line.startsWith(lineOf(name)));
      this.write([...others, lineOf(name, caption)]);
    });
    return h("tr", {}, h("td", { textContent: name }), h("td", {}, area));
  }

  lines() {
    return (widgetOf(this.node, "captions")?.value ?? "").split("\n").filter((line) => line.trim());
  }

  // The lines written by this table.
  edited() {
    return this.lines().filter((line) => this.rows.some(([name]) => line.startsWith(lineOf(name))));
  }

  write(lines) {
    setWidget(this.node, "captions", lines.join("\n"));
    this.showEdited();
  }

  showEdited() {
    this.head.hidden = this.edited().length === 0;
  }

  startOver() {
    const edited = this.edited();
    this.write(this.lines().filter((line) => !edited.includes(line)));
    this.show([]); // only a run can read the caption files
  }
}

export function addCaptionTable(node) {
  panels.set(node, new CaptionTable(node));
}

export function showCaptions(node, rows) {
  panels.get(node)?.show(rows);
}
