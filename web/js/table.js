// Tables with editable rows.

import { h } from "./dom.js";
import { t } from "./words.js";

export const PAGE = 100; // rows shown at once

// A table with headings, rows for the first `limit` items, and a button to show more.
export function table(headings, items, rowOf, limit, showMore) {
  const notShown = items.length - limit;
  const more = h("button", { textContent: t("prompts.more", { n: Math.min(PAGE, notShown) }), onclick: showMore });
  const head = h("tr", {}, ...headings.map((textContent) => h("th", { textContent, scope: "col" })));
  return h("div", {}, h("table", {}, head, ...items.slice(0, limit).map(rowOf)), notShown > 0 ? more : null);
}

// A text field of a row. `onChange` is called when the user leaves the field after an edit.
export function field(label, value, onChange) {
  const area = h("textarea", { value, rows: 1, spellcheck: false });
  area.setAttribute("aria-label", label);
  area.addEventListener("change", () => onChange(area));
  return area;
}
