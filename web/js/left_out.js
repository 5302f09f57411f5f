// ComfyUI skips a node with an invalid input and marks it only with a red frame. The other nodes run,
// so the user might miss that the model will not be saved. This shows a message.

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
