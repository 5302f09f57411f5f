// What the nodes say, shown on the nodes: their texts, and each step of unlearning as it happens.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const WIDGET = "unlearn text";

// Node class -> what stands there before it has run, and the text's height in pixels.
const PANELS = {
  UnlearnLoadModel: { placeholder: "What was loaded appears here.", min: 94, max: 94 },
  UnlearnDiversifyPrompts: { placeholder: "The prompts appear here.", min: 120 },
  UnlearnOwnPictures: { placeholder: "The captions appear here.", min: 94 },
  UnlearnRestrictedGradient: { placeholder: "Each step appears here.", min: 56, max: 56 },
  UnlearnEvaluateAlignment: { placeholder: "The figures appear here.", min: 216, max: 216 },
  UnlearnSaveCheckpoint: { placeholder: "Where it was saved appears here.", min: 60 },
};

function addPanel(node, { placeholder, min, max }) {
  const element = document.createElement("pre");
  element.className = "unlearn-text";
  element.textContent = placeholder;
  Object.assign(element.style, {
    margin: "0",
    padding: "6px 8px",
    overflow: "auto",
    whiteSpace: "pre-wrap",
    font: "11px/1.35 monospace",
    color: "var(--input-text)",
    background: "var(--comfy-input-bg)",
    borderRadius: "4px",
    userSelect: "text",
  });
  const widget = node.addDOMWidget(WIDGET, "text", element, {
    serialize: false, // not in the prompt
    getMinHeight: () => min,
    ...(max && { getMaxHeight: () => max }),
  });
  widget.serialize = false; // nor in the saved workflow
}

// An execution id is a node's id, with those of the subgraphs around it before: "7" or "3:7".
function findNode(executionId) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id);
    graph = node?.subgraph;
  }
  return node && node.comfyClass in PANELS ? node : null;
}

function show(node, text) {
  const widget = node.widgets?.find(({ name }) => name === WIDGET);
  if (widget) widget.element.textContent = text;
}

const figure = (value) => (value === null ? "not a number" : value.toPrecision(3));

function onStep({ detail }) {
  const node = findNode(detail.node);
  if (!node) return;
  show(
    node,
    `step ${detail.step} of ${detail.total}${detail.conflict ? " · gradients in conflict" : ""}\n` +
      `forget loss ${figure(detail.forget_loss)} · retain loss ${figure(detail.retain_loss)}` +
      ` · cosine ${figure(detail.cosine)}`,
  );
}

function onExecuted({ detail }) {
  const node = findNode(detail.display_node ?? detail.node);
  if (!node) return;
  if (detail.output?.text) show(node, detail.output.text.join("\n"));
  if (detail.output?.images) dropLivePreview(node);
}

// The page prefers a live preview to the pictures of the result for as long as it has one.
function dropLivePreview(node) {
  const id = node.graph.isRootGraph === false ? `${node.graph.id}:${node.id}` : node.id;
  for (const url of app.nodePreviewImages[id] ?? []) URL.revokeObjectURL(url);
  delete app.nodePreviewImages[id];
  node.setDirtyCanvas(true);
}

// Choosing a preset writes its text into the fields beside it.
function followPreset(node) {
  const widget = (name) => node.widgets?.find((one) => one.name === name);
  const chooser = widget("preset");
  const presets = node.constructor.nodeData?.input?.required?.preset?.[1]?.presets;
  if (!chooser || !presets) return;
  const before = chooser.callback;
  chooser.callback = function (value, ...rest) {
    const result = before?.call(this, value, ...rest);
    const [templates, dimensions] = presets[value] ?? [];
    if (templates !== undefined) {
      widget("templates").value = templates;
      widget("dimensions").value = dimensions;
    }
    return result;
  };
}

app.registerExtension({
  name: "unlearn.text",
  setup() {
    api.addEventListener("unlearn.step", onStep);
    api.addEventListener("executed", onExecuted);
  },
  nodeCreated(node) {
    const panel = PANELS[node.comfyClass];
    if (panel) addPanel(node, panel);
    if (node.comfyClass === "UnlearnDiversifyPrompts") followPreset(node);
  },
});
