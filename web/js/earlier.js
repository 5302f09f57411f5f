// Results of an earlier run, marked while a newer one is made: nobody should take its figures for
// those of the new model.

import { fedBy, panelsOf } from "./comfy.js";
import { t } from "./words.js";

const shown = new WeakSet(); // nodes that show a result

export const hasShown = (node) => shown.has(node);

export function markNew(node) {
  shown.add(node);
  for (const panel of panelsOf(node)) delete panel.dataset.earlier;
}

// Whatever was made from this node's result.
export function markEarlier(node) {
  for (const fed of fedBy(node)) {
    if (shown.has(fed)) for (const panel of panelsOf(fed)) panel.dataset.earlier = t("earlier");
    markEarlier(fed);
  }
}
