// ComfyUI skips a node with an invalid input, runs the others, and marks it only by a red frame. A
// model that will not be saved deserves a message.

import { afterQueued, findNode, nodeErrors, showWarning } from "./comfy.js";
import { t } from "./words.js";

// The server repeats the message for every input that it checked, after the input's name.
function sentence({ details, message, extra_info: info }) {
  const prefix = `${info?.input_name} - `;
  return details?.startsWith(prefix) ? details.slice(prefix.length) : details || message;
}

export function warnWhenSkipped(node) {
  afterQueued(node, () => {
    for (const [id, errors] of nodeErrors()) {
      if (findNode(id) !== node) continue;
      const sentences = [...new Set(errors.map(sentence))];
      showWarning(t("left out", { node: node.title }), sentences.join("\n"));
    }
  });
}
