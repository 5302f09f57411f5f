// Rarely needed inputs, folded away in ComfyUI's classic look: its own way to hide them is never
// told which they are, and leaves their room empty. Nodes 2.0 looks after them itself, where it can.

import { hideWidget } from "./dom.js";
import { t } from "./words.js";

// Before anything else is added to the node: the button stands below the inputs.
export function foldAdvanced(node) {
  const rare = (node.widgets ?? []).filter(({ options }) => options?.advanced);
  if (!rare.length) return;
  const usual = new Map(rare.map((widget) => [widget, widget.value]));
  const linked = ({ name }) =>
    node.inputs?.some(({ widget, link }) => widget?.name === name && link != null);
  let folded = rare;
  let open = false;

  const button = node.addWidget("button", "unlearn more", null, turn, {
    canvasOnly: true,
    serialize: false,
  });
  button.serialize = false;

  function draw() {
    for (const widget of rare) {
      hideWidget(widget, Boolean(widget.options.hidden) || (folded.includes(widget) && !open));
    }
    const n = folded.filter(({ options }) => !options.hidden).length;
    hideWidget(button, n === 0);
    button.label = t(open ? "more.hide" : "more.show", { n });
  }

  // The node grows by what appears, and shrinks back to the height it had.
  function resize(change) {
    const [width, height] = node.size;
    const before = node.computeSize()[1];
    change();
    draw();
    node.setSize([width, height + node.computeSize()[1] - before]);
    node.setDirtyCanvas(true, true);
  }

  function turn() {
    resize(() => {
      open = !open;
    });
  }

  // What differs from the defaults is always shown: nobody should run what they cannot see.
  function fold() {
    folded = rare.filter((widget) => widget.value === usual.get(widget) && !linked(widget));
  }

  const configure = node.onConfigure;
  node.onConfigure = function (...given) {
    configure?.apply(this, given);
    fold();
    draw();
  };
  for (const widget of rare) {
    const { callback } = widget;
    widget.callback = function (...given) {
      const answer = callback?.apply(this, given);
      resize(fold);
      return answer;
    };
  }
  draw();
}
