// Advanced inputs, folded away. In the classic look a button opens them; Nodes 2.0 has its own. In
// both, an input whose value differs from its default stays in sight: nobody should run what they
// cannot see.

import {
  addCanvasButton, afterConfigure, isAdvanced, isLinked, letFold, onChange, resizeBy, showOnCanvas, widgetsOf,
} from "./comfy.js";
import { t } from "./words.js";

// Before anything else is added to the node: the button stands right below the inputs.
// `hidden`: names of inputs that nobody is ever to see.
export function foldAdvanced(node, hidden = []) {
  const advanced = widgetsOf(node).filter((widget) => isAdvanced(widget) && !hidden.includes(widget.name));
  if (!advanced.length) return;
  const defaults = new Map(advanced.map((widget) => [widget, widget.value]));
  let foldable = advanced;
  let open = false;

  const button = addCanvasButton(node, "unlearn more", () =>
    resizeBy(node, () => {
      open = !open;
      fold(); // something may have been linked since
    }),
  );

  function draw() {
    for (const widget of advanced) {
      const folds = foldable.includes(widget);
      showOnCanvas(widget, open || !folds);
      letFold(node, widget, folds);
    }
    showOnCanvas(button, foldable.length > 0);
    button.label = t(open ? "more.hide" : "more.show", { n: foldable.length });
  }

  function fold() {
    foldable = advanced.filter(
      (widget) => widget.value === defaults.get(widget) && !isLinked(node, widget.name),
    );
    draw();
  }

  afterConfigure(node, fold);
  for (const widget of advanced) onChange(widget, () => resizeBy(node, fold));
  draw();
}
