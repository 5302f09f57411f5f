// The pack in ComfyUI's page: which node has which panel, and what reaches them.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

import { foldAdvanced } from "./advanced.js";
import { addCaptionTable, showCaptions } from "./caption_table.js";
import { addComparePanel, showReport } from "./compare_panel.js";
import { h } from "./dom.js";
import { markNew } from "./earlier.js";
import { tellWhenLeftOut } from "./left_out.js";
import { addLivePanel, followRuns, restoreRuns, showRun } from "./live_panel.js";
import { followPreset } from "./presets.js";
import { addPromptTable, restorePrompts, showPrompts } from "./prompt_table.js";
import { addTextPanel, showText } from "./text_panel.js";
import { t } from "./words.js";

const TEXTS = {
  UnlearnLoadModel: { min: 94, max: 94 },
  UnlearnSaveCheckpoint: { min: 60 },
};
const LINKS = {
  UNLEARN_MODEL: "#b39ddb",
  UNLEARN_CONCEPT: "#d1495b",
  UNLEARN_PROMPTS: "#e0a458",
  UNLEARN_PICTURES: "#64b5f6",
  UNLEARN_RESULT: "#4f9d63",
  UNLEARN_REPORT: "#2f8fbf",
};
const HISTORY = 20; // finished runs that are looked through after a reload

const isOurs = (node) => node?.comfyClass?.startsWith("Unlearn");
const hasOurs = (graph) =>
  Boolean(graph?._nodes?.some((node) => isOurs(node) || hasOurs(node.subgraph)));

// An execution id is a node's id, with those of the subgraphs around it before: "7" or "3:7".
function findNode(executionId) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id);
    graph = node?.subgraph;
  }
  return isOurs(node) ? node : null;
}

function showOutput(node, output) {
  markNew(node);
  if (output.unlearn_run) showRun(node, output.unlearn_run[0]);
  if (output.unlearn_report) showReport(node, output.unlearn_report[0]);
  if (output.unlearn_captions) showCaptions(node, output.unlearn_captions);
  if (output.text) showText(node, output.text.join("\n"));
}

function onExecuted({ detail }) {
  const node = findNode(detail.display_node ?? detail.node);
  if (!node || !detail.output) return;
  showOutput(node, detail.output);
  // Not after a reload: the table is to show what the words above it make now.
  if (detail.output.unlearn_prompts) showPrompts(node, detail.output.unlearn_prompts[0]);
}

// After a reload the page has forgotten what the nodes have shown; the server's history has not.
async function restoreOutputs(graph) {
  const history = await (await api.fetchApi(`/history?max_items=${HISTORY}`)).json();
  const last = Object.values(history)
    .filter(({ prompt }) => prompt[3]?.extra_pnginfo?.workflow?.id === graph.id)
    .sort((one, other) => other.prompt[0] - one.prompt[0]);
  if (!last.length || !agrees(last[0].prompt[2])) return false;
  for (const [id, output] of Object.entries(last[0].outputs)) {
    const node = findNode(id);
    if (node) showOutput(node, output);
  }
  return true;
}

// Whether a queued prompt has our nodes as they stand in the graph now: results of other settings
// would only mislead.
function agrees(prompt) {
  return Object.entries(prompt).every(([id, { class_type: type, inputs }]) => {
    if (!type.startsWith("Unlearn")) return true;
    const same = ({ name, value }) =>
      !(name in inputs) ||
      Array.isArray(inputs[name]) || // comes along a link
      name === "keep_step" || // which the panel itself sets after a run
      JSON.stringify(inputs[name]) === JSON.stringify(value);
    return findNode(id)?.widgets?.every(same) ?? false;
  });
}

// Where the person's own palette says nothing of our kinds of links.
function colorLinks() {
  const { default_connection_color_byType: slots, constructor } = app.canvas;
  for (const [type, color] of Object.entries(LINKS)) {
    slots[type] ||= color;
    constructor.link_type_colors[type] ||= color;
  }
}

app.registerExtension({
  name: "unlearn",
  setup() {
    const sheet = new URL("../css/unlearn.css", import.meta.url);
    document.head.append(h("link", { rel: "stylesheet", href: sheet.href }));
    api.addEventListener("executed", onExecuted);
    followRuns(findNode);
  },
  nodeCreated(node) {
    if (!isOurs(node)) return;
    foldAdvanced(node);
    tellWhenLeftOut(node, findNode);
    const text = TEXTS[node.comfyClass];
    if (text) addTextPanel(node, { ...text, placeholder: t(`text.${node.comfyClass}`) });
    if (node.comfyClass === "UnlearnRestrictedGradient") addLivePanel(node);
    if (node.comfyClass === "UnlearnEvaluateAlignment") addComparePanel(node);
    if (node.comfyClass === "UnlearnOwnPictures") addCaptionTable(node);
    if (node.comfyClass === "UnlearnDiversifyPrompts") {
      followPreset(node);
      addPromptTable(node);
    }
    node.setSize([node.size[0], node.computeSize()[1]]); // it was made with all inputs open
  },
  loadedGraphNode(node) {
    if (node.comfyClass === "UnlearnDiversifyPrompts") restorePrompts(node);
  },
  async afterConfigureGraph() {
    const graph = app.rootGraph ?? app.graph;
    if (!hasOurs(graph)) return;
    colorLinks();
    const same = await restoreOutputs(graph);
    await restoreRuns(findNode, same); // last: a run that goes on is newer than any result
  },
});
