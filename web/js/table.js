// Tables whose rows a person writes in.

import { h } from "./dom.js";
import { t } from "./words.js";

export const PAGE = 100; // rows shown at once

// The row of each item below the headings, as many as are to be shown, and a button for further ones.
export function table(headings, items, rowOf, shown, showMore) {
  const left = items.length - shown;
  const more = h("button", { textContent: t("prompts.more", { n: Math.min(PAGE, left) }), onclick: showMore });
  const head = h("tr", {}, ...headings.map((textContent) => h("th", { textContent, scope: "col" })));
  return h("div", {}, h("table", {}, head, ...items.slice(0, shown).map(rowOf)), left > 0 ? more : null);
}

// A field of a row. `changed` is told when somebody has written in it and gone on.
export function field(label, value, changed) {
  const area = h("textarea", { value, rows: 1, spellcheck: false });
  area.setAttribute("aria-label", label);
  area.addEventListener("change", () => changed(area));
  return area;
}
