// Access to ComfyUI's front end; no other file touches it. Differences between front ends are handled
// by feature tests: if a feature is missing, the page loses only that feature, and logs it once in the
// console.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const reported = new Set();

function reportMissing(feature) {
  if (reported.has(feature)) return;
  reported.add(feature);
  console.warn(`Unlearn: this version of ComfyUI's page does not support: ${feature}.`);
}

// The value, or null if the front end lacks it.
function supported(value, feature) {
  if (value === undefined || value === null) reportMissing(feature);
  return value ?? null;
}

// Server ------------------------------------------------------------------------------------------

export const fetchApi = (path, options) => api.fetchApi(path, options);

// The address of a file that the server has named.
export const viewUrl = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);

// Returns a function that stops listening.
export function onEvent(name, listener) {
  const listen = ({ detail }) => listener(detail);
  api.addEventListener(name, listen);
  return () => api.removeEventListener(name, listen);
}

// The server's id for this tab.
export const clientId = () => api.clientId ?? "";

export const queue = () => app.queuePrompt(0);

// Extension ---------------------------------------------------------------------------------------

export const register = (extension) => app.registerExtension(extension);

export const addToHead = (element) => document.head.append(element);

export function language() {
  const locale = app.ui?.settings?.getSettingValue?.("Comfy.Locale");
  return supported(locale, "reading the chosen language") ?? "en";
}

export function showWarning(summary, detail) {
  const toast = supported(app.extensionManager?.toast, "short messages");
  toast?.add({ severity: "warn", summary, detail });
}

// Graph -------------------------------------------------------------------------------------------

const rootGraph = () => app.rootGraph ?? app.graph;

export const graphId = () => rootGraph()?.id;

// The content as text, independent of the order of its keys.
function contentOf(data) {
  const isObject = (value) => value && typeof value === "object" && !Array.isArray(value);
  const sort = (_, value) => (isObject(value) ? Object.fromEntries(Object.entries(value).sort()) : value);
  return JSON.stringify(data, sort);
}

// Deletes the id of a graph that is about to be opened if the graph is a copy of an open one. The front
// end then assigns a new id. Otherwise both would share their runs, which are found by the id of their
// graph. `data` is no copy if an open tab has exactly the same content: then that tab is being shown
// again. It is no copy either if the present graph still has nodes: then this is an undo.
export function dropSharedId(data) {
  const tabs = app.extensionManager?.workflow?.openWorkflows ?? [];
  const states = tabs.map(({ activeState }) => activeState).filter((state) => state?.id === data.id);
  if (states.length === 0 || someNode(() => true)) return;
  const content = contentOf(data);
  if (!states.some((state) => contentOf(state) === content)) delete data.id;
}

export const typeOf = (node) => node?.comfyClass ?? "";

// Whether a node of the graph, or of a subgraph in it, passes the test.
export function someNode(test, graph = rootGraph()) {
  const nodes = supported(graph?.nodes ?? graph?._nodes, "looking through the graph") ?? [];
  return nodes.some((node) => test(node) || (node.subgraph && someNode(test, node.subgraph)));
}

