// Choosing a recipe fills the inputs that belong to it. A line of text names the inputs that were
// changed since.

import { afterConfigure, inputOptions, onChange, setWidget, widgetOf } from "./comfy.js";
import { h, setText } from "./dom.js";
import { t } from "./words.js";

// Returns the element of this line.
export function followRecipe(node) {
  const line = h("div", { className: "quiet recipe", hidden: true });
  const chooser = widgetOf(node, "recipe");
  const { recipes } = inputOptions(node, "recipe");
  if (!chooser || !recipes) return line;

  const inputs = new Set(Object.values(recipes).flatMap(Object.keys));
  let filling = false;

  function draw() {
    if (filling) return;
    const values = recipes[chooser.value] ?? {}; // none: "as saved"
    const changed = Object.keys(values).filter((name) => widgetOf(node, name)?.value !== values[name]);
    const label = (name) => widgetOf(node, name)?.label ?? name;
    line.hidden = !changed.length;
    setText(line, t("recipe.changed", { recipe: chooser.value, names: changed.map(label).join(", ") }));
  }

  onChange(chooser, (recipe) => {
    filling = true;
    for (const [name, value] of Object.entries(recipes[recipe] ?? {})) setWidget(node, name, value);
    filling = false;
    draw();
  });
  for (const name of inputs) {
    const widget = widgetOf(node, name);
    if (widget) onChange(widget, draw);
  }
  afterConfigure(node, draw);
  return line;
}
