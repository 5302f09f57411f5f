// Tabs, for pointer and arrow keys, and the panel whose content they choose.

import { h } from "./dom.js";

let count = 0;

export class Tabs {
  // `panel`: the element whose content the tabs choose. `onChoose` is called with a tab's index.
  constructor(panel, onChoose) {
    count += 1;
    this.id = `unlearn-tabs-${count}`;
    this.panel = panel;
    this.onChoose = onChoose;
    this.element = h("div", { className: "tabs", role: "tablist" });
    this.element.addEventListener("keydown", (event) => this.move(event));
    panel.id = `${this.id}-panel`;
    panel.setAttribute("role", "tabpanel");
  }

  show(labels, selected) {
    const focused = this.element.contains(document.activeElement);
    this.element.replaceChildren(
      ...labels.map((textContent, i) => {
        const tab = h("button", {
          id: `${this.id}-${i}`,
          role: "tab",
          textContent,
          tabIndex: i === selected ? 0 : -1,
          onclick: () => this.onChoose(i),
        });
        tab.setAttribute("aria-selected", i === selected);
        tab.setAttribute("aria-controls", this.panel.id);
        return tab;
      }),
    );
    if (labels.length) this.panel.setAttribute("aria-labelledby", `${this.id}-${selected}`);
    if (focused) this.element.children[selected]?.focus();
  }

  move(event) {
    const tabs = [...this.element.children];
    const at = tabs.indexOf(event.target);
    const targets = {
      ArrowLeft: (at + tabs.length - 1) % tabs.length,
      ArrowRight: (at + 1) % tabs.length,
      Home: 0,
      End: tabs.length - 1,
    };
    if (at < 0 || !(event.key in targets)) return;
    event.preventDefault();
    this.element.children[targets[event.key]].focus();
    this.onChoose(targets[event.key]);
  }
}