// An execution id is a node's id after those of the subgraphs around it: "7" or "3:7".
export function findNode(executionId) {
  let graph = rootGraph();
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

const slotOf = (node, name) => node.inputs?.findIndex((input) => input.name === name) ?? -1;

// Whether the widget's input is linked.
export function isLinked(node, name) {
  const slot = node.inputs?.findIndex(({ widget }) => widget?.name === name) ?? -1;
  return slot >= 0 && node.isInputConnected(slot);
}

export const hasLink = (node, name) => node.isInputConnected(slotOf(node, name));

// A link inside a subgraph that ends at its border has one of these numbers instead of a node id.
const isInputBorder = (id) => Number(id) === -10; // a string in newer front ends
const isOutputBorder = (id) => Number(id) === -20;

const linkOf = (graph, id) => graph.getLink(id) ?? null;

// The nodes that represent a subgraph: several if it is used several times.
function instancesOf(subgraph) {
  const instances = new Set();
  someNode((node) => {
    if (node.subgraph === subgraph) instances.add(node);
    return false; // look at every node
  });
  return [...instances];
}

// The node that feeds an input, followed through reroutes and the borders of subgraphs. Null if there
// is none, or if a subgraph is used several times with different nodes.
export const sourceOf = (node, name) => sourceOfSlot(node, slotOf(node, name));

const sourceOfSlot = (node, slot) => originOf(node.graph, linkOf(node.graph, node.inputs[slot]?.link));

// The widget with the value of an input: the node's own, or the one of an enclosing subgraph that
// replaces it. Null if the value comes from a link.
export function valueWidget(node, name) {
  const input = node.inputs?.find(({ widget }) => widget?.name === name);
  const link = linkOf(node.graph, input?.link);
  if (!link) return widgetOf(node, name);
  const instances = isInputBorder(link.origin_id) ? instancesOf(node.graph) : [];
  const outside = instances[0]?.inputs[link.origin_slot]?.widget?.name;
  return instances.length === 1 && outside ? (valueWidget(instances[0], outside) ?? null) : null;
}

function originOf(graph, link) {
  if (!link) return null;
  if (isInputBorder(link.origin_id)) {
    const outside = instancesOf(graph).map((instance) => sourceOfSlot(instance, link.origin_slot));
    return new Set(outside).size === 1 ? outside[0] : null;
  }
  const source = graph.getNodeById(link.origin_id);
  if (source?.type === "Reroute") return sourceOfSlot(source, 0);
  const inside = source?.subgraph;
  if (inside) return originOf(inside, linkOf(inside, inside.outputs[link.origin_slot]?.linkIds[0]));
  return source ?? null;
}

// The nodes that a node's outputs feed, also across the borders of subgraphs.
export const targetsOf = (node) =>
  (node.outputs ?? []).flatMap(({ links }) => targetsOfLinks(node.graph, links));

function targetsOfLinks(graph, ids) {
  return (ids ?? []).flatMap((id) => {
    const link = linkOf(graph, id);
    if (link && isOutputBorder(link.target_id))
      return instancesOf(graph).flatMap((instance) =>
        targetsOfLinks(instance.graph, instance.outputs[link.target_slot]?.links),
      );
    const target = link && graph.getNodeById(link.target_id);
    const inside = target?.subgraph;
    if (inside) return targetsOfLinks(inside, inside.inputs[link.target_slot]?.linkIds);
    return target ? [target] : [];
  });
}

export const fitHeight = (node) => node.setSize([node.size[0], node.computeSize()[1]]);

export const redraw = (node) => node.setDirtyCanvas(true, true);

// Grows or shrinks a node by the height that `change` adds or removes.
export function resizeBy(node, change) {
  const [width, height] = node.size;
  const before = node.computeSize()[1];
  change();
  node.setSize([width, height + node.computeSize()[1] - before]);
  redraw(node);
}

// `listener` gets the node's data from the file or the clipboard.
export function afterConfigure(node, listener) {
  const before = node.onConfigure;
  node.onConfigure = function (...data) {
    before?.apply(this, data);
    listener(data[0]);
  };
}

export const savedWithNode = (node, name) => node.properties[name];

export function saveWithNode(node, name, value) {
  node.properties[name] = value;
}

// The options of a node's input, as sent by the server.
export function inputOptions(node, name) {
  const inputs = supported(node.constructor.nodeData?.input, "presets that fill the fields");
  return inputs?.required?.[name]?.[1] ?? inputs?.optional?.[name]?.[1] ?? {};
}

// Widgets -----------------------------------------------------------------------------------------

export const widgetsOf = (node) => node?.widgets ?? [];

export const savedWidgets = (node) => widgetsOf(node).filter((widget) => widget.serialize !== false);

export const widgetOf = (node, name) => widgetsOf(node).find((widget) => widget.name === name);

// Sets a value and calls the widget's callback, as if the user had entered it.
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget || widget.value === value) return;
  widget.value = value;
  widget.callback?.(value);
  redraw(node);
}

// `listener` gets the new value, after the widget's own callback.
export function onChange(widget, listener) {
  const before = widget.callback;
  widget.callback = function (value, ...rest) {
    const result = before?.call(this, value, ...rest);
    listener(value);
    return result;
  };
}

export const isAdvanced = (widget) => Boolean(widget.options?.advanced);

const NO_SIZE = () => [0, -4]; // the canvas adds 4 pixels even for hidden widgets
const sizes = new WeakMap(); // hidden widget -> its own computeSize, if it has one

// Shows or hides a widget, in the classic look only.
export function showOnCanvas(widget, shown) {
  if (widget.visibility?.surfaces) widget.visibility.surfaces.canvas = shown ? "shown" : "never";
  else setHidden(widget, !shown);
}

