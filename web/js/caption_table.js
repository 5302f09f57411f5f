// The table on Own Pictures, to read and edit the captions after a run. Edits go into the node's
// captions input as lines with the picture's name, which take precedence over all other captions.

import { addPanel, saveWithNode, savedWithNode, setWidget, widgetOf } from "./comfy.js";
import { h } from "./dom.js";
import { PAGE, field, table } from "./table.js";
import { t } from "./words.js";

// Property of the node: picture's name -> { line, replaced }, the line that the table wrote and the
// lines that it replaced. Saved workflows contain it, so these names must stay.
const EDITS = "unlearn captions";
const panels = new WeakMap(); // node -> CaptionTable

const lineOf = (name, caption = "") => `${name}: ${caption}`;

class CaptionTable {
  constructor(node) {
    this.node = node;
    this.rows = []; // [picture's name, caption]
    this.limit = PAGE; // rows to show
    this.note = h("span", { className: "quiet", textContent: t("captions.edited") });
    this.startOverButton = h("button", { textContent: t("prompts.over"), onclick: () => this.startOver() });
    this.head = h("div", { className: "row" }, this.note, this.startOverButton);
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
      this.edit(name, lineOf(name, caption));
    });
    return h("tr", {}, h("td", { textContent: name }), h("td", {}, area));
  }

  lines() {
    return (widgetOf(this.node, "captions")?.value ?? "").split("\n").filter((line) => line.trim());
  }

  // The table's edits whose line is still in the input. A workflow may contain any value here.
  edits() {
    const lines = this.lines();
    const valid = ([, edit]) => lines.includes(edit?.line) && Array.isArray(edit.replaced);
    return Object.fromEntries(Object.entries(savedWithNode(this.node, EDITS) ?? {}).filter(valid));
  }

  edit(name, line) {
    const edits = this.edits();
    const last = edits[name] ?? { replaced: [] };
    const lines = this.lines().filter((other) => other.startsWith(lineOf(name)));
    const others = this.lines().filter((other) => !lines.includes(other));
    const originals = [...last.replaced, ...lines].filter((other) => other !== last.line);
    saveWithNode(this.node, EDITS, { ...edits, [name]: { line, replaced: originals } });
    this.write([...others, line]);
  }

  write(lines) {
    setWidget(this.node, "captions", lines.join("\n"));
    this.showEdited();
  }

  showEdited() {
    this.head.hidden = Object.keys(this.edits()).length === 0;
  }

  startOver() {
    const originals = new Map(Object.values(this.edits()).map((edit) => [edit.line, edit.replaced]));
    saveWithNode(this.node, EDITS, {});
    this.write(this.lines().flatMap((line) => originals.get(line) ?? [line]));
    this.show([]); // only a run can read the caption files
  }
}

export function addCaptionTable(node) {
  panels.set(node, new CaptionTable(node));
}

export function showCaptions(node, rows) {
  panels.get(node)?.show(rows);
}
