// A panel with a node's text output: the loaded model, the path of the saved one.

import { addPanel } from "./comfy.js";
import { h } from "./dom.js";

const texts = new WeakMap(); // node -> element

export function addTextPanel(node, { placeholder, min, max }) {
  const text = h("pre", { className: "scroll", textContent: placeholder, tabIndex: 0 });
  texts.set(node, text);
  addPanel(node, "unlearn text", h("div", {}, text), { min, max });
}

export function showText(node, text) {
  const element = texts.get(node);
  if (element) element.textContent = text;
}
