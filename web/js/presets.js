// Choosing a preset writes its text into the fields beside it, to be edited.

import { setWidget, widgetOf } from "./dom.js";

export function followPreset(node) {
  const chooser = widgetOf(node, "preset");
  const presets = node.constructor.nodeData?.input?.required?.preset?.[1]?.presets;
  if (!chooser || !presets) return;
  const before = chooser.callback;
  chooser.callback = function (value, ...rest) {
    const result = before?.call(this, value, ...rest);
    const [templates, dimensions] = presets[value] ?? [];
    if (templates !== undefined) {
      setWidget(node, "templates", templates);
      setWidget(node, "dimensions", dimensions);
    }
    return result;
  };
}
