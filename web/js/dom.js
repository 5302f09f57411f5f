// Elements, built with text only: what a file or a stranger's prompt says is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !(element instanceof SVGElement)) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// An HTML element with properties (or attributes, or listeners as "onclick") and children.
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Adds a panel to a node: neither part of the prompt nor of the saved workflow.
// `removed` is called when the node is deleted.
export function addPanel(node, name, element, { min, max, removed }) {
  element.classList.add("unlearn");
  element.style.setProperty("--min", `${min}px`);
  const widget = node.addDOMWidget(name, "panel", element, {
    serialize: false,
    getMinHeight: () => min,
    ...(max && { getMaxHeight: () => max }),
  });
  widget.serialize = false;
  const takeAway = widget.onRemove; // the page's own, which takes the element out
  widget.onRemove = function () {
    removed?.();
    takeAway?.call(this);
  };
}

export const widgetOf = (node, name) => node?.widgets?.find((widget) => widget.name === name);

const NO_ROOM = () => [0, -4]; // the page adds 4, also for what it does not draw
const rooms = new WeakMap(); // hidden widget -> its own way to tell its size, if it has one

export function hideWidget(widget, hidden) {
  if (Boolean(widget.hidden) === hidden) return;
  widget.hidden = hidden;
  if (hidden) {
    if (Object.hasOwn(widget, "computeSize")) rooms.set(widget, widget.computeSize);
    widget.computeSize = NO_ROOM;
  } else if (rooms.has(widget)) widget.computeSize = rooms.get(widget);
  else delete widget.computeSize;
}

// As if the person had written it.
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget || widget.value === value) return;
  widget.value = value;
  widget.callback?.(value);
  node.setDirtyCanvas(true, true);
}
