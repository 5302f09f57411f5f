// Choosing a preset writes its texts into the two fields, where they can be edited.

import { inputOptions, onChange, setWidget, widgetOf } from "./comfy.js";

export function followPreset(node) {
  const chooser = widgetOf(node, "preset");
  const { presets } = inputOptions(node, "preset");
  if (!chooser || !presets) return;
  onChange(chooser, (value) => {
    const [templates, dimensions] = presets[value] ?? [];
    if (templates === undefined) return;
    setWidget(node, "templates", templates);
    setWidget(node, "dimensions", dimensions);
  });
}
