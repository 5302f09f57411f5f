// Marks results of an earlier run while a new run is in progress, so that nobody mistakes old figures
// for those of the new model.

import { panelsOf, targetsOf } from "./comfy.js";
import { t } from "./words.js";

const withResult = new WeakSet(); // nodes that show a result

export const hasResult = (node) => withResult.has(node);

export function markNew(node) {
  withResult.add(node);
  for (const panel of panelsOf(node)) delete panel.dataset.earlier;
}

// Marks all results that were computed from this node's output.
export function markEarlier(node) {
  for (const target of targetsOf(node)) {
    if (hasResult(target))
      for (const panel of panelsOf(target)) panel.dataset.earlier = t("earlier");
    markEarlier(target);
  }
}
