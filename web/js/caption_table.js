// The table on Own Pictures: what each picture shows, to read and to edit after a run. What is
// edited goes into the node's own field, as a line with the picture's name, which counts most.

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
    this.shown = PAGE;
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
    this.tellEdited();
    const headings = [t("captions.picture"), t("captions.caption")];
    const showMore = () => {
      this.shown += PAGE;
      this.draw();
    };
    this.place.replaceChildren(
      this.rows.length
        ? table(headings, this.rows, (row) => this.row(row), this.shown, showMore)
        : h("div", { className: "empty", textContent: t("captions.empty") }),
    );
  }

  row(row) {
    const [name] = row;
    const area = field(t("captions.of", { name }), row[1], () => {
      const written = area.value.trim().replace(/\s+/g, " "); // a caption is one line of the field
      area.value = written || row[1];
      if (!written || written === row[1]) return;
      row[1] = written;
      area.className = "changed";
      const others = this.lines().filter((line) => !line.startsWith(lineOf(name)));
      this.write([...others, lineOf(name, written)]);
    });
    return h("tr", {}, h("td", { textContent: name }), h("td", {}, area));
  }

  lines() {
    return (widgetOf(this.node, "captions")?.value ?? "").split("\n").filter((line) => line.trim());
  }

  // The lines that this table has written.
  edited() {
    return this.lines().filter((line) => this.rows.some(([name]) => line.startsWith(lineOf(name))));
  }

  write(lines) {
    setWidget(this.node, "captions", lines.join("\n"));
    this.tellEdited();
  }

  tellEdited() {
    this.head.hidden = this.edited().length === 0;
  }

  startOver() {
    const edited = this.edited();
    this.write(this.lines().filter((line) => !edited.includes(line)));
    this.show([]); // a run knows what the files say
  }
}

export function addCaptionTable(node) {
  panels.set(node, new CaptionTable(node));
}

export function showCaptions(node, rows) {
  panels.get(node)?.show(rows);
}
