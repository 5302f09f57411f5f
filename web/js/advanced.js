// Folding of advanced inputs. In the classic look a button opens them; Nodes 2.0 has its own. In both,
// an input with a changed value stays visible, so that a run never depends on hidden values.

import {
  addCanvasButton, afterConfigure, isAdvanced, isLinked, letFold, onChange, resizeBy, showOnCanvas, widgetsOf,
} from "./comfy.js";
import { t } from "./words.js";

// Call this before adding anything else to the node, so that the button is right below the inputs.
// `hidden`: names of inputs that are never shown.
export function foldAdvanced(node, hidden = []) {
  const advanced = widgetsOf(node).filter((widget) => isAdvanced(widget) && !hidden.includes(widget.name));
  if (!advanced.length) return;
  const defaults = new Map(advanced.map((widget) => [widget, widget.value]));
  let foldable = advanced;
  let open = false;

  const button = addCanvasButton(node, "unlearn more", () =>
    resizeBy(node, () => {
      open = !open;
      fold(); // links may have changed
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
