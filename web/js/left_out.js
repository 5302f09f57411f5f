// ComfyUI leaves out a node with an input that is wrong, runs the others, and marks it by a red frame
// alone: a model that is not going to be saved should be spoken of.

import { app } from "../../../scripts/app.js";

import { t } from "./words.js";

// The server says it once for every input that it looked at, with the input's name before it.
function sentence({ details, message, extra_info: info }) {
  const before = `${info?.input_name} - `;
  return details?.startsWith(before) ? details.slice(before.length) : details || message;
}

// `find` gives the node of an execution id.
export function tellWhenLeftOut(node, find) {
  const [widget] = node.widgets ?? [];
  if (!widget) return;
  const usual = widget.afterQueued; // called only where something is going to run
  widget.afterQueued = function (...given) {
    usual?.apply(this, given);
    for (const [id, { errors }] of Object.entries(app.lastNodeErrors ?? {})) {
      if (find(id) !== node) continue;
      app.extensionManager.toast.add({
        severity: "warn",
        summary: t("left out", { node: node.title }),
        detail: [...new Set(errors.map(sentence))].join("\n"),
      });
    }
  };
}