// For front ends before 1.55: there `hidden` works only on the canvas, and leaves a gap.
function setHidden(widget, hidden) {
  if (Boolean(widget.hidden) === hidden) return;
  widget.hidden = hidden;
  if (hidden) {
    if (Object.hasOwn(widget, "computeSize")) sizes.set(widget, widget.computeSize);
    widget.computeSize = NO_SIZE;
  } else if (sizes.has(widget)) widget.computeSize = sizes.get(widget);
  else delete widget.computeSize;
}

// Hides a widget permanently, in every look.
export function hideEverywhere(widget) {
  setHidden(widget, true);
  widget.options = { ...widget.options, hidden: true };
}

// Nodes 2.0 folds advanced inputs by itself; this sets whether it may fold this one.
export function letFold(node, widget, foldable) {
  if (widget.visibility?.surfaces) {
    widget.visibility.surfaces.vueNode = foldable ? "advanced" : "shown";
  } else if (isAdvanced(widget) !== foldable) {
    widget.options.advanced = foldable;
    node.widgets.splice(0, node.widgets.length, ...node.widgets); // triggers an update
  }
}

// Adds a button below the inputs, in the classic look only.
export function addCanvasButton(node, name, onPress) {
  const options = { canvasOnly: true, serialize: false };
  const button = node.addWidget("button", name, null, onPress, options);
  button.serialize = false;
  return button;
}

// Keeps key presses inside this element from triggering the graph's shortcuts (delete, copy, …).
export function keepKeys(element) {
  element.addEventListener("keydown", (event) => {
    const shortcut = event.ctrlKey || event.metaKey; // of the page, such as Ctrl+Enter for Run
    if (!shortcut || event.target.matches("input, textarea")) event.stopPropagation();
  });
}

// Adds a panel to a node; it belongs neither to the prompt nor to the saved workflow.
// `removed` is called when the node is deleted.
export function addPanel(node, name, element, { min, max, removed }) {
  element.classList.add("unlearn");
  element.style.setProperty("--min", `${min}px`);
  keepKeys(element);
  const widget = node.addDOMWidget(name, "panel", element, {
    serialize: false,
    getMinHeight: () => min,
    ...(max && { getMaxHeight: () => max }),
  });
  widget.serialize = false;
  const remove = widget.onRemove; // the page's own, which removes the element
  widget.onRemove = function () {
    removed?.();
    remove?.call(this);
  };
}

export const panelsOf = (node) =>
  widgetsOf(node)
    .map(({ element }) => element)
    .filter((element) => element?.matches?.(".unlearn"));

// Queueing ----------------------------------------------------------------------------------------

// Calls `listener` each time the graph has been queued and at least one node will run.
export function afterQueued(node, listener) {
  const [widget] = widgetsOf(node);
  if (!widget) return;
  let supports = false;
  const before = widget.afterQueued;
  widget.afterQueued = function (...options) {
    supports = true;
    before?.apply(this, options);
    listener();
  };
  const stop = onEvent("promptQueued", () => {
    const inGraph = someNode((one) => one === node);
    if (inGraph && !supports && !app.lastNodeErrors) reportMissing("messages about skipped nodes");
    stop();
  });
}

// The server's errors by node: [execution id, errors].
export function nodeErrors() {
  if (!("lastNodeErrors" in app)) reportMissing("messages about skipped nodes");
  return Object.entries(app.lastNodeErrors ?? {}).map(([id, { errors }]) => [id, errors]);
}

// Looks -------------------------------------------------------------------------------------------

// Gives slots and links in the classic look the colours that the style sheet sets for Nodes 2.0. The
// user's own palette takes precedence.
export function colorLinks(types) {
  const slots = app.canvas?.default_connection_color_byType;
  const links = app.canvas?.constructor?.link_type_colors;
  if (!supported(slots && links, "colours of links")) return;
  const style = getComputedStyle(document.documentElement);
  for (const type of types) {
    const color = style.getPropertyValue(`--color-datatype-${type}`).trim();
    slots[type] ||= color;
    links[type] ||= color;
  }
}

// Front ends mark their theme by different classes and styles of these two elements.
export function onThemeChange(listener) {
  const observer = new MutationObserver(listener);
  for (const element of [document.documentElement, document.body])
    observer.observe(element, { attributes: true, attributeFilter: ["class", "style"] });
}
