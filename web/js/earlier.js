// Results of an earlier run, marked while a newer one is made: nobody should take its figures for
// those of the new model.

import { t } from "./words.js";

const shown = new WeakSet(); // nodes that show a result

const panelsOf = (node) =>
  (node.widgets ?? []).map(({ element }) => element).filter((element) => element?.matches?.(".unlearn"));

export function markNew(node) {
  shown.add(node);
  for (const panel of panelsOf(node)) delete panel.dataset.earlier;
}

// Whatever has been made of this node's result.
export function markEarlier(node) {
  for (const slot of node.outputs?.keys() ?? [])
    for (const fed of node.getOutputNodes(slot) ?? []) {
      if (shown.has(fed)) for (const panel of panelsOf(fed)) panel.dataset.earlier = t("earlier");
      markEarlier(fed);
    }
}
