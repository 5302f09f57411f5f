// A node's own words on the node: what was loaded, where it was saved.

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
